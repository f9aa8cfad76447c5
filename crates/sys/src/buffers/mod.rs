//! The buffer pool of one proactor: two classes of buffers in one mapping, named by `BufferId`.
//!
//! The proactor owns it; a worker sees only its spans. The pool knows which buffers the kernel reads or writes at the
//! moment and refuses (by panic: it is a bug of this program) any access that could race with the kernel. It does not
//! decide which buffer is free: the worker keeps that book.
#![expect(unsafe_code, reason = "slices over a mapping that is shared with the kernel")]

mod mapping;

pub(crate) use mapping::Mapping;
use nix::errno::Errno;

/// A buffer of the proactor that handed it out. Large buffers come first, then small ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// A range of one buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte of the range.
    pub start: u32,
    /// Number of bytes.
    pub length: u32,
}

/// Whether something that the kernel may refuse is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Ask; go on without it when it is refused.
    Wanted,
    /// Do not ask.
    Never,
}

/// How a pool is laid out: so many buffers of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Number of buffers.
    pub count: u32,
    /// Size of each.
    pub bytes: u32,
}

/// Buffers in one mapping, with what the kernel does to each.
pub(crate) struct Pool {
    mapping: Mapping,
    large: Class,
    small: Class,
    usage: Vec<Usage>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    readers: u32,
    written: bool,
}

impl Pool {
    /// Maps the memory of both classes. The caller has checked the size with [`bytes_total`].
    pub(crate) fn map(large: Class, small: Class, hugepages: Wish) -> Result<Pool, Errno> {
        let mapping = Mapping::anonymous(bytes_total(large, small), hugepages)?;
        let usage = vec![Usage::default(); count_total(large, small)];
        Ok(Pool { mapping, large, small, usage })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Leaves the memory mapped for ever: the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.mapping.leak();
    }

    pub(crate) fn large(&self) -> impl Iterator<Item = BufferId> + use<> {
        (0..self.large.count).map(BufferId)
    }

    pub(crate) fn small(&self) -> impl Iterator<Item = BufferId> + use<> {
        let first = self.large.count;
        (first..first + self.small.count).map(BufferId)
    }

    /// Size of a buffer in bytes. Panics for an id that is not of this pool.
    pub(crate) fn capacity_bytes(&self, buffer: BufferId) -> u32 {
        assert!((buffer.0 as usize) < self.usage.len(), "{buffer:?} is not of this pool");
        if buffer.0 < self.large.count { self.large.bytes } else { self.small.bytes }
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        let start = self.start_of(span);
        assert!(!self.usage_of(span).written, "{span:?} is read while the kernel writes it");
        // SAFETY: `start_of` proved that the range lies inside the mapping, which is initialised (zero pages) and lives
        // as long as `self`. The kernel does not write the buffer (asserted), and no `&mut` to it exists, since those
        // borrow `self` mutably.
        unsafe { std::slice::from_raw_parts(start, span.length as usize) }
    }

    pub(crate) fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        let start = self.start_of(span);
        self.assert_idle(span);
        // SAFETY: as in `bytes`; the kernel neither reads nor writes the buffer (asserted), and `&mut self` excludes
        // every other slice of this pool.
        unsafe { std::slice::from_raw_parts_mut(start, span.length as usize) }
    }

    pub(crate) fn pair(&mut self, read: Span, write: Span) -> (&[u8], &mut [u8]) {
        assert_ne!(read.buffer, write.buffer, "a pair needs two buffers");
        assert!(!self.usage_of(read).written, "{read:?} is read while the kernel writes it");
        self.assert_idle(write);
        let (from, to) = (self.start_of(read), self.start_of(write));
        // SAFETY: as in `bytes`; the buffers differ, so that the exclusive slice below does not overlap this one.
        let source = unsafe { std::slice::from_raw_parts(from, read.length as usize) };
        // SAFETY: as in `bytes_mut`; the buffers differ.
        let target = unsafe { std::slice::from_raw_parts_mut(to, write.length as usize) };
        (source, target)
    }

    pub(crate) fn pair_mut(&mut self, first: Span, second: Span) -> (&mut [u8], &mut [u8]) {
        assert_ne!(first.buffer, second.buffer, "a pair needs two buffers");
        self.assert_idle(first);
        self.assert_idle(second);
        let (from, to) = (self.start_of(first), self.start_of(second));
        // SAFETY: as in `bytes_mut`; the buffers differ, so that the slice below does not overlap this one.
        let source = unsafe { std::slice::from_raw_parts_mut(from, first.length as usize) };
        // SAFETY: as in `bytes_mut`; the buffers differ.
        let target = unsafe { std::slice::from_raw_parts_mut(to, second.length as usize) };
        (source, target)
    }

    /// The bytes that an operation of this thread sends. The operation holds the buffer (`begin_read`).
    pub(crate) fn held_bytes(&self, span: Span) -> &[u8] {
        assert!(self.usage_of(span).readers > 0, "{span:?} is not held");
        self.bytes(span)
    }

    /// The bytes that an operation of this thread fills. The operation holds the buffer (`begin_write`) and no kernel
    /// operation has its address: only the epoll backend calls this.
    pub(crate) fn held_bytes_mut(&mut self, span: Span) -> &mut [u8] {
        assert!(self.usage_of(span).written, "{span:?} is not held");
        let start = self.start_of(span);
        // SAFETY: as in `bytes_mut`; the only writer is the operation on whose behalf this is called.
        unsafe { std::slice::from_raw_parts_mut(start, span.length as usize) }
    }

    /// Where a span begins in the mapping. Panics when it leaves its buffer.
    pub(crate) fn offset_bytes(&self, span: Span) -> usize {
        self.start_of(span);
        self.offset_of(span.buffer) + span.start as usize
    }

    /// First byte of a span, for the kernel. Panics when the span leaves its buffer.
    pub(crate) fn start_of(&self, span: Span) -> *mut u8 {
        let capacity = self.capacity_bytes(span.buffer);
        let end = span.start.checked_add(span.length);
        assert!(end.is_some_and(|end| end <= capacity), "{span:?} leaves its buffer of {capacity} bytes");
        let offset = self.offset_of(span.buffer) + span.start as usize;
        // SAFETY: the buffer lies inside the mapping (`map` sized it for all buffers) and the span inside the buffer.
        unsafe { self.mapping.start().add(offset) }
    }

    /// An operation begins that reads the buffer.
    pub(crate) fn begin_read(&mut self, span: Span) {
        self.start_of(span);
        let usage = &mut self.usage[span.buffer.0 as usize];
        assert!(!usage.written, "{span:?} is sent while the kernel writes it");
        usage.readers += 1;
    }

    /// An operation begins that writes the buffer.
    pub(crate) fn begin_write(&mut self, span: Span) {
        self.start_of(span);
        self.assert_idle(span);
        self.usage[span.buffer.0 as usize].written = true;
    }

    pub(crate) fn end_read(&mut self, span: Span) {
        let usage = &mut self.usage[span.buffer.0 as usize];
        assert!(usage.readers > 0, "{span:?} was not being read");
        usage.readers -= 1;
    }

    pub(crate) fn end_write(&mut self, span: Span) {
        let usage = &mut self.usage[span.buffer.0 as usize];
        assert!(usage.written, "{span:?} was not being written");
        usage.written = false;
    }

    fn usage_of(&self, span: Span) -> Usage {
        self.usage[span.buffer.0 as usize]
    }

    fn assert_idle(&self, span: Span) {
        let usage = self.usage_of(span);
        assert!(!usage.written && usage.readers == 0, "{span:?} is written while the kernel uses it");
    }

    fn offset_of(&self, buffer: BufferId) -> usize {
        let index = buffer.0 as usize;
        let large_count = self.large.count as usize;
        if index < large_count {
            return index * stride_bytes(self.large);
        }
        large_count * stride_bytes(self.large) + (index - large_count) * stride_bytes(self.small)
    }
}

/// Bytes that a pool of these classes maps.
pub(crate) fn bytes_total(large: Class, small: Class) -> usize {
    large.count as usize * stride_bytes(large) + small.count as usize * stride_bytes(small)
}

fn count_total(large: Class, small: Class) -> usize {
    large.count as usize + small.count as usize
}

/// Every buffer begins on a page of its own.
fn stride_bytes(class: Class) -> usize {
    (class.bytes as usize).next_multiple_of(PAGE_BYTES)
}

const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Class = Class { count: 2, bytes: 10_000 };
    const SMALL: Class = Class { count: 3, bytes: 100 };

    fn pool() -> Pool {
        Pool::map(LARGE, SMALL, Wish::Wanted).expect("a few pages")
    }

    fn span(buffer: u32, start: u32, length: u32) -> Span {
        Span { buffer: BufferId(buffer), start, length }
    }

    #[test]
    fn buffers_do_not_overlap() {
        let mut pool = pool();
        let ids: Vec<_> = pool.large().chain(pool.small()).collect();
        assert_eq!(ids, (0..5).map(BufferId).collect::<Vec<_>>());
        for id in &ids {
            let whole = span(id.0, 0, pool.capacity_bytes(*id));
            pool.bytes_mut(whole).fill(id.0 as u8 + 1);
        }
        for id in ids {
            let whole = span(id.0, 0, pool.capacity_bytes(id));
            assert!(pool.bytes(whole).iter().all(|byte| *byte == id.0 as u8 + 1));
        }
    }

    #[test]
    fn pair_copies_between_buffers() {
        let mut pool = pool();
        pool.bytes_mut(span(0, 5, 3)).copy_from_slice(b"abc");
        let (from, to) = pool.pair(span(0, 5, 3), span(4, 97, 3));
        to.copy_from_slice(from);
        assert_eq!(pool.bytes(span(4, 97, 3)), b"abc");
    }

    #[test]
    #[should_panic(expected = "leaves its buffer")]
    fn span_past_the_end_panics() {
        pool().bytes(span(2, 50, 51));
    }

    #[test]
    #[should_panic(expected = "leaves its buffer")]
    fn span_that_overflows_panics() {
        pool().bytes(span(2, u32::MAX, 2));
    }

    #[test]
    #[should_panic(expected = "not of this pool")]
    fn foreign_buffer_panics() {
        pool().start_of(span(5, 0, 0));
    }

    #[test]
    #[should_panic(expected = "needs two buffers")]
    fn pair_of_one_buffer_panics() {
        pool().pair(span(0, 0, 1), span(0, 8, 1));
    }

    #[test]
    #[should_panic(expected = "while the kernel uses it")]
    fn second_writer_panics() {
        let mut pool = pool();
        pool.begin_write(span(0, 0, 1));
        pool.begin_write(span(0, 8, 1));
    }

    #[test]
    fn readers_share_and_end() {
        let mut pool = pool();
        pool.begin_read(span(0, 0, 1));
        pool.begin_read(span(0, 0, 2));
        assert_eq!(pool.bytes(span(0, 0, 1)), [0]);
        pool.end_read(span(0, 0, 1));
        pool.end_read(span(0, 0, 2));
        pool.bytes_mut(span(0, 0, 1))[0] = 1;
    }
}
