//! Modes, owners and times: from a file to an entry's header, and from a header to a file.
use dwcp_abi::wire::{EntryHeader, EntryKind};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use std::os::fd::{AsFd, OwnedFd};

/// What a receiver takes over of a sender's metadata.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Mode bits that are taken over.
    mode_mask: u32,
    /// Whether the owner is.
    owner: bool,
    /// Whether the group is.
    group: bool,
    /// Bits that this process's umask takes from a new file.
    umask: u32,
}

impl Policy {
    /// Reads this process's umask once: a file that is created with the wanted mode needs no second call.
    pub(super) fn new(special_bits: bool, owner: bool, group: bool) -> Self {
        Self { mode_mask: if special_bits { 0o7777 } else { 0o1777 }, owner, group, umask: umask() }
    }

    /// The mode that a file with this header gets.
    fn wanted(self, header: &EntryHeader) -> u32 {
        header.mode & self.mode_mask
    }

    /// The mode to create a file with.
    pub(super) fn creation_mode(self, header: &EntryHeader) -> Mode {
        mode(self.wanted(header) & 0o777)
    }

    /// The mode to create a directory with: its owner can fill it.
    pub(super) fn directory_mode(self, header: &EntryHeader) -> Mode {
        mode(self.wanted(header) & 0o777 | 0o700)
    }

    /// Brings a file that was created with [`Policy::creation_mode`] to what the header says.
    pub(super) fn finish_created(self, file: &OwnedFd, header: &EntryHeader) -> Result<(), Errno> {
        let wanted = self.wanted(header);
        self.finish(file, header, wanted & 0o777 & !self.umask, wanted)
    }

    /// Brings a file that has another mode to what the header says.
    pub(super) fn finish_private(self, file: &OwnedFd, header: &EntryHeader) -> Result<(), Errno> {
        self.finish(file, header, u32::MAX, self.wanted(header))
    }

    /// Brings a directory with these current properties to what the header says. A set-group-ID bit that it
    /// inherited stays.
    pub(super) fn finish_directory(
        self,
        directory: &OwnedFd,
        header: &EntryHeader,
        now: &FileStat,
    ) -> Result<(), Errno> {
        let current = now.st_mode & 0o7777;
        self.finish(directory, header, current, self.wanted(header) | current & 0o2000)
    }

    fn finish(self, file: &OwnedFd, header: &EntryHeader, current: u32, wanted: u32) -> Result<(), Errno> {
        let mut wanted = wanted;
        let mut current = current;
        if self.owner || self.group {
            // Not permitted: it stays ours, and must then not run with our rights.
            if !self.own(header, |owner, group| fchown(file, owner, group))? {
                wanted &= 0o1777;
            }
            current = u32::MAX;
        }
        if current != wanted {
            fchmod(file, mode(wanted))?;
        }
        futimens(file, &TimeSpec::UTIME_OMIT, &mtime(header))
    }
}

impl Policy {
    /// Whether owner or group are taken over.
    pub(super) fn owns(self) -> bool {
        self.owner || self.group
    }

    /// Gives what has a name, and is no regular file or directory, its metadata. The mode of a link has no meaning.
    pub(super) fn finish_named(
        self,
        directory: impl AsFd,
        name: &[u8],
        header: &EntryHeader,
    ) -> Result<(), Errno> {
        if self.owner || self.group {
            self.own(header, |owner, group| {
                fchownat(&directory, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)
            })?;
        }
        if header.kind != EntryKind::Symlink {
            let wanted = mode(self.wanted(header) & 0o1777);
            fchmodat(&directory, name, wanted, FchmodatFlags::NoFollowSymlink)?;
        }
        let omit = TimeSpec::UTIME_OMIT;
        utimensat(&directory, name, &omit, &mtime(header), UtimensatFlags::NoFollowSymlink)
    }

    /// Gives a file away as far as that is wanted; whether all of it was permitted.
    fn own(
        self,
        header: &EntryHeader,
        change: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<bool, Errno> {
        let owner = self.owner.then(|| Uid::from_raw(header.uid));
        let group = self.group.then(|| Gid::from_raw(header.gid));
        match change(owner, group) {
            Ok(()) => Ok(true),
            Err(Errno::EPERM | Errno::EINVAL) if owner.is_some() && group.is_some() => {
                // Groups that this user is in may be given without privilege.
                match change(None, group) {
                    Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => Ok(false),
                    Err(errno) => Err(errno),
                }
            }
            Err(Errno::EPERM | Errno::EINVAL) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// The header of an entry of this kind with a file's metadata.
pub(super) fn header(kind: EntryKind, stat: &FileStat) -> EntryHeader {
    EntryHeader {
        kind,
        flags: 0,
        name_length: 0,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999),
        mtime_s: stat.st_mtime,
        size: 0,
        object: 0,
    }
}

/// The header of an entry that nothing is known of.
pub(super) const fn no_metadata(kind: EntryKind) -> EntryHeader {
    EntryHeader {
        kind,
        flags: 0,
        name_length: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime_ns: 0,
        mtime_s: 0,
        size: 0,
        object: 0,
    }
}

/// The time of the last change that a header tells.
pub(super) fn mtime(header: &EntryHeader) -> TimeSpec {
    TimeSpec::new(header.mtime_s, i64::from(header.mtime_ns))
}

/// Mode bits as the kernel takes them.
pub(super) fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

/// Whether a file that exists has the size and time of the header.
pub(super) fn is_unchanged(stat: &FileStat, header: &EntryHeader) -> bool {
    u64::try_from(stat.st_size) == Ok(header.size)
        && stat.st_mtime == header.mtime_s
        && stat.st_mtime_nsec == i64::from(header.mtime_ns)
}

/// Gives the owner of a directory all rights to it. For directories that a former, interrupted run left with
/// their final mode.
pub(super) fn open_up(directory: impl AsFd) -> Result<(), Errno> {
    let stat = nix::sys::stat::fstat(directory.as_fd())?;
    if stat.st_mode & 0o700 == 0o700 {
        return Err(Errno::EACCES);
    }
    fchmod(directory, mode(stat.st_mode & 0o7777 | 0o700))
}

/// Whether this process may give files away (CAP_CHOWN, the first of capabilities(7)). Where the kernel does not say, it
/// may: the attempt shows.
pub(super) fn may_chown() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).is_none_or(|held| held & 1 == 1)
}

/// The umask, read without changing it; all bits where it cannot be read, which costs a call per file.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o777)
}
