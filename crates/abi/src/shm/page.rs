//! Page of figures with one writer and any number of readers: a sequence lock over words. The writer never waits;
//! a reader gets one consistent copy, or an error after a bounded number of tries. Used by the statistics of workers
//! and of the node ([`super::stats`], [`super::node`]); it does not know what the figures mean.
//!
//! ```text
//! byte  0  sequence: odd while the writer writes
//!      64  values
//! ```
use super::atomic::{Memory, Ordering, fence};

/// The writing end.
#[derive(Debug)]
pub struct PageWriter<M> {
    memory: M,
    sequence: u64,
}

/// The reading end.
#[derive(Debug, Clone)]
pub struct PageReader<M> {
    memory: M,
}

/// Why a page cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// The memory is smaller than the header and the values.
    Shape {
        /// How many words were given.
        words: usize,
    },
    /// No consistent copy in the allowed number of tries: the writer died while writing, or misbehaves.
    Torn,
    /// A value cannot be.
    Corrupt {
        /// What it is.
        what: &'static str,
        /// The value found.
        value: u64,
    },
}

impl core::fmt::Display for PageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Shape { words } => write!(f, "{words} words are too few for the page"),
            Self::Torn => write!(f, "page is never consistent: its writer died or misbehaves"),
            Self::Corrupt { what, value } => write!(f, "page's {what} {value} is impossible"),
        }
    }
}

impl core::error::Error for PageError {}

impl<M: Memory> PageWriter<M> {
    /// Becomes the page's only writer.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        let sequence = memory.words().first().map_or(0, |word| word.load(Ordering::Relaxed));
        // A predecessor that died while writing left it odd.
        Self { memory, sequence: sequence & !1 }
    }

    /// Makes `values` the page's content, all at once for every reader. Values beyond the page are left out.
    pub fn publish(&mut self, values: &[u64]) {
        let Some((head, body)) = self.memory.words().split_at_checked(HEADER_WORDS) else { return };
        let sequence = &head[SEQUENCE];
        sequence.store(self.sequence.wrapping_add(1), Ordering::Relaxed);
        // Release fence: partner of the Acquire fence in `PageReader::try_read`. A reader that sees one of our new
        // values also sees the odd sequence when it looks again.
        fence(Ordering::Release);
        for (word, value) in body.iter().zip(values) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sequence = self.sequence.wrapping_add(2);
        // Release: partner of the Acquire of the first look in `PageReader::try_read`: who sees this sequence sees
        // all values.
        sequence.store(self.sequence, Ordering::Release);
    }
}

impl<M: Memory> PageReader<M> {
    /// Reads from `memory`.
    #[must_use]
    pub fn attach(memory: M) -> Self {
        Self { memory }
    }

    /// Fills `values` with one consistent copy.
    ///
    /// # Errors
    /// [`PageError::Shape`], [`PageError::Torn`].
    pub fn read(&self, values: &mut [u64]) -> Result<(), PageError> {
        let words = self.memory.words().len();
        if words < HEADER_WORDS + values.len() {
            return Err(PageError::Shape { words });
        }
        for _ in 0..READ_TRIES_MAX {
            if self.try_read(values) {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(PageError::Torn)
    }

    fn try_read(&self, values: &mut [u64]) -> bool {
        let (head, body) = self.memory.words().split_at(HEADER_WORDS);
        // Acquire: partner of the last Release of `PageWriter::publish`.
        let before = head[SEQUENCE].load(Ordering::Acquire);
        if before & 1 == 1 {
            return false;
        }
        for (value, word) in values.iter_mut().zip(body) {
            *value = word.load(Ordering::Relaxed);
        }
        // Acquire fence: partner of the Release fence in `PageWriter::publish`.
        fence(Ordering::Acquire);
        head[SEQUENCE].load(Ordering::Relaxed) == before
    }
}

/// Bytes before a page's values.
pub const PAGE_HEADER_BYTES: usize = 64;

const HEADER_WORDS: usize = PAGE_HEADER_BYTES / 8;
const SEQUENCE: usize = 0;

/// A publish takes well under a microsecond; so many tries outlast one even where the writer is preempted briefly.
#[cfg(not(all(loom, test)))]
const READ_TRIES_MAX: usize = 4096;
#[cfg(all(loom, test))]
const READ_TRIES_MAX: usize = 2;

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
