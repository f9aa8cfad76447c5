//! What jobs move: entries with contents made from the seed, some of which change or cannot be read.
use std::rc::Rc;

use dwcp_abi::wire::CHUNK_BYTES;

use super::rng::Rng;
use super::scenario::ObjectFaults;

/// Largest entry that travels in a pack.
pub(super) const SMALL_MAX: usize = 4000;

/// One thing of a source tree.
#[derive(Debug)]
pub(super) struct Entry {
    /// Contents, oldest first. The last one is what a read finds.
    pub(super) versions: Vec<Rc<Vec<u8>>>,
    /// By chunk: whether it is a hole.
    pub(super) holes: Vec<bool>,
    /// Announced as an object, not packed.
    pub(super) large: bool,
    /// Its changes show in no time stamp.
    pub(super) sneaky: bool,
    pub(super) will_change: bool,
    pub(super) read_fails: bool,
    pub(super) write_fails: bool,
    pub(super) commit_fails: bool,
    pub(super) refused: bool,
}

impl Entry {
    pub(super) fn new(rng: &mut Rng, faults: &ObjectFaults) -> Self {
        let chunk = u64::from(CHUNK_BYTES);
        let large = rng.chance(450);
        let size = if large {
            let many = rng.between(2, 6) * chunk + rng.below(chunk);
            rng.pick(&[0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 7, many])
        } else {
            rng.pick(&[0, 1, 100, 1500, SMALL_MAX as u64])
        };
        let sparse = large && rng.chance(300);
        let holes: Vec<bool> = (0..size.div_ceil(chunk)).map(|_| sparse && rng.chance(500)).collect();
        let content = Rc::new(content(rng, size, &holes));
        Self {
            versions: vec![content],
            holes,
            large,
            sneaky: rng.chance(600),
            will_change: rng.chance(faults.changes),
            read_fails: large && rng.chance(faults.read_fails),
            write_fails: large && rng.chance(faults.write_fails),
            commit_fails: large && rng.chance(faults.commit_fails),
            refused: large && rng.chance(faults.refused),
        }
    }

    /// A large file without faults or holes.
    pub(super) fn sound(rng: &mut Rng, size: u64) -> Self {
        let holes = vec![false; size.div_ceil(u64::from(CHUNK_BYTES)) as usize];
        Self {
            versions: vec![Rc::new(content(rng, size, &holes))],
            holes,
            large: true,
            sneaky: false,
            will_change: false,
            read_fails: false,
            write_fails: false,
            commit_fails: false,
            refused: false,
        }
    }

    pub(super) fn current(&self) -> &Rc<Vec<u8>> {
        self.versions.last().expect("an entry has a first version")
    }

    pub(super) fn size(&self) -> u64 {
        self.current().len() as u64
    }

    /// Other bytes in the same places.
    pub(super) fn change(&mut self, rng: &mut Rng) {
        let size = self.size();
        self.versions.push(Rc::new(content(rng, size, &self.holes)));
    }

    /// What a look at it from outside tells its versions apart by.
    pub(super) fn stamp(&self) -> u64 {
        if self.sneaky { 0 } else { self.versions.len() as u64 }
    }

    /// Parts that are not holes, joined.
    pub(super) fn extents(&self) -> Vec<(u64, u64)> {
        let chunk = u64::from(CHUNK_BYTES);
        let mut extents: Vec<(u64, u64)> = Vec::new();
        for (index, _) in self.holes.iter().enumerate().filter(|&(_, &hole)| !hole) {
            let (start, end) = (index as u64 * chunk, ((index as u64 + 1) * chunk).min(self.size()));
            match extents.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => extents.push((start, end)),
            }
        }
        extents
    }

    /// Whether every chunk of `bytes` is what some read of this entry can have found there.
    pub(super) fn can_be(&self, bytes: &[u8]) -> bool {
        if bytes.len() as u64 != self.size() {
            return false;
        }
        let chunk = CHUNK_BYTES as usize;
        (0..bytes.len().div_ceil(chunk)).all(|index| {
            let range = index * chunk..((index + 1) * chunk).min(bytes.len());
            self.versions.iter().any(|version| version[range.clone()] == bytes[range.clone()])
        })
    }

    /// Whether it arrives, whatever the lanes and nodes do.
    pub(super) fn is_sound(&self) -> bool {
        !(self.will_change || self.read_fails || self.write_fails || self.commit_fails || self.refused)
    }
}

/// Cheap bytes that differ from place to place.
fn content(rng: &mut Rng, size: u64, holes: &[bool]) -> Vec<u8> {
    let mut block = [0u8; 4096];
    rng.fill(&mut block);
    let mut bytes = Vec::with_capacity(size as usize);
    let mut number = 0u64;
    while (bytes.len() as u64) < size {
        let length = (size as usize - bytes.len()).min(block.len());
        block[..8].copy_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&block[..length]);
        number += 1;
    }
    for (part, _) in bytes.chunks_mut(CHUNK_BYTES as usize).zip(holes).filter(|&(_, &hole)| hole) {
        part.fill(0);
    }
    bytes
}
