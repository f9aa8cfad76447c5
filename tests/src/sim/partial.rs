//! Partial files on a fake disk: what outlives the end of a process, and what that of the system.
use dwcp_abi::wire::CHUNK_BYTES;

use super::rng::Rng;

/// An object on its way, whoever writes it.
#[derive(Debug)]
pub(super) struct Partial {
    /// Job and entry.
    pub(super) place: (usize, usize),
    pub(super) bytes: Vec<u8>,
    /// What the source looked like from outside.
    stamp: u64,
    /// By chunk: written, and durable.
    written: Vec<bool>,
    synced: Vec<bool>,
    /// Held since it was opened: these must not be sent.
    held: Vec<bool>,
}

impl Partial {
    /// What a former attempt has left, if it is of the same source; else a new one.
    pub(super) fn open(left: Option<Self>, place: (usize, usize), (size, stamp): (u64, u64)) -> Self {
        if let Some(left) = left.filter(|left| left.bytes.len() as u64 == size && left.stamp == stamp) {
            return Self { held: left.written.clone(), ..left };
        }
        let none = vec![false; size.div_ceil(CHUNK) as usize];
        let (written, synced, held) = (none.clone(), none.clone(), none);
        Self { place, bytes: vec![0xaa; size as usize], stamp, written, synced, held }
    }

    /// The ranges that it holds.
    pub(super) fn held(&self) -> Vec<(u64, u64)> {
        let size = self.bytes.len() as u64;
        let chunks = (0..size.div_ceil(CHUNK)).filter(|&chunk| self.held[chunk as usize]);
        chunks.map(|chunk| (chunk * CHUNK, ((chunk + 1) * CHUNK).min(size))).collect()
    }

    /// Whether a chunk was there when the file was opened.
    pub(super) fn has_held(&self, offset: u64) -> bool {
        self.held.get((offset / CHUNK) as usize).copied().unwrap_or(false)
    }

    /// A chunk was written, and perhaps all is flushed now.
    pub(super) fn wrote(&mut self, offset: u64, flushes: bool) {
        self.written[(offset / CHUNK) as usize] = true;
        if flushes {
            self.synced.clone_from(&self.written);
        }
    }

    /// What was not flushed is anything now.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) {
        for (chunk, bytes) in self.bytes.chunks_mut(CHUNK as usize).enumerate() {
            if !self.synced[chunk] && rng.chance(500) {
                bytes.fill(0);
            }
        }
        self.written.clone_from(&self.synced);
    }
}

const CHUNK: u64 = CHUNK_BYTES as u64;
