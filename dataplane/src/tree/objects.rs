//! Large files at the receiver: open under temporary names until all their bytes have come.
use super::directories::Directory;
use super::failure::Problem;
use super::metadata::Policy;
use super::name::{NameSpace, TemporaryNames};
use super::staged::remove;
use super::volumes::Volumes;
use dwcp_abi::wire::{Code, EntryHeader};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, ftruncate, unlinkat};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An object that a pack announced.
#[derive(Debug)]
pub struct OpenedObject {
    /// Its number within the job.
    pub object: u64,
    /// Bytes.
    pub size: u64,
    /// Whether its bytes are wanted.
    pub opening: Opening,
}

/// What the receiver has of an object.
#[derive(Debug)]
pub enum Opening {
    /// A file of the object's size, all hole, to be written at any offset in any order; then
    /// [`super::Receiver::commit`].
    Write(OwnedFd),
    /// The destination has a file of that size and time already: send nothing.
    Unchanged,
    /// It was committed before; the pack came a second time.
    Committed,
}

/// The objects of one job.
#[derive(Debug, Default)]
pub(super) struct Objects {
    open: HashMap<u64, OpenObject>,
    settled: Settled,
}

/// An object that is being written.
#[derive(Debug)]
pub(super) struct OpenObject {
    directory: Arc<Directory>,
    file: OwnedFd,
    header: EntryHeader,
    pub(super) path: Vec<u8>,
    leaf: Vec<u8>,
}

impl Objects {
    /// Number of open objects.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// What is known of an object that is announced, perhaps again.
    pub(super) fn known(&self, header: &EntryHeader, path: &[u8]) -> Result<Option<Opening>, Problem> {
        if self.settled.contains(header.object) {
            return Ok(Some(Opening::Committed));
        }
        let Some(open) = self.open.get(&header.object) else { return Ok(None) };
        if open.path != path || open.header.size != header.size {
            return Err(Problem::new(Code::Protocol, path, "another file has the same object number"));
        }
        match open.file.try_clone() {
            Ok(file) => Ok(Some(Opening::Write(file))),
            Err(_) => Err(Problem::system(Errno::EMFILE, "open it again", path)),
        }
    }

    /// Makes the temporary file of an object.
    pub(super) fn create(
        &mut self,
        names: &TemporaryNames,
        directory: Arc<Directory>,
        header: EntryHeader,
        (path, leaf): (&[u8], &[u8]),
    ) -> Result<Opening, Errno> {
        let mut space = NameSpace::new();
        let temporary = names.object(header.object, &mut space);
        let file = create_exclusive(&directory, temporary, Mode::S_IRUSR | Mode::S_IWUSR, Access::ReadWrite)?;
        let size = i64::try_from(header.size).map_err(|_| Errno::EFBIG)?;
        let copy = ftruncate(&file, size).and_then(|()| file.try_clone().map_err(|_| Errno::EMFILE));
        let copy = copy.inspect_err(|_| remove(&directory, temporary))?;
        let (path, leaf) = (path.to_vec(), leaf.to_vec());
        self.open.insert(header.object, OpenObject { directory, file, header, path, leaf });
        Ok(Opening::Write(copy))
    }

    /// The path of an open object.
    pub(super) fn path(&self, object: u64) -> Option<&[u8]> {
        self.open.get(&object).map(|open| open.path.as_slice())
    }

    /// Takes an open object out.
    pub(super) fn take(&mut self, object: u64) -> Option<OpenObject> {
        self.open.remove(&object)
    }

    /// Remembers that nothing of an object is wanted any more.
    pub(super) fn settle(&mut self, object: u64) {
        self.settled.insert(object);
    }

    /// Whether an object was committed or found unchanged.
    pub(super) fn is_settled(&self, object: u64) -> bool {
        self.settled.contains(object)
    }

    /// Removes all that is open.
    pub(super) fn discard_all(&mut self, names: &TemporaryNames) {
        for (object, open) in self.open.drain() {
            open.discard(object, names);
        }
    }
}

impl OpenObject {
    /// Gives the file its metadata, makes it durable and puts it in place; its size.
    pub(super) fn commit(
        &self,
        object: u64,
        names: &TemporaryNames,
        policy: Policy,
        volumes: &mut Volumes,
    ) -> Result<u64, Problem> {
        let mut space = NameSpace::new();
        let temporary = names.object(object, &mut space);
        let volume = self.directory.volume;
        let failed = |action: &'static str| move |errno| Problem::storage(errno, action, &self.path, volume);
        policy.finish_private(&self.file, &self.header).map_err(failed("set its mode and time"))?;
        if volumes.keeps(volume) {
            fsync(&self.file).map_err(failed("flush it to disk"))?;
        }
        let directory = &*self.directory;
        renameat(directory, temporary, directory, self.leaf.as_slice()).map_err(failed("put it in place"))?;
        volumes.mark(volume);
        Ok(self.header.size)
    }

    /// Removes the temporary file.
    pub(super) fn discard(&self, object: u64, names: &TemporaryNames) {
        remove(&self.directory, names.object(object, &mut NameSpace::new()));
    }
}

/// How a new file will be used.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Write,
    ReadWrite,
}

/// Makes a file that nobody else has open; a leftover of the same name from a run that was killed goes first.
pub(super) fn create_exclusive(
    directory: &Directory,
    name: &[u8],
    mode: Mode,
    access: Access,
) -> Result<OwnedFd, Errno> {
    let access = match access {
        Access::Write => OFlag::O_WRONLY,
        Access::ReadWrite => OFlag::O_RDWR,
    };
    let flags = access | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(directory, name, flags, mode) {
        Err(Errno::EEXIST) => unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?,
        Err(Errno::EACCES) => super::metadata::open_up(directory)?,
        other => return other,
    }
    openat(directory, name, flags, mode)
}

/// A set of object numbers as ranges, from first to one past the last.
#[derive(Debug, Default)]
struct Settled {
    ranges: BTreeMap<u64, u64>,
}

impl Settled {
    fn contains(&self, object: u64) -> bool {
        self.ranges.range(..=object).next_back().is_some_and(|(_, end)| object < *end)
    }

    fn insert(&mut self, object: u64) {
        if self.contains(object) {
            return;
        }
        let mut start = object;
        if let Some((before, end)) = self.ranges.range(..object).next_back()
            && *end == object
        {
            start = *before;
        }
        let end = object.saturating_add(1);
        let end = self.ranges.remove(&end).unwrap_or(end);
        self.ranges.insert(start, end);
        if self.ranges.len() > RANGES_MAX {
            self.join_lowest();
        }
    }

    /// Gives up the lowest gap: an honest sender settles objects about in their order.
    fn join_lowest(&mut self) {
        let Some((lowest, _)) = self.ranges.pop_first() else { return };
        let Some((_, end)) = self.ranges.pop_first() else { return };
        self.ranges.insert(lowest, end);
    }
}

const RANGES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_numbers_join_to_ranges() {
        let mut settled = Settled::default();
        for object in [5, 3, 4, 9, 1, 3, u64::MAX] {
            settled.insert(object);
        }
        assert_eq!(settled.ranges, BTreeMap::from([(1, 2), (3, 6), (9, 10), (u64::MAX, u64::MAX)]));
        assert!(settled.contains(3) && settled.contains(5) && !settled.contains(6) && !settled.contains(2));
    }
}
