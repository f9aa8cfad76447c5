//! Blocks as differences to a baseline: [`index`] knows where a baseline's anchors are, [`matcher`] finds which parts of a
//! target stand there, [`streams`] writes down how they differ, [`encode`] and [`apply`] are the two directions.
//!
//! Called by [`crate::Encoder`] and [`crate::Decoder`]. Blocks do not depend on each other.
pub(crate) mod apply;
mod auto;
mod coarse;
mod compare;
pub(crate) mod encode;
mod gear;
mod index;
mod matcher;
mod near;
mod pieces;
mod streams;
mod words;

pub use auto::{Auto, DELTA_BLOCK_BYTES, Method, SEGMENT_BYTES_MAX, Span};
pub use coarse::{CoarseIndex, WINDOW_BYTES, Window};
pub use encode::Against;
pub use index::Index;

/// Calls `found` with the hash of each anchor's window.
pub(crate) fn anchor_hashes(bytes: &[u8], mut found: impl FnMut(u32)) {
    let mut anchors = gear::Gear::starting(0);
    while let Some(at) = anchors.next(bytes, bytes.len()) {
        if let Some(window) = bytes[at..].first_chunk() {
            found(gear::window_hash(window));
        }
    }
}
