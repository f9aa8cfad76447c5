//! One file per codec, each with an encoder and a decoder of bare coded bytes. Called by [`crate::encode`] and
//! [`crate::decode`], which write and check headers, lengths and checksums.
//!
//! An encoder returns `None` where the result does not fit in the room that it was given: the block then goes raw. A
//! decoder fills `plain` exactly or fails; what it leaves there when it fails has no meaning.
pub(crate) mod lz4;
pub(crate) mod reference;
pub(crate) mod snappy;
pub(crate) mod zstd;

/// Moves what was coded elsewhere into `coded`, if it fits.
fn keep(scratch: &[u8], coded: &mut [u8]) -> Option<usize> {
    coded.get_mut(..scratch.len())?.copy_from_slice(scratch);
    Some(scratch.len())
}
