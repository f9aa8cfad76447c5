//! BLAKE3 of an object from the digests of its chunks, in whatever order they come.
//!
//! A chunk of [`CHUNK_BYTES`] is a whole subtree of BLAKE3's tree (BLAKE3 specification, section 2.1), so its
//! chaining value can be made where the chunk is hot, and only 32 bytes travel to the object's home. Neighbours are
//! merged as soon as both are there: memory follows the number of gaps, not the size of the object.
use alloc::collections::BTreeMap;

use blake3::hazmat::{Mode, merge_subtrees_non_root, merge_subtrees_root};
use dwcp_abi::wire::CHUNK_BYTES;

use crate::io::Hash;

/// The bytes of a chunk that lies in a hole.
pub static ZERO_CHUNK: [u8; CHUNK_BYTES as usize] = [0; CHUNK_BYTES as usize];

/// Chaining values of an object's chunks, merged as far as possible.
#[derive(Debug)]
pub struct SubtreeDigests {
    leaves: u64,
    /// By level and position. Level 0 is chunks.
    nodes: BTreeMap<(u8, u64), Hash>,
    root: Option<Hash>,
    received: u64,
}

impl SubtreeDigests {
    /// For an object of `size` bytes; an empty object's digest is known at once.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let root = (size == 0).then(|| *blake3::hash(b"").as_bytes());
        Self { leaves: size.div_ceil(u64::from(CHUNK_BYTES)), nodes: BTreeMap::new(), root, received: 0 }
    }

    /// The digest of one chunk as [`SubtreeDigests::insert`] wants it.
    ///
    /// `offset` is a multiple of [`CHUNK_BYTES`], `size` the object's, `bytes` not empty.
    #[must_use]
    pub fn leaf(bytes: &[u8], offset: u64, size: u64) -> Hash {
        use blake3::hazmat::HasherExt;
        if size <= u64::from(CHUNK_BYTES) {
            return *blake3::hash(bytes).as_bytes();
        }
        blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
    }

    /// Adds the digest of the chunk at `offset`. A chunk that is merged already is ignored.
    pub fn insert(&mut self, offset: u64, digest: Hash) {
        let index = offset / u64::from(CHUNK_BYTES);
        if index >= self.leaves || self.root.is_some() {
            return;
        }
        self.received += 1;
        if self.leaves == 1 {
            self.root = Some(digest);
            return;
        }
        self.place(0, index, digest);
    }

    /// The object's digest, once every chunk is there.
    #[must_use]
    pub fn root(&self) -> Option<Hash> {
        self.root
    }

    fn place(&mut self, level: u8, index: u64, digest: Hash) {
        let (mut level, mut index, mut digest) = (level, index, digest);
        loop {
            let sibling = index ^ 1;
            if index & 1 == 0 && sibling << level >= self.leaves {
                // Nothing lies to the right: the node stands for its parent too.
                level += 1;
                index >>= 1;
                continue;
            }
            let Some(other) = self.nodes.remove(&(level, sibling)) else { break };
            let (left, right) = if index & 1 == 0 { (digest, other) } else { (other, digest) };
            if (2u64 << level) >= self.leaves {
                self.root = Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes());
                self.nodes.clear();
                return;
            }
            digest = merge_subtrees_non_root(&left, &right, Mode::Hash);
            level += 1;
            index >>= 1;
        }
        self.nodes.insert((level, index), digest);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn digest_in_order(data: &[u8], order: impl Fn(usize) -> usize) -> Hash {
        let size = data.len() as u64;
        let mut digests = SubtreeDigests::new(size);
        let chunks: Vec<&[u8]> = data.chunks(CHUNK_BYTES as usize).collect();
        for turn in 0..chunks.len() {
            let index = order(turn);
            let offset = index as u64 * u64::from(CHUNK_BYTES);
            digests.insert(offset, SubtreeDigests::leaf(chunks[index], offset, size));
        }
        assert!(digests.nodes.is_empty());
        digests.root().unwrap()
    }

    #[test]
    fn equals_blake3_for_any_number_of_chunks_in_any_order() {
        let chunk = CHUNK_BYTES as usize;
        let data: Vec<u8> =
            (0..chunk * 9 + 77).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for length in
            [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk, 5 * chunk + 1, 8 * chunk, data.len()]
        {
            let data = &data[..length];
            let chunks = length.div_ceil(chunk);
            let expected = *blake3::hash(data).as_bytes();
            assert_eq!(digest_in_order(data, |turn| turn), expected, "{length} forwards");
            assert_eq!(digest_in_order(data, |turn| chunks - 1 - turn), expected, "{length} backwards");
            if chunks == 7 || chunks == 10 {
                assert_eq!(digest_in_order(data, |turn| turn * 3 % chunks), expected, "{length} scattered");
            }
        }
    }
}
