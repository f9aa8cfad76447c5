//! Blocks in, blocks out: compression as pure functions over bytes.
//!
//! The dataplane's workers and their helper threads own one [`Encoder`], [`Decoder`] and [`Chooser`] each. A block is
//! independent of every other block: its header (`dwcp_abi::wire::BlockHeader`) says how it is coded, how long it is on
//! both sides, and what the plain bytes' checksum must be. Nothing here opens, sends, waits, or reads a clock; memory
//! is taken when a codec is made or first used, not per block.
mod choice;
mod chooser;
mod codec;
mod decode;
mod encode;
mod limits;
mod probe;

pub use choice::{Choice, ChoiceError};
pub use chooser::{
    Chooser, Conditions, Configured, Features, LinkTable, ObjectMemory, SKIP_BLOCKS_MAX, Selector,
};
pub use decode::{DecodeError, Decoder};
pub use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BLOCK_PLAIN_MAX, BlockCodec};
pub use encode::{EncodeError, Encoded, Encoder, encoded_length_max};
pub use limits::{Limits, LimitsError};
pub use probe::{Estimate, Probe};
