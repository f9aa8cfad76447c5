//! Regular files at the sender: opened so that nothing can hang or be followed, read whole into a pack or handed
//! out as objects.
use super::metadata;
use dwcp_abi::wire::{EntryHeader, EntryKind, PackWriter};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::uio::pread;
use std::os::fd::{AsFd, OwnedFd};

/// What must stay the same while a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: i64,
    /// Seconds and nanoseconds of the last change of the content.
    pub mtime: (i64, i64),
    /// Seconds and nanoseconds of the last change of anything; nobody can set it back.
    pub ctime: (i64, i64),
}

impl Fingerprint {
    /// Of an open file.
    ///
    /// # Errors
    /// Nothing can be told of it.
    pub fn of_file(file: impl AsFd) -> std::io::Result<Self> {
        Ok(Self::of(&fstat(file)?))
    }

    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// A file that is too large for a pack, open for reading.
#[derive(Debug)]
pub struct FoundObject {
    /// Its number within the job, from 1.
    pub object: u64,
    /// The file.
    pub file: OwnedFd,
    /// Bytes.
    pub size: u64,
    /// For [`verify_unchanged`] when all of it was read.
    pub fingerprint: Fingerprint,
}

/// Whether a file still is what it was when the scanner found it. A file of which not even that can be told has
/// changed.
#[must_use]
pub fn verify_unchanged(file: &OwnedFd, fingerprint: &Fingerprint) -> bool {
    fstat(file).is_ok_and(|stat| Fingerprint::of(&stat) == *fingerprint)
}

/// Opens a name for reading: does not follow a link, does not wait for the other end of a fifo, leaves the time of
/// access alone where `quiet` still says that this is allowed.
pub(super) fn open(parent: impl AsFd, name: &[u8], quiet: &mut Quiet) -> Result<OwnedFd, Errno> {
    if *quiet == Quiet::Allowed {
        match openat(&parent, name, FLAGS.union(OFlag::O_NOATIME), Mode::empty()) {
            // Only for the file's owner (open(2)); with the first foreign file the attempt is not worth a call.
            Err(Errno::EPERM) => *quiet = Quiet::Refused,
            other => return other,
        }
    }
    openat(parent, name, FLAGS, Mode::empty())
}

/// Whether `O_NOATIME` is worth trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    Allowed,
    Refused,
}

/// What became of a small file.
pub(super) enum Read {
    /// It is in the pack: its bytes.
    Packed(u64),
    /// It does not fit into what is left of the pack.
    NoRoom,
    /// It is too large for any pack.
    Large(FileStat),
    /// It was written to while it was read, twice.
    Changed,
}

/// Reads a whole file to where its content belongs in the pack and appends the entry. `settle` is called between
/// looking at the file and reading it.
pub(super) fn read_whole(
    pack: &mut PackWriter<'_>,
    file: &OwnedFd,
    mut before: FileStat,
    (name, extra, flags): (&[u8], &[u8], u8),
    (bytes_max, settle): (u64, &dyn Fn()),
) -> Result<Read, Errno> {
    for _ in 0..ATTEMPTS {
        let size = u64::try_from(before.st_size).unwrap_or(u64::MAX);
        if size > bytes_max {
            return Ok(Read::Large(before));
        }
        let empty = pack.entries() == 0;
        // One byte more than the file has shows that it grew.
        let room = pack.content_room(name, extra).and_then(|room| room.get_mut(..size as usize + 1));
        let Some(room) = room else {
            return Ok(if empty { Read::Large(before) } else { Read::NoRoom });
        };
        settle();
        let length = read_from_start(file, room, size as usize)?;
        let after = fstat(file)?;
        if length as u64 == size && Fingerprint::of(&before) == Fingerprint::of(&after) {
            let header = EntryHeader { flags, ..metadata::header(EntryKind::InlineFile, &before) };
            let appended = pack.append_placed(header, (name, extra), length);
            return appended.map(|()| Read::Packed(size)).map_err(|_| Errno::EINVAL);
        }
        before = after;
    }
    Ok(Read::Changed)
}

/// Reads until `wanted` bytes are there, which takes one call for a file of that size, or the file ends. May
/// return up to `room.len()`.
pub(super) fn read_from_start(file: &OwnedFd, room: &mut [u8], wanted: usize) -> Result<usize, Errno> {
    let mut length = 0;
    loop {
        match pread(file, &mut room[length..], length as i64) {
            Ok(0) => return Ok(length),
            Ok(more) => length += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if length >= wanted {
            return Ok(length);
        }
    }
}

const ATTEMPTS: usize = 2;
const FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
