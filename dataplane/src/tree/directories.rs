//! Directories that a receiver has open: found by path, the least recently used closed first.
use super::beneath::{Links, open_directory};
use super::failure::Problem;
use super::metadata::{mode, open_up};
use super::volumes::{VolumeIndex, Volumes};
use dwcp_abi::wire::Code;
use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, mkdirat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// An open directory of the destination.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) descriptor: OwnedFd,
    /// The file system that it lies on.
    pub(super) volume: VolumeIndex,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Making {
    /// Make it with this mode, and those on the way to it for this user alone.
    Create(Mode),
    /// Report it.
    Refuse,
}

/// The open directories below one root.
#[derive(Debug)]
pub(super) struct Directories {
    slots: Vec<Slot>,
    slots_max: usize,
    clock: u64,
    pub(super) volumes: Volumes,
}

#[derive(Debug)]
struct Slot {
    path: Vec<u8>,
    directory: Arc<Directory>,
    used: u64,
}

impl Directories {
    /// Keeps at most `slots_max` directories open.
    pub(super) fn new(slots_max: usize) -> Self {
        let slots_max = slots_max.max(1);
        Self { slots: Vec::with_capacity(slots_max), slots_max, clock: 0, volumes: Volumes::default() }
    }

    /// Takes an opened directory in, with the file system that it lies on.
    pub(super) fn adopt(&mut self, descriptor: OwnedFd) -> Result<Arc<Directory>, Errno> {
        let device = fstat(&descriptor)?.st_dev;
        let volume = self.volumes.index(device, &descriptor)?;
        Ok(Arc::new(Directory { descriptor, volume }))
    }

    /// The directory at `path` below `root`; the empty path is the root.
    pub(super) fn open(
        &mut self,
        root: &Arc<Directory>,
        path: &[u8],
        making: Making,
    ) -> Result<Arc<Directory>, Problem> {
        if path.is_empty() {
            return Ok(Arc::clone(root));
        }
        let (known, mut directory) = self.nearest(root, path);
        let mut end = known;
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
            let making = match making {
                Making::Create(_) if end < path.len() => Making::Create(mode(0o700)),
                last => last,
            };
            let opened = open_child(&directory, &path[start..end], making)
                .and_then(|descriptor| self.adopt(descriptor))
                .map_err(|errno| problem(errno, &path[..end], directory.volume))?;
            directory = opened;
            self.remember(&path[..end], &directory);
        }
        Ok(directory)
    }

    /// Length of the longest part of `path` that is open, and that directory.
    fn nearest(&mut self, root: &Arc<Directory>, path: &[u8]) -> (usize, Arc<Directory>) {
        self.clock += 1;
        let mut length = path.len();
        loop {
            let part = &path[..length];
            if let Some(slot) = self.slots.iter_mut().find(|slot| slot.path == part) {
                slot.used = self.clock;
                return (length, Arc::clone(&slot.directory));
            }
            match part.iter().rposition(|byte| *byte == b'/') {
                Some(at) => length = at,
                None => return (0, Arc::clone(root)),
            }
        }
    }

    fn remember(&mut self, path: &[u8], directory: &Arc<Directory>) {
        let (directory, used) = (Arc::clone(directory), self.clock);
        if self.slots.len() < self.slots_max {
            self.slots.push(Slot { path: path.to_vec(), directory, used });
            return;
        }
        let Some(oldest) = self.slots.iter_mut().min_by_key(|slot| slot.used) else { return };
        oldest.path.clear();
        oldest.path.extend_from_slice(path);
        oldest.directory = directory;
        oldest.used = used;
    }
}

fn open_child(parent: &Directory, name: &[u8], making: Making) -> Result<OwnedFd, Errno> {
    let open = || open_directory(parent, name, Links::Refuse);
    match (open(), making) {
        (Err(Errno::ENOENT), Making::Create(mode)) => {
            match mkdirat(parent, name, mode) {
                Err(Errno::EACCES) => {
                    open_up(parent)?;
                    mkdirat(parent, name, mode)?;
                }
                // Another receiver was first.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            open()
        }
        (Err(Errno::EACCES), Making::Create(_)) => {
            // Perhaps a directory of ours from a former run, with its final mode.
            let changed = fchmodat(parent, name, mode(0o700), FchmodatFlags::NoFollowSymlink);
            changed.map_err(|_| Errno::EACCES)?;
            open()
        }
        (opened, Making::Create(_) | Making::Refuse) => opened,
    }
}

fn problem(errno: Errno, path: &[u8], volume: VolumeIndex) -> Problem {
    match errno {
        Errno::ENOTDIR | Errno::ELOOP => {
            let text =
                "a file or link is in the way of this directory; remove it or choose another destination";
            Problem::new(Code::Io, path, text)
        }
        errno => Problem::storage(errno, "open or make the directory", path, volume),
    }
}
