//! What the dataplane leaves on disk for its next life: the map of a [`partial`] file. Whatever is found there may be
//! torn, foreign or forged, and is checked like a peer's bytes.
mod partial;

pub use partial::{
    CHUNK_WRITTEN, PARTIAL_CHUNKS_MAX, PARTIAL_CHUNKS_MIN, PARTIAL_HEADER_BYTES, PARTIAL_VERSION,
    PartialHeader, PartialLayout, written_runs,
};
