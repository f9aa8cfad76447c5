//! Shared memory: a sealed memfd, mapped as atomic words. The dataplane creates it, control opens what it was handed;
//! [`crate::link`] knows what the words mean.
#![expect(unsafe_code, reason = "mapping memory and viewing it as a slice")]
use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use dwcp_abi::shm::{AtomicU64, Memory, Section};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

/// A mapped memfd whose size nobody can change. Unmapped and closed with its owner.
#[derive(Debug)]
pub struct SharedMemory {
    descriptor: OwnedFd,
    start: NonNull<AtomicU64>,
    length_bytes: NonZeroUsize,
}

/// Why shared memory was not created or is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShmError {
    /// A system call failed.
    #[error("shared memory: {call} failed: {errno}")]
    System {
        /// Its name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The memory has not the expected size, or the size is no multiple of a word.
    #[error("shared memory has {found} bytes instead of {expected}")]
    Size {
        /// Bytes found.
        found: i64,
        /// Bytes expected.
        expected: usize,
    },
    /// The memory could change its size under us.
    #[error("shared memory lacks seals: has {found:#x}, needs {needed:#x}")]
    Unsealed {
        /// Seals found.
        found: i32,
        /// Seals needed.
        needed: i32,
    },
}

fn system(call: &'static str) -> impl FnOnce(Errno) -> ShmError {
    move |errno| ShmError::System { call, errno }
}

impl SharedMemory {
    /// Creates zeroed memory, reserves its pages and seals its size. `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`ShmError::System`], [`ShmError::Size`] for a size of zero or of no whole words.
    pub fn create(name: &CStr, length_bytes: usize) -> Result<Self, ShmError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(name, flags).map_err(system("memfd_create"))?;
        let size = file_size(length_bytes)?;
        // Pages are taken now: running out of memory is an error here and would be a SIGBUS later.
        fallocate(&descriptor, FallocateFlags::empty(), 0, size).map_err(system("fallocate"))?;
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SEALS)).map_err(system("fcntl(F_ADD_SEALS)"))?;
        Self::open(descriptor, length_bytes)
    }

    /// Maps memory that another process made, after checking that its size is right and cannot change.
    ///
    /// # Errors
    /// Any [`ShmError`]; the descriptor is closed.
    pub fn open(descriptor: OwnedFd, length_bytes: usize) -> Result<Self, ShmError> {
        let size = file_size(length_bytes)?;
        // Seals before size: sealed, the size that we read next stays true.
        let found = fcntl(&descriptor, FcntlArg::F_GET_SEALS).map_err(system("fcntl(F_GET_SEALS)"))?;
        if found & SEALS.bits() != SEALS.bits() {
            return Err(ShmError::Unsealed { found, needed: SEALS.bits() });
        }
        let found = fstat(&descriptor).map_err(system("fstat"))?.st_size;
        if found != size {
            return Err(ShmError::Size { found, expected: length_bytes });
        }
        Self::map(descriptor, length_bytes)
    }

    fn map(descriptor: OwnedFd, length_bytes: usize) -> Result<Self, ShmError> {
        let length_bytes =
            NonZeroUsize::new(length_bytes).ok_or(ShmError::Size { found: 0, expected: length_bytes })?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: the kernel chooses the address, so no existing mapping is replaced; the file's size is sealed and
        // is at least `length_bytes`, so no access below it raises SIGBUS.
        let start = unsafe { mmap(None, length_bytes, protection, flags, &descriptor, 0) };
        let start = start.map_err(system("mmap"))?.cast();
        Ok(Self { descriptor, start, length_bytes })
    }

    /// The memory as words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page-aligned and maps `length_bytes` readable and writable bytes until drop, which the
        // borrow of `self` outlasts not; all bit patterns are valid words; other processes write them concurrently,
        // which atomics allow, and nobody here makes a reference to them that is not atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes.get() / WORD_BYTES) }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, was made with this length, and no borrow of it can outlive `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.length_bytes.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only reached through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above: `&SharedMemory` gives out atomics and the descriptor only.
unsafe impl Sync for SharedMemory {}

/// One section of a mapped region: keeps the mapping alive, so that a ring's end can be moved to another thread.
#[derive(Debug, Clone)]
pub struct Part {
    memory: Arc<SharedMemory>,
    words: Range<usize>,
}

impl Part {
    /// The part of `memory` that `section` names; empty where it lies outside.
    #[must_use]
    pub fn new(memory: &Arc<SharedMemory>, section: &Section) -> Self {
        Self { memory: Arc::clone(memory), words: section.words() }
    }
}

impl Memory for Part {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        self.memory.words().get(self.words.clone()).unwrap_or_default()
    }
}

fn file_size(length_bytes: usize) -> Result<i64, ShmError> {
    let wrong = ShmError::Size { found: 0, expected: length_bytes };
    if length_bytes == 0 || !length_bytes.is_multiple_of(WORD_BYTES) {
        return Err(wrong);
    }
    i64::try_from(length_bytes).map_err(|_| wrong)
}

/// Nobody can shrink it (an access beyond the end is a SIGBUS), grow it, or lift these seals.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

const WORD_BYTES: usize = size_of::<AtomicU64>();

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::shm::Ordering;
    use nix::unistd::ftruncate;

    const LENGTH_BYTES: usize = 8192;

    fn foreign(seals: SealFlag, length_bytes: i64) -> OwnedFd {
        let descriptor = memfd_create(c"foreign", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&descriptor, length_bytes).unwrap();
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        descriptor
    }

    #[test]
    fn two_mappings_of_one_memory_see_each_other() {
        let ours = SharedMemory::create(c"test", LENGTH_BYTES).unwrap();
        let theirs = SharedMemory::open(ours.as_fd().try_clone_to_owned().unwrap(), LENGTH_BYTES).unwrap();
        assert_eq!(ours.words().len(), LENGTH_BYTES / 8);
        ours.words()[1023].store(7, Ordering::Relaxed);
        assert_eq!(theirs.words()[1023].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn created_memory_keeps_its_size() {
        let memory = SharedMemory::create(c"test", LENGTH_BYTES).unwrap();
        assert_eq!(ftruncate(&memory, 0), Err(Errno::EPERM));
        assert_eq!(ftruncate(&memory, 1 << 20), Err(Errno::EPERM));
        let more = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
        assert_eq!(fcntl(&memory, more), Err(Errno::EPERM));
    }

    #[test]
    fn memory_that_lacks_a_seal_is_refused() {
        let length_bytes = i64::try_from(LENGTH_BYTES).unwrap();
        for missing in [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SEAL] {
            let descriptor = foreign(SEALS.difference(missing), length_bytes);
            let refused = SharedMemory::open(descriptor, LENGTH_BYTES).unwrap_err();
            assert!(matches!(refused, ShmError::Unsealed { .. }), "{refused}");
        }
    }

    #[test]
    fn memory_of_another_size_or_kind_is_refused() {
        for length_bytes in [0, 8, 8191, 8193, 1 << 30] {
            let refused = SharedMemory::open(foreign(SEALS, length_bytes), LENGTH_BYTES).unwrap_err();
            assert_eq!(refused, ShmError::Size { found: length_bytes, expected: LENGTH_BYTES });
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            SharedMemory::open(null.into(), LENGTH_BYTES),
            Err(ShmError::System { call: "fcntl(F_GET_SEALS)", errno: Errno::EINVAL })
        ));
        assert!(matches!(SharedMemory::create(c"test", 0), Err(ShmError::Size { .. })));
        assert!(matches!(SharedMemory::create(c"test", 12), Err(ShmError::Size { .. })));
    }
}
