//! The map in the tail of a partial file (`dwcp_abi::disk`): which chunks are there, for the next attempt after the
//! end of this process or of the system. A receiver makes it, workers mark what they have written, a thread of its own
//! flushes ([`super::Flusher`]). What is found of a former life is believed as far as the file says so itself; the
//! object's digest decides in the end.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dwcp_abi::disk::{CHUNK_WRITTEN, PARTIAL_HEADER_BYTES, PartialHeader, PartialLayout, written_runs};
use dwcp_abi::wire::{CHUNK_BYTES, EntryHeader};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{fdatasync, ftruncate, geteuid};

use super::metadata;

/// A partial file with its map.
#[derive(Debug)]
pub struct Partial {
    file: Arc<OwnedFd>,
    layout: PartialLayout,
    /// Writes under way, and [`CLOSED`].
    writers: AtomicU32,
    /// First chunk and one past the last that were marked since the last flush, in the upper and the lower half.
    dirty: AtomicU64,
    /// What a flush came to; 0 = well. The kernel tells of a failure once, so that it must not get lost here.
    failure: AtomicI32,
    /// Something is held, or was marked.
    used: AtomicBool,
    flushing: Mutex<Flushing>,
    /// Who waits for the last write holds this, and never longer: a worker must not wait for a flush.
    closing: Mutex<()>,
    quiet: Condvar,
}

#[derive(Debug, Default)]
struct Flushing {
    /// Marks of `synced` that are not durable themselves.
    unsettled: bool,
    /// The tail is cut off, or is about to be.
    over: bool,
}

/// A partial file that was found, and the ranges of bytes that it holds.
pub(super) struct Found {
    pub(super) partial: Partial,
    pub(super) held: Vec<(u64, u64)>,
}

/// Why a partial file that was found is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Useless {
    /// It is of a source that has another size or time now.
    Changed,
    /// It is not ours, damaged, or of another version of this program.
    Unreadable,
}

/// No write may start any more.
const CLOSED: u32 = 1 << 31;
/// Nothing marked: a first chunk behind the last.
const CLEAN: u64 = (u32::MAX as u64) << 32;
/// Writes that are under way end; a worker that is stuck for so long ends no more.
const QUIET_MAX: Duration = Duration::from_secs(60);
const CHUNK: u64 = CHUNK_BYTES as u64;

impl Partial {
    /// Gives a new file its size and an empty map. None where its object has none.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn create(
        file: &Arc<OwnedFd>,
        header: &EntryHeader,
        path: [u8; 32],
        boot: [u8; 16],
    ) -> Result<Option<Self>, Errno> {
        let Some(layout) = PartialLayout::of(header.size) else { return Ok(None) };
        let length = i64::try_from(layout.end).map_err(|_| Errno::EFBIG)?;
        ftruncate(file, length)?;
        write_all(file, &expected(header, path, boot).to_bytes(), layout.header_at)?;
        Ok(Some(Self::new(Arc::clone(file), layout)))
    }

    /// Looks at a file that a former attempt has left. `boot` is this one.
    ///
    /// # Errors
    /// That, and why, it is of no use.
    pub(super) fn find(
        file: OwnedFd,
        header: &EntryHeader,
        path: [u8; 32],
        boot: [u8; 16],
    ) -> Result<Found, Useless> {
        let layout = PartialLayout::of(header.size).ok_or(Useless::Unreadable)?;
        let stat = fstat(&file).map_err(|_| Useless::Unreadable)?;
        let is_file = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        if !is_file || stat.st_nlink != 1 || stat.st_uid != geteuid().as_raw() {
            return Err(Useless::Unreadable);
        }
        let expected = expected(header, path, boot);
        let map = if metadata::is_unchanged(&stat, header) {
            // It was complete and about to be named.
            vec![CHUNK_WRITTEN; layout.chunks as usize]
        } else if u64::try_from(stat.st_size) == Ok(layout.end) {
            known_chunks(&file, &layout, &expected)?
        } else {
            return Err(Useless::Unreadable);
        };
        renew(&file, &layout, &expected, &map).map_err(|_| Useless::Unreadable)?;
        let held =
            written_runs(&map).map(|(first, end)| (first * CHUNK, (end * CHUNK).min(header.size))).collect();
        let partial = Self { used: AtomicBool::new(true), ..Self::new(Arc::new(file), layout) };
        Ok(Found { partial, held })
    }

    fn new(file: Arc<OwnedFd>, layout: PartialLayout) -> Self {
        Self {
            file,
            layout,
            writers: AtomicU32::new(0),
            dirty: AtomicU64::new(CLEAN),
            failure: AtomicI32::new(0),
            used: AtomicBool::new(false),
            flushing: Mutex::new(Flushing::default()),
            closing: Mutex::new(()),
            quiet: Condvar::new(),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Whether there is anything in it that another attempt could use.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// A write starts, if one still may. [`Partial::end`] or [`Partial::mark`] ends it.
    #[must_use]
    pub fn begin(&self) -> bool {
        // Acquire and release: who sees CLOSED keeps away from the file; who closes sees what ended before.
        if self.writers.fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            return true;
        }
        self.end(1);
        false
    }

    /// So many writes end.
    pub fn end(&self, writes: u32) {
        let before = self.writers.fetch_sub(writes, Ordering::AcqRel);
        if before == CLOSED | writes {
            // The one who closes looks and waits under this lock.
            drop(self.closing.lock().unwrap_or_else(PoisonError::into_inner));
            self.quiet.notify_all();
        }
    }

    /// So many chunks from this one on are written, and their writes end. A mark that cannot be made costs only that
    /// they are sent again.
    pub fn mark(&self, first: u32, count: u32) {
        let ones = [CHUNK_WRITTEN; MARKS_MAX as usize];
        let mut at = first;
        while at < first + count {
            let now = (first + count - at).min(MARKS_MAX);
            if let Err(errno) =
                write_all(&self.file, &ones[..now as usize], self.layout.written_at + u64::from(at))
            {
                tracing::debug!(%errno, "a chunk that was written cannot be noted");
            }
            at += now;
        }
        self.used.store(true, Ordering::Relaxed);
        let widen = |dirty: u64| {
            let (known, end) = ((dirty >> 32) as u32, dirty as u32);
            Some(u64::from(known.min(first)) << 32 | u64::from(end.max(first + count)))
        };
        // Release, for the flush that acquires: it finds the marks, and flushes what they stand for.
        let widened = self.dirty.fetch_update(Ordering::AcqRel, Ordering::Relaxed, widen);
        debug_assert!(widened.is_ok(), "it is widened whatever it was");
        self.end(count);
    }

    /// Makes what is marked durable, and notes that it is.
    pub fn flush(&self) {
        let mut flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = self.dirty.swap(CLEAN, Ordering::AcqRel);
        let (first, end) = (dirty >> 32, dirty & u64::from(u32::MAX));
        if flushing.over || first >= end && !flushing.unsettled {
            return;
        }
        flushing.unsettled = false;
        let mut map = vec![0; end.saturating_sub(first) as usize];
        let result = read_all(&self.file, &mut map, self.layout.written_at + first)
            .and_then(|()| fdatasync(&self.file))
            .and_then(|()| write_all(&self.file, &map, self.layout.synced_at + first));
        match result {
            Ok(()) => flushing.unsettled = !map.is_empty(),
            Err(errno) => self.failure.store(errno as i32, Ordering::Relaxed),
        }
    }

    /// Waits until no write is under way, and lets none start. False when one does not end.
    pub(super) fn close(&self) -> bool {
        self.writers.fetch_or(CLOSED, Ordering::AcqRel);
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |(): &mut ()| self.writers.load(Ordering::Acquire) & !CLOSED != 0;
        let waited = self.quiet.wait_timeout_while(closing, QUIET_MAX, busy);
        let (closing, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(closing);
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        !timeout.timed_out()
    }

    /// Cuts the map off: what is left is the object.
    ///
    /// # Errors
    /// What the system says, also at a flush before this.
    pub(super) fn cut(&self, size: u64) -> Result<(), Errno> {
        if !self.close() {
            return Err(Errno::EBUSY);
        }
        match self.failure.load(Ordering::Relaxed) {
            0 => ftruncate(&self.file, i64::try_from(size).map_err(|_| Errno::EFBIG)?),
            errno => Err(Errno::from_raw(errno)),
        }
    }
}

/// Marks of one write.
const MARKS_MAX: u32 = 64;

fn expected(header: &EntryHeader, path: [u8; 32], boot: [u8; 16]) -> PartialHeader {
    let EntryHeader { size, mtime_s, mtime_ns, .. } = *header;
    PartialHeader { boot, path, size, mtime_s, mtime_ns }
}

/// The chunks that a file's own map may be believed about.
fn known_chunks(
    file: &OwnedFd,
    layout: &PartialLayout,
    expected: &PartialHeader,
) -> Result<Vec<u8>, Useless> {
    let mut bytes = [0; PARTIAL_HEADER_BYTES];
    read_all(file, &mut bytes, layout.header_at).map_err(|_| Useless::Unreadable)?;
    let found = PartialHeader::from_bytes(&bytes).map_err(|_| Useless::Unreadable)?;
    if found.path != expected.path {
        return Err(Useless::Unreadable);
    }
    if (PartialHeader { boot: expected.boot, ..found }) != *expected {
        return Err(Useless::Changed);
    }
    let same_boot = found.boot == expected.boot && found.boot != [0; 16];
    let at = if same_boot { layout.written_at } else { layout.synced_at };
    let mut map = vec![0; layout.chunks as usize];
    read_all(file, &mut map, at).map_err(|_| Useless::Unreadable)?;
    Ok(map)
}

/// Brings the map to what is believed, and makes it this boot's. In this order: a process that ends in between leaves
/// a map of the former boot, of which only what was durable counts.
fn renew(file: &OwnedFd, layout: &PartialLayout, header: &PartialHeader, map: &[u8]) -> Result<(), Errno> {
    ftruncate(file, i64::try_from(layout.end).map_err(|_| Errno::EFBIG)?)?;
    write_all(file, map, layout.written_at)?;
    write_all(file, &header.to_bytes(), layout.header_at)
}

/// The system's boot; all zero where the kernel does not say.
pub(super) fn boot() -> [u8; 16] {
    static BOOT: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits = text.trim().replace('-', "");
        u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
    })
}

fn write_all(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(&file, bytes, at as i64) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => (bytes, at) = (&bytes[count..], at + count as u64),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn read_all(file: impl AsFd, mut bytes: &mut [u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pread(&file, bytes, at as i64) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => (bytes, at) = (&mut bytes[count..], at + count as u64),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3 * CHUNK + 5;

    fn entry(mtime_s: i64) -> EntryHeader {
        EntryHeader { size: SIZE, mtime_s, ..metadata::no_metadata(dwcp_abi::wire::EntryKind::Object) }
    }

    fn file() -> (tempfile::NamedTempFile, Arc<OwnedFd>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let handle = Arc::new(OwnedFd::from(file.reopen().unwrap()));
        (file, handle)
    }

    fn find(file: &tempfile::NamedTempFile, boot: u8) -> Vec<(u64, u64)> {
        let file = file.reopen().unwrap().into();
        Partial::find(file, &entry(7), [1; 32], [boot; 16])
            .map_err(|useless| format!("{useless:?}"))
            .unwrap()
            .held
    }

    fn write(partial: &Partial, chunk: u32) {
        assert!(partial.begin());
        partial.mark(chunk, 1);
    }

    #[test]
    fn a_kill_keeps_what_was_marked_and_a_loss_of_power_what_was_flushed_before() {
        let (file, handle) = file();
        let partial = Partial::create(&handle, &entry(7), [1; 32], [1; 16]).unwrap().unwrap();
        write(&partial, 0);
        partial.flush();
        write(&partial, 2);
        assert_eq!(find(&file, 1), [(0, CHUNK), (2 * CHUNK, 3 * CHUNK)]);
        assert_eq!(find(&file, 2), [(0, CHUNK)]);
        // It is a file of boot 2 now, and what boot 1 had marked does not come back.
        assert_eq!(find(&file, 2), [(0, CHUNK)]);
        // A kernel that does not tell its boots apart has but the flushed ones.
        assert_eq!(find(&file, 0), [(0, CHUNK)]);
        write(&partial, 3);
        partial.flush();
        assert_eq!(find(&file, 0), [(0, CHUNK), (3 * CHUNK, SIZE)]);
    }

    #[test]
    fn a_file_of_another_path_or_time_is_of_no_use() {
        let (file, handle) = file();
        drop(Partial::create(&handle, &entry(7), [1; 32], [1; 16]).unwrap());
        let find = |mtime, path| {
            Partial::find(file.reopen().unwrap().into(), &entry(mtime), [path; 32], [1; 16]).map(|_| ()).err()
        };
        assert_eq!(find(8, 1), Some(Useless::Changed));
        assert_eq!(find(7, 2), Some(Useless::Unreadable));
        assert_eq!(find(7, 1), None);
    }

    #[test]
    fn who_closes_waits_for_writes_and_lets_none_start() {
        let (_file, handle) = file();
        let partial = Partial::create(&handle, &entry(7), [1; 32], [1; 16]).unwrap().unwrap();
        assert!(partial.begin());
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| partial.close());
            while partial.begin() {
                partial.end(1);
                std::thread::yield_now();
            }
            assert!(!closing.is_finished());
            partial.mark(1, 1);
            assert!(closing.join().unwrap());
        });
        assert!(!partial.begin());
        partial.flush();
        partial.cut(SIZE).unwrap();
        assert_eq!(fstat(&handle).unwrap().st_size as u64, SIZE);
    }
}
