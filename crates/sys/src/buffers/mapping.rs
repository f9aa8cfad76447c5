//! Anonymous memory for a pool: hugepages where they are granted, transparent ones where they are not.
//!
//! Only `Pool` uses it. It hands out an address, never a slice.
#![expect(unsafe_code, reason = "mmap, madvise and munmap")]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use super::Wish;

/// Zeroed private memory, aligned to a hugepage.
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    mapped_bytes: usize,
    start: NonNull<u8>,
    length: usize,
    pages: Pages,
    leaked: bool,
}

/// What the memory consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Reserved hugepages (hugetlbfs): in use, or why not.
    pub(crate) reserved: Result<(), Refusal>,
    /// Transparent hugepages: advised, or why not.
    pub(crate) transparent: Result<(), Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotWanted,
    NotNeeded,
    Kernel(Errno),
}

impl Refusal {
    /// Why there are no reserved hugepages, for the operator.
    pub(crate) fn explain_reserved(self) -> String {
        match self {
            Refusal::NotWanted => "not wanted by the configuration".to_owned(),
            Refusal::NotNeeded => "not needed".to_owned(),
            Refusal::Kernel(Errno::ENOMEM) => "too few are free: see vm.nr_hugepages".to_owned(),
            Refusal::Kernel(errno) => errno.desc().to_owned(),
        }
    }

    /// Why there are no transparent hugepages, for the operator.
    pub(crate) fn explain_transparent(self) -> String {
        match self {
            Refusal::NotWanted => "not wanted by the configuration".to_owned(),
            Refusal::NotNeeded => "reserved hugepages are in use".to_owned(),
            Refusal::Kernel(Errno::EINVAL) => "the kernel is built without them".to_owned(),
            Refusal::Kernel(errno) => errno.desc().to_owned(),
        }
    }
}

impl Mapping {
    /// Maps at least `length` bytes (not zero).
    pub(crate) fn anonymous(length: usize, hugepages: Wish) -> Result<Mapping, Errno> {
        let length = length.max(1);
        let reserved = match hugepages {
            Wish::Wanted => map_reserved(length),
            Wish::Never => Err(Refusal::NotWanted),
        };
        let mapping = match reserved {
            Ok(mapping) => mapping,
            Err(refusal) => map_plain(length, refusal, hugepages)?,
        };
        mapping.prepare();
        Ok(mapping)
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }

    /// Never unmaps.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }

    /// Keeps the pages out of forked children (a copy-on-write fault would move them away from under the kernel), and
    /// faults them in on the thread (and memory node) that will use them. Both are improvements that may be refused.
    fn prepare(&self) {
        let start = self.start.cast();
        // SAFETY: the range is the mapping's own; the advice only affects children that fork.
        let kept = unsafe { madvise(start, self.length, MmapAdvise::MADV_DONTFORK) };
        // SAFETY: the range is the mapping's own; populating keeps its content.
        let populated = unsafe { madvise(start, self.length, MmapAdvise::MADV_POPULATE_WRITE) };
        tracing::debug!(bytes = self.length, ?kept, ?populated, pages = ?self.pages, "buffer memory mapped");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: `base` and `mapped_bytes` are what mmap returned; no slice outlives the pool that owns this mapping,
        // and the proactor leaks the mapping when the kernel may still use it.
        let unmapped = unsafe { munmap(self.base, self.mapped_bytes) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

fn map_reserved(length: usize) -> Result<Mapping, Refusal> {
    let length = length.next_multiple_of(HUGEPAGE_BYTES);
    let base = map(length, MapFlags::MAP_HUGETLB).map_err(Refusal::Kernel)?;
    let pages = Pages { reserved: Ok(()), transparent: Err(Refusal::NotNeeded) };
    Ok(Mapping { base, mapped_bytes: length, start: base.cast(), length, pages, leaked: false })
}

/// Maps one hugepage more than needed, so that the start can be aligned for transparent ones.
fn map_plain(length: usize, refusal: Refusal, hugepages: Wish) -> Result<Mapping, Errno> {
    let length = length.next_multiple_of(super::PAGE_BYTES);
    let mapped_bytes = length + HUGEPAGE_BYTES;
    let base = map(mapped_bytes, MapFlags::empty())?;
    let padding = base.cast::<u8>().align_offset(HUGEPAGE_BYTES);
    // SAFETY: `padding` is under one hugepage, by which the mapping exceeds `length`.
    let start = unsafe { base.cast::<u8>().add(padding) };
    let transparent = match hugepages {
        Wish::Never => Err(Refusal::NotWanted),
        Wish::Wanted => {
            // SAFETY: the range is the mapping's own; the advice does not change its content.
            let advised = unsafe { madvise(start.cast(), length, MmapAdvise::MADV_HUGEPAGE) };
            advised.map_err(Refusal::Kernel)
        }
    };
    let pages = Pages { reserved: Err(refusal), transparent };
    Ok(Mapping { base, mapped_bytes, start, length, pages, leaked: false })
}

fn map(length: usize, extra: MapFlags) -> Result<NonNull<c_void>, Errno> {
    let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_ANONYMOUS | extra;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    unsafe { mmap_anonymous(None, length, protection, flags) }
}

/// The default hugepage of x86-64 and of arm64 with 4 KiB pages.
const HUGEPAGE_BYTES: usize = 2 << 20;
