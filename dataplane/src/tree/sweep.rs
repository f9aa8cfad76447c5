//! Deletes what the source does not have, inside the directories that a job has sent; or says what it would delete.
//!
//! Everything is reached from a directory that is open already, one component at a time and without following links, so
//! that nothing outside of it can go. Files that are not complete yet, of whatever job, names that the job leaves out,
//! and whatever lies on another file system stay, and with them the directories that hold them.
use super::beneath::{Links, open_directory};
use super::changes::Changes;
use super::directories::Directory;
use super::failure::{Failures, Problem};
use super::filters::Filters;
use super::metadata::{mode, open_up};
use super::name::is_temporary;
use super::sent::Sent;
use dwcp_abi::wire::{COMPONENTS_MAX, Change, Code};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::os::fd::{AsFd, OwnedFd};

/// Whether names go, or are only named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweeping {
    Delete,
    Rehearse,
}

/// What a sweep needs of a receiver.
pub(super) struct Sweep<'a> {
    pub(super) sent: &'a Sent,
    pub(super) filters: &'a Filters,
    pub(super) sweeping: Sweeping,
    pub(super) changes: &'a mut Changes,
    pub(super) failures: &'a mut Failures,
}

impl Sweep<'_> {
    /// Sweeps one directory that was sent; `path` is its name below the destination, empty for the destination itself.
    pub(super) fn directory(&mut self, directory: &Directory, path: &[u8]) {
        let device = fstat(directory).map(|stat| stat.st_dev);
        let swept = device.and_then(|device| {
            let mut path = path.to_vec();
            self.inside(directory, device, &mut path, 0, |sweep, path| sweep.sent.contains(path))
        });
        if let Err(errno) = swept {
            self.fail(Problem::system(errno, "look for what the source does not have", shown(path)), path);
        }
    }

    /// Removes the names in a directory that are not `kept`; whether it is empty then.
    fn inside(
        &mut self,
        directory: impl AsFd,
        device: u64,
        path: &mut Vec<u8>,
        depth: usize,
        kept: fn(&Self, &[u8]) -> bool,
    ) -> Result<bool, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(directory.as_fd(), c".", flags, Mode::empty())?;
        let (mut is_empty, length) = (true, path.len());
        let mut names = listing.iter();
        loop {
            // Read ahead of what is removed: a file system may lose its place in a directory that shrinks.
            let batch: Vec<Vec<u8>> = names
                .by_ref()
                .take(BATCH)
                .map(|entry| Ok(entry?.file_name().to_bytes().to_vec()))
                .collect::<Result<_, Errno>>()?;
            if batch.is_empty() {
                return Ok(is_empty);
            }
            for name in batch.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                let stays = is_temporary(name) || kept(self, path);
                is_empty &= !stays && self.remove(&directory, name, device, path, depth);
                path.truncate(length);
            }
        }
    }

    /// Removes a name and all inside of it; whether it is gone.
    fn remove(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        device: u64,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> bool {
        let Ok(stat) = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
            // Somebody else was first.
            return true;
        };
        let is_directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        if self.filters.exclude(path, || is_directory) {
            return false;
        }
        let removed = match is_directory {
            true => self.remove_directory(&parent, name, &stat, device, path, depth),
            false if is_another_spelling(&parent, name, &stat) => Err(Problem::new(Code::Io, path, FOLDED)),
            false => self.unlink(&parent, name, path, UnlinkatFlags::NoRemoveDir).map(|()| true),
        };
        match removed {
            Ok(is_gone) => {
                if is_gone {
                    self.changes.note(Change::Deleted, path, 0);
                }
                is_gone
            }
            Err(problem) => {
                self.fail(problem, path);
                false
            }
        }
    }

    fn remove_directory(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        stat: &FileStat,
        device: u64,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool, Problem> {
        if stat.st_dev != device {
            return Err(Problem::new(
                Code::Io,
                path,
                "another file system is mounted here: it is not deleted",
            ));
        }
        if depth >= COMPONENTS_MAX {
            return Err(Problem::new(
                Code::Io,
                path,
                "too many directories inside each other to delete them",
            ));
        }
        if is_another_spelling(&parent, name, stat) {
            return Err(Problem::new(Code::Io, path, FOLDED));
        }
        let failed = |errno, path: &[u8]| Problem::system(errno, "delete it", path);
        let directory = self.open(&parent, name).map_err(|errno| failed(errno, path))?;
        let is_empty = self.inside(&directory, device, path, depth + 1, |_, _| false);
        if !is_empty.map_err(|errno| failed(errno, path))? {
            return Ok(false);
        }
        self.unlink(parent, name, path, UnlinkatFlags::RemoveDir).map(|()| true)
    }

    fn open(&self, parent: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        match open_directory(&parent, name, Links::Refuse) {
            Err(Errno::EACCES) if self.sweeping == Sweeping::Delete => {
                fchmodat(&parent, name, mode(0o700), FchmodatFlags::NoFollowSymlink)
                    .map_err(|_| Errno::EACCES)?;
                open_directory(parent, name, Links::Refuse)
            }
            other => other,
        }
    }

    fn unlink(
        &self,
        parent: impl AsFd,
        name: &[u8],
        path: &[u8],
        flags: UnlinkatFlags,
    ) -> Result<(), Problem> {
        if self.sweeping == Sweeping::Rehearse {
            return Ok(());
        }
        match unlinkat(&parent, name, flags) {
            Err(Errno::EACCES) => open_up(&parent).and_then(|()| unlinkat(&parent, name, flags)),
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
        .map_err(|errno| Problem::system(errno, "delete it", path))
    }

    fn fail(&mut self, problem: Problem, path: &[u8]) {
        self.failures.push(problem.of(path, None));
    }
}

/// Whether the same file is found under the name with the case of its letters turned round, and is no second link: then
/// the file system does not tell them apart, and the name may be one that was sent in another spelling.
fn is_another_spelling(parent: impl AsFd, name: &[u8], stat: &FileStat) -> bool {
    let turned: Vec<u8> =
        (name.iter())
            .map(|byte| {
                if byte.is_ascii_uppercase() { byte.to_ascii_lowercase() } else { byte.to_ascii_uppercase() }
            })
            .collect();
    turned != name
        && fstatat(parent, &turned[..], AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|other| (other.st_dev, other.st_ino) == (stat.st_dev, stat.st_ino))
}

/// How a directory is called in an error about it.
fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"destination" } else { path }
}

const FOLDED: &str = "this file system does not tell capital letters from small ones: what may have been sent in another \
    spelling is not deleted";
/// Names that are read before any of them is removed.
const BATCH: usize = 1024;
