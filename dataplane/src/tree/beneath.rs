//! Opens directories one component at a time. Scanner and receiver go through here for every path that came
//! from outside.
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};

/// What a symbolic link in a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// The path is the local operator's: links count.
    Follow,
    /// The path is a peer's: a link in it is an error.
    Refuse,
}

impl Links {
    fn flag(self) -> OFlag {
        match self {
            Self::Follow => OFlag::empty(),
            Self::Refuse => OFlag::O_NOFOLLOW,
        }
    }
}

/// Opens a directory of one component for reading its names.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8], links: Links) -> Result<OwnedFd, Errno> {
    openat(parent, name, DIRECTORY.union(OFlag::O_RDONLY).union(links.flag()), Mode::empty())
}

/// Opens the directory at the end of `components` for opening what is inside; needs no right to list the ones on
/// the way.
pub(super) fn walk(from: impl AsFd, components: &[&[u8]], links: Links) -> Result<OwnedFd, Errno> {
    let flags = DIRECTORY.union(OFlag::O_PATH).union(links.flag());
    let mut directory = openat(from, c".", flags, Mode::empty())?;
    for component in components {
        directory = openat(&directory, *component, flags, Mode::empty())?;
    }
    Ok(directory)
}

/// The root directory of the local file system.
pub(super) fn slash() -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, c"/", DIRECTORY.union(OFlag::O_PATH), Mode::empty())
}

/// The components of a path as an operator or peer wrote it, without empty ones and `.`. `..` is kept where links
/// are followed and `None` is the answer where they are not, as for a NUL.
pub(super) fn components(path: &[u8], links: Links) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if links == Links::Refuse => return None,
            other if other.contains(&0) => return None,
            other => found.push(other),
        }
    }
    Some(found)
}

/// Whether a path as written can only mean a directory.
pub(super) fn names_directory(path: &[u8]) -> bool {
    let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(last, b"" | b"." | b"..")
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);
