//! Byte ring with one producer and one consumer: how control's commands reach a worker, and a worker's events reach
//! control. Used through `sys`, which maps the memory; rings no doorbell itself and knows no message.
//!
//! ```text
//! byte   0  tail      bytes ever written     written by the producer only
//!       64  head      bytes ever consumed    written by the consumer only
//!      128  sleeping  1 = ring the doorbell  written by the consumer only
//!      256  data      a power of two of bytes; position p lives at 256 + p % capacity
//!
//! record, 8-byte aligned, may wrap:
//!        0  u32 length of the payload in bytes
//!        4  u32 stamp: position / 8, so that bytes which are no record do not pass for one
//!        8  payload, then padding to 8 bytes
//! ```
//!
//! The other side is hostile: each keeps its own index outside the shared memory, reads the other's once per call
//! and checks it. What does not fit is reported as corrupt, never followed.
use super::atomic::{AtomicU64, Memory, Ordering, fence};

/// Writes records.
#[derive(Debug)]
pub struct Producer<M> {
    slots: Slots<M>,
    tail: u64,
}

/// Reads records.
#[derive(Debug)]
pub struct Consumer<M> {
    slots: Slots<M>,
    head: u64,
}

/// Why a record was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// No room now; the consumer makes some.
    Full,
    /// The record can never fit; this is the most that can, in bytes.
    TooLarge {
        /// Bytes of the largest record.
        max: usize,
    },
    /// The consumer's index is impossible. Ring the doorbell: the consumer finds out and resets.
    Corrupt {
        /// The index found.
        head: u64,
    },
}

/// Why a ring cannot be used or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingError {
    /// The memory is not a header and a power of two of bytes.
    Shape {
        /// How many words were given.
        words: usize,
    },
    /// The other side wrote something impossible; the consumer answers with [`Consumer::reset`].
    Corrupt {
        /// What is impossible: an index, a stamp or a length.
        what: &'static str,
        /// The value found.
        value: u64,
    },
    /// The caller's buffer is shorter than the record; nothing was consumed.
    NoRoom {
        /// Length of the record in bytes.
        length: usize,
    },
}

impl core::fmt::Display for PushError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Full => write!(f, "ring is full"),
            Self::TooLarge { max } => write!(f, "record is longer than the ring's limit of {max} bytes"),
            Self::Corrupt { head } => write!(f, "ring's consumer index {head} is impossible"),
        }
    }
}

impl core::fmt::Display for RingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Shape { words } => write!(f, "{words} words are not the shape of a ring"),
            Self::Corrupt { what, value } => write!(f, "ring's {what} {value} is impossible"),
            Self::NoRoom { length } => write!(f, "record of {length} bytes does not fit the reader's buffer"),
        }
    }
}

impl core::error::Error for PushError {}
impl core::error::Error for RingError {}

impl<M: Memory> Producer<M> {
    /// Takes over the producing end where the memory's indices say that it stands. Zeroed memory is an empty ring.
    /// A producer that follows a dead one rings the doorbell once: its predecessor may have died before doing so.
    ///
    /// # Errors
    /// [`RingError::Shape`]; [`RingError::Corrupt`] where the indices are impossible: see [`Producer::start_over`].
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory)?;
        // Relaxed: a predecessor is dead, and what the consumer still owns is learnt in `push`.
        let tail = slots.word(TAIL).load(Ordering::Relaxed);
        let head = slots.word(HEAD).load(Ordering::Relaxed);
        slots.used(head, tail)?;
        Ok(Self { slots, tail })
    }

    /// Takes over a ring whose indices are impossible: begins at the consumer's index, what was unread is lost.
    ///
    /// # Errors
    /// [`RingError::Shape`].
    pub fn start_over(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory)?;
        let tail = aligned(slots.word(HEAD).load(Ordering::Relaxed));
        // Release: partner of the Acquire of `tail` in `Consumer::pop`, as in `push`.
        slots.word(TAIL).store(tail, Ordering::Release);
        Ok(Self { slots, tail })
    }

    /// Appends one record; true = the consumer sleeps, ring its doorbell (once after several records will do).
    ///
    /// # Errors
    /// Any [`PushError`]; nothing was written.
    pub fn push(&mut self, record: &[u8]) -> Result<bool, PushError> {
        let max = self.slots.record_bytes_max();
        if record.len() > max {
            return Err(PushError::TooLarge { max });
        }
        // Acquire: partner of the Release of `head` in `Consumer::pop`, whose reads end before we overwrite.
        let head = self.slots.word(HEAD).load(Ordering::Acquire);
        let stride = stride(record.len());
        let refusal = match self.slots.used(head, self.tail) {
            Ok(used) if self.slots.capacity_bytes - used >= stride => None,
            Ok(_) => Some(PushError::Full),
            Err(_) => Some(PushError::Corrupt { head }),
        };
        if let Some(refusal) = refusal {
            // Says again where we are: a consumer that was misled about it would wait for ever, and now resets.
            self.slots.word(TAIL).store(self.tail, Ordering::Release);
            return Err(refusal);
        }
        self.slots.write(self.tail, record);
        self.tail = self.tail.wrapping_add(stride);
        // Release: partner of the Acquire of `tail` in `Consumer::pop`, which reads the record behind it.
        self.slots.word(TAIL).store(self.tail, Ordering::Release);
        // SeqCst fence between our write of `tail` and our read of `sleeping`: partner of the fence between the
        // write of `sleeping` and the read of `tail` in `Consumer::prepare_sleep`. One of the two sees the other.
        fence(Ordering::SeqCst);
        Ok(self.slots.word(SLEEPING).load(Ordering::Relaxed) != 0)
    }

    /// Bytes that the ring can hold, record headers included.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.slots.capacity_bytes
    }
}

impl<M: Memory> Consumer<M> {
    /// Takes over the consuming end where the memory's indices say that it stands. Zeroed memory is an empty ring.
    /// A predecessor that died while reading leaves its last record to be read again.
    ///
    /// # Errors
    /// [`RingError::Shape`]; [`RingError::Corrupt`] where the indices are impossible: see [`Consumer::start_over`].
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory)?;
        // Relaxed: only `pop` reads what lies behind the indices, and it loads `tail` again.
        let tail = slots.word(TAIL).load(Ordering::Relaxed);
        let head = slots.word(HEAD).load(Ordering::Relaxed);
        slots.used(head, tail)?;
        slots.word(SLEEPING).store(0, Ordering::Relaxed);
        Ok(Self { slots, head })
    }

    /// Takes over a ring whose indices are impossible, and empties it.
    ///
    /// # Errors
    /// [`RingError::Shape`].
    pub fn start_over(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory)?;
        slots.word(SLEEPING).store(0, Ordering::Relaxed);
        let mut consumer = Self { slots, head: 0 };
        consumer.reset();
        Ok(consumer)
    }

    /// Copies the next record to the front of `buffer` and says how long it is; `None` = the ring is empty.
    /// A buffer of [`RECORD_BYTES_MAX`] holds every record.
    ///
    /// # Errors
    /// [`RingError::Corrupt`]: call [`Consumer::reset`]. [`RingError::NoRoom`]: the buffer is too short.
    pub fn pop(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, RingError> {
        // Acquire: partner of the Release of `tail` in `Producer::push`; the record's words are visible after it.
        let tail = self.slots.word(TAIL).load(Ordering::Acquire);
        let available = self.slots.used(self.head, tail)?;
        if available == 0 {
            return Ok(None);
        }
        let header = self.slots.slot(self.head).load(Ordering::Relaxed);
        let length = self.length_checked(header, available)?;
        let Some(record) = buffer.get_mut(..length) else {
            return Err(RingError::NoRoom { length });
        };
        self.slots.read(self.head, record);
        self.head = self.head.wrapping_add(stride(length));
        // Release: partner of the Acquire of `head` in `Producer::push`; our reads end before it overwrites.
        self.slots.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(length))
    }

    fn length_checked(&self, header: u64, available: u64) -> Result<usize, RingError> {
        let [length, found] = halves(header);
        if found != stamp(self.head) {
            return Err(RingError::Corrupt { what: "stamp", value: u64::from(found) });
        }
        let impossible = RingError::Corrupt { what: "length", value: u64::from(length) };
        let length = usize::try_from(length).map_err(|_| impossible)?;
        if length > self.slots.record_bytes_max() || stride(length) > available {
            return Err(impossible);
        }
        Ok(length)
    }

    /// Drops everything that is in the ring.
    pub fn reset(&mut self) {
        // Acquire and Release as in `pop`. A producer that was misled about `tail` says it again at its next push.
        self.head = aligned(self.slots.word(TAIL).load(Ordering::Acquire));
        self.slots.word(HEAD).store(self.head, Ordering::Release);
    }

    /// Announces that the consumer is about to wait for its doorbell; false = something has arrived, do not wait.
    /// After waiting call [`Consumer::wake`]: until then every push rings.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.slots.word(SLEEPING).store(1, Ordering::Relaxed);
        // SeqCst fence between our write of `sleeping` and our read of `tail`: partner of the fence in
        // `Producer::push`.
        fence(Ordering::SeqCst);
        if self.slots.word(TAIL).load(Ordering::Relaxed) == self.head {
            return true;
        }
        self.wake();
        false
    }

    /// Ends a sleep: producers need not ring any more.
    pub fn wake(&self) {
        // Relaxed: a producer that still sees 1 rings once too often, which is harmless.
        self.slots.word(SLEEPING).store(0, Ordering::Relaxed);
    }

    /// Whether nothing is waiting, as far as can be seen now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.word(TAIL).load(Ordering::Relaxed) == self.head
    }
}

/// The ring's words, and the arithmetic of positions in them.
#[derive(Debug)]
struct Slots<M> {
    memory: M,
    capacity_bytes: u64,
}

impl<M: Memory> Slots<M> {
    fn new(memory: M) -> Result<Self, RingError> {
        let words = memory.words().len();
        let slots = words.checked_sub(HEADER_WORDS).ok_or(RingError::Shape { words })?;
        if slots < SLOTS_MIN || !slots.is_power_of_two() {
            return Err(RingError::Shape { words });
        }
        Ok(Self { memory, capacity_bytes: slots as u64 * WORD_BYTES })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.memory.words()[index]
    }

    fn slot(&self, position: u64) -> &AtomicU64 {
        // The mask keeps the index below the number of slots, whatever the position.
        self.word(HEADER_WORDS + ((position & (self.capacity_bytes - 1)) / WORD_BYTES) as usize)
    }

    /// Bytes between two indices, if they can be.
    fn used(&self, head: u64, tail: u64) -> Result<u64, RingError> {
        let used = tail.wrapping_sub(head);
        if !head.is_multiple_of(WORD_BYTES) {
            return Err(RingError::Corrupt { what: "head", value: head });
        }
        if !tail.is_multiple_of(WORD_BYTES) || used > self.capacity_bytes {
            return Err(RingError::Corrupt { what: "tail", value: tail });
        }
        Ok(used)
    }

    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min((self.capacity_bytes - WORD_BYTES) as usize)
    }

    // The words of a record are Relaxed: `head` and `tail` order them.
    fn write(&self, position: u64, record: &[u8]) {
        let header = u64::from(stamp(position)) << 32 | record.len() as u64;
        self.slot(position).store(header, Ordering::Relaxed);
        let mut position = position;
        for chunk in record.chunks(WORD_BYTES as usize) {
            position = position.wrapping_add(WORD_BYTES);
            let mut word = [0; WORD_BYTES as usize];
            word[..chunk.len()].copy_from_slice(chunk);
            self.slot(position).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn read(&self, position: u64, record: &mut [u8]) {
        let mut position = position;
        for chunk in record.chunks_mut(WORD_BYTES as usize) {
            position = position.wrapping_add(WORD_BYTES);
            let word = self.slot(position).load(Ordering::Relaxed).to_le_bytes();
            let length = chunk.len();
            chunk.copy_from_slice(&word[..length]);
        }
    }
}

/// Bytes that a record takes in the ring.
fn stride(length: usize) -> u64 {
    WORD_BYTES + (length as u64).next_multiple_of(WORD_BYTES)
}

fn stamp(position: u64) -> u32 {
    halves(position / WORD_BYTES)[0]
}

/// Low and high half.
fn halves(word: u64) -> [u32; 2] {
    [(word & 0xffff_ffff) as u32, (word >> 32) as u32]
}

fn aligned(position: u64) -> u64 {
    position & !(WORD_BYTES - 1)
}

/// Longest payload of a record in bytes: one message of [`crate::link`] with the paths it may carry.
pub const RECORD_BYTES_MAX: usize = 20 * 1024;

/// Bytes before a ring's data.
pub const RING_HEADER_BYTES: usize = 256;

/// Word index of `tail`.
pub const TAIL: usize = 0;
/// Word index of `head`.
pub const HEAD: usize = 8;
/// Word index of `sleeping`.
pub const SLEEPING: usize = 16;

const HEADER_WORDS: usize = RING_HEADER_BYTES / 8;
const WORD_BYTES: u64 = 8;
const SLOTS_MIN: usize = 2;

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
