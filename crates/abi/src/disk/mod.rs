//! What stays on disk: the map of a [`partial`] file, which the dataplane leaves for its next life, and the head of a
//! [`sealed`] one. Whatever is found there may be torn, foreign or forged, and is checked like a peer's bytes.
mod partial;
mod sealed;

pub use partial::{
    CHUNK_WRITTEN, PARTIAL_CHUNKS_MAX, PARTIAL_CHUNKS_MIN, PARTIAL_HEADER_BYTES, PARTIAL_VERSION,
    PartialHeader, PartialLayout, written_runs,
};
pub use sealed::{
    SEALED_HEADER_BYTES, SEALED_ITERATIONS, SEALED_SEGMENT_BYTES, SEALED_TAG_BYTES, SealedHeader,
};
