//! Frames between peers, after the handshake: what travels on a lane.
//!
//! ```text
//!  0       1       2       4        8               16              24           28
//!  ┌───────┬───────┬───────┬────────┬───────────────┬───────────────┬────────────┬────────────┐
//!  │ kind  │ flags │   0   │ length │      job      │   sequence    │ payload CRC│ header CRC │
//!  └───────┴───────┴───────┴────────┴───────────────┴───────────────┴────────────┴────────────┘
//!  then `length` bytes of payload. Integers are little-endian, CRCs are CRC-32C (RFC 3720 B.4).
//! ```
//! A lane is an authenticated byte stream; the CRCs find what slips through hosts, drivers and our own mistakes.
//! Chunks and packs are *tasks*: they count up in `sequence` per lane and direction and are acknowledged by
//! [`Ack`]. All other frames are small, and are not acknowledged as such.
mod ack;
mod block;
mod changes;
mod chunk;
mod cluster;
mod delta;
mod entry;
mod extra;
mod filter;
mod frame;
pub mod hello;
mod job;
mod options;
mod pattern;
mod ranges;
pub mod rdma;
mod recipe;
mod replicated;
mod tunnel;

pub use ack::{Ack, RANGES_MAX, SequenceRange};
pub use block::{
    BLOCK_HEADER_BYTES, BLOCK_PLAIN_MAX, BLOCK_VERSION, BlockCodec, BlockHeader, CONTENT_ID_BYTES, ContentId,
    Names, REFERENCE_PLAIN_MAX, ZSTD_LEVEL_MAX,
};
pub use changes::{
    CHANGED_NAMES_BYTES_MAX, Change, ChangedName, JOB_CHANGES_BYTES_MAX, JobChanges, NOTES_BYTES_MAX,
    changed_names,
};
pub use chunk::{CHUNK_HEAD_BYTES, ChunkHead, Codec, PACK_HEAD_BYTES, PackHead};
pub use cluster::{
    CLUSTER_ALPN, CLUSTER_FRAME_BYTES_MAX, CLUSTER_FRAME_HEADER_BYTES, CLUSTER_REASON_BYTES_MAX,
    CLUSTER_TEXT_BYTES_MAX, ClusterAbout, ClusterAdmitted, ClusterFrameKind, ClusterJoin,
    cluster_frame_header, read_cluster_frame_header,
};
pub use delta::{
    DELTA_HEAD_BYTES, DELTA_PIECE_BYTES, DELTA_SEGMENT_BYTES_MIN, DeltaHead, DeltaKind, PieceHead, STREAMS,
    Stream,
};
pub use entry::{
    COMPONENT_BYTES_MAX, COMPONENTS_MAX, ENTRY_HEADER_BYTES, Entry, EntryHeader, EntryKind, FILE_BYTES_MAX,
    FLAG_EXTRA, FLAG_LEFT_OUT, FLAG_SOLE, NAME_BYTES_MAX, PACK_DIGEST_BYTES, Pack, PackWriter,
    TEXT_BYTES_MAX, check_name, open_pack,
};
pub use extra::{
    ATTRIBUTE_NAME_BYTES_MAX, Attribute, ContentDigest, EXTRA_BYTES_MAX, Extra, Node, NodeKind,
    OWNER_NAME_BYTES_MAX, OwnerName, extras,
};
pub use filter::{
    FILTER_LIST_BYTES_MAX, FILTER_PATTERN_BYTES_MAX, FILTERS_MAX, FilterAction, FilterRule, filter_rules,
};
pub use frame::{
    CONTROL_PAYLOAD_MAX, FLAG_OWNER, FRAME_HEADER_BYTES, FrameHeader, FrameKind, checksum, frame,
};
pub use job::{
    Close, Code, FetchRequest, Held, JobAbort, JobAccept, JobDone, JobEnd, JobOpen, ObjectDone, ObjectEnd,
    ObjectOpened, ObjectPlain, Ping,
};
pub use options::TreeOptions;
pub use pattern::{ByteClass, PatternError, PatternText, PatternToken};
pub use ranges::{CHUNK_RANGES_MAX, ChunkRanges};
pub use recipe::{RECIPE_CHUNK_BYTES, RECIPE_CHUNKS_MAX, RECIPE_HEAD_BYTES, Recipe, RecipeChunk, RecipeHead};
pub use replicated::{
    REPLICATED_KEY_BYTES_MAX, REPLICATED_VALUE_BYTES_MAX, ReplicatedCommand, ReplicatedFact, ReplicatedNode,
    ReplicatedProtocol, ReplicatedPut, ReplicatedSeat, ReplicatedValue,
};
pub use tunnel::{
    TUNNEL_FLAG_BLOCKED, TUNNEL_FLAG_CODED, TUNNEL_FLAG_OPENER, TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX,
    TUNNEL_TARGET_MAX, TUNNEL_TEXT_MAX, TUNNEL_WINDOW_FIRST, TunnelAck, TunnelFrame, TunnelHeader,
    TunnelKind, TunnelOpen, TunnelReset, tunnel_frame, tunnel_seal,
};

/// Protocol versions that this build speaks.
pub const VERSIONS: core::ops::RangeInclusive<u16> = 1..=1;

/// Plain bytes in a full chunk. A power of two and a multiple of 1024, so that a chunk is a whole BLAKE3 subtree.
pub const CHUNK_BYTES: u32 = 512 * 1024;

/// Packs of a job's first attempt that may be sent before the receiver has accepted the job: it keeps them until its tree
/// is made. More would only fill its memory.
pub const EARLY_PACKS_MAX: u64 = 2;

/// Most bytes of a task's payload: a chunk, its head, and room for a codec's worst case.
pub const TASK_PAYLOAD_MAX: u32 = CHUNK_BYTES + 4096 - FRAME_HEADER_BYTES as u32;
