//! Blocks in, blocks out: compression as pure functions over bytes.
//!
//! The dataplane's workers and their helper threads own one [`Encoder`], [`Decoder`] and [`Chooser`] each. A block is
//! independent of every other block: its header (`dwcp_abi::wire::BlockHeader`) says how it is coded, how long it is on
//! both sides, and what the plain bytes' checksum must be. Nothing here opens, sends, waits, or reads a clock; memory
//! is taken when a codec is made or first used, not per block.
mod baseline;
mod choice;
mod chooser;
mod chunks;
mod codec;
mod cost;
mod decode;
mod delta;
mod dictionary;
mod encode;
mod inventory;
mod limits;
mod probe;
mod sketch;
mod versions;

pub use baseline::{Baseline, BaselineError, MemoryBaseline, content_id, id_of_digest};
pub use choice::{Choice, ChoiceError};
pub use chooser::{
    Chooser, Conditions, Configured, Features, LinkTable, ObjectMemory, SKIP_BLOCKS_MAX, Selector,
};
pub use chunks::{CHUNK_BYTES_MAX, CHUNK_BYTES_MEAN, CHUNK_BYTES_MIN, Chunk, Chunker, chunks_of};
pub use cost::{CostModel, Outcome};
pub use decode::{DecodeError, Decoder, Known, Nothing};
pub use delta::{
    Against, Auto, CoarseIndex, DELTA_BLOCK_BYTES, Index, Method, SEGMENT_BYTES_MAX, Span, WINDOW_BYTES,
    Window,
};
pub use dictionary::{DICTIONARY_BYTES_MAX, Dictionary, DictionaryError, PreparedDictionary, train};
pub use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BLOCK_PLAIN_MAX, BlockCodec, ContentId, REFERENCE_PLAIN_MAX};
pub use encode::{EncodeError, Encoded, EncodedDelta, Encoder, encoded_length_max};
pub use inventory::{Inventory, InventoryFull, Location, missing};
pub use limits::{Limits, LimitsError};
pub use probe::{Estimate, Probe};
pub use sketch::{SKETCH_BYTES, SKETCH_HASHES, Sketch};
pub use versions::{ChainError, StoreAs, VersionRecord, VersionRules, Versions};
