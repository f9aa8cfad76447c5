//! What stands under a name already, and whether it is what an entry says.
use super::attributes::Attributes;
use super::digest::digest_of;
use super::found::read_from_start;
use super::metadata::{self, Policy};
use super::options::Options;
use dwcp_abi::wire::{Entry, EntryKind, Extra, extras};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use std::os::fd::{AsFd, OwnedFd};

/// Whether a regular file is there that shall stay, because it is the entry's by size and time or by content.
pub(super) fn is_there(options: &Options, parent: impl AsFd, leaf: &[u8], entry: &Entry<'_>) -> Option<Same> {
    if !options.skip_unchanged && !options.checksum && options.placed_since.is_none() {
        return None;
    }
    let stat = fstatat(&parent, leaf, AtFlags::AT_SYMLINK_NOFOLLOW).ok().filter(is_regular)?;
    // Nobody can set the time of change back, and a rename sets it.
    let placed = options.placed_since.is_some_and(|since| (stat.st_ctime, stat.st_ctime_nsec) >= since);
    if (options.skip_unchanged || placed) && metadata::is_unchanged(&stat, &entry.header) {
        return Some(Same::SizeAndTime);
    }
    let same_size = u64::try_from(stat.st_size) == Ok(entry.header.size);
    (options.checksum && same_size).then(|| with_content(parent, leaf, entry)).flatten().map(Same::Content)
}

/// In what a file is the same.
pub(super) enum Same {
    /// In size and time.
    SizeAndTime,
    /// In content; the file is open.
    Content(OwnedFd),
}

impl Same {
    /// Brings what is taken over beside the content to what the entry says; false where that is not possible.
    pub(super) fn finish(
        &self,
        (policy, attributes): (Policy, &Attributes),
        (parent, leaf): (impl AsFd, &[u8]),
        entry: &Entry<'_>,
    ) -> bool {
        let finish = |file: &OwnedFd| {
            attributes.apply(file, entry.extra, entry.name);
            policy.finish_private(file, &entry.header).is_ok()
        };
        match self {
            Self::Content(file) => finish(file),
            // Owners and attributes change without the file's time.
            Self::SizeAndTime if policy.owns() || attributes.any() => {
                open(parent, leaf).is_ok_and(|file| finish(&file))
            }
            Self::SizeAndTime => true,
        }
    }
}

fn open(parent: impl AsFd, leaf: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(parent, leaf, flags, Mode::empty())
}

/// The file of this name, if its content is the entry's.
fn with_content(parent: impl AsFd, leaf: &[u8], entry: &Entry<'_>) -> Option<OwnedFd> {
    let file = open(parent, leaf).ok()?;
    let stat = fstat(&file).ok().filter(is_regular)?;
    if u64::try_from(stat.st_size) != Ok(entry.header.size) {
        return None;
    }
    let is_equal = match (entry.header.kind, digest(entry)) {
        (EntryKind::InlineFile, _) => holds(&file, entry.content),
        (_, Some(wanted)) => digest_of(&file, entry.header.size).map(|found| found == Some(wanted)),
        (_, None) => Ok(false),
    };
    is_equal.unwrap_or(false).then_some(file)
}

fn digest(entry: &Entry<'_>) -> Option<[u8; 32]> {
    extras(entry.extra).map_while(Result::ok).find_map(|extra| match extra {
        Extra::Digest(digest) => Some(digest.digest),
        Extra::Attribute(_) | Extra::User(_) | Extra::Group(_) | Extra::Node(_) => None,
    })
}

/// Whether a file of that length has just this content.
fn holds(file: &OwnedFd, content: &[u8]) -> Result<bool, Errno> {
    let mut found = vec![0; content.len()];
    Ok(read_from_start(file, &mut found, content.len())? == content.len() && found == content)
}

pub(super) fn is_regular(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()
}
