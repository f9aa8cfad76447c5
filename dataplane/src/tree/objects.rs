//! Large files at the receiver: open under temporary names until all their bytes have come.
use super::attributes::Attributes;
use super::directories::Directory;
use super::failure::Problem;
use super::leftovers::Leftovers;
use super::metadata::Policy;
use super::name::{NameSpace, Shown, TemporaryNames};
use super::partial::{self, Found, Partial, Useless};
use super::staged::remove;
use super::volumes::Volumes;
use dwcp_abi::wire::{Code, EntryHeader};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, fsync, ftruncate, unlinkat};
use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// A partial file of the object, to be written at any offset in any order; then [`super::Receiver::commit`].
    Write(Partly),
    /// The destination has a file of that size and time already: send nothing.
    Unchanged,
    /// It was committed before; the pack came a second time.
    Committed,
}

/// A partial file that is open.
#[derive(Debug, Clone)]
pub struct Partly {
    /// All hole, but for what it holds.
    pub file: Arc<OwnedFd>,
    /// What it holds of a former attempt: ranges of whole chunks, in order.
    pub held: Vec<(u64, u64)>,
    /// Where to note what is written; none where nothing of it is of use to another attempt.
    pub partial: Option<Arc<Partial>>,
    /// Whether its file system keeps anything over a loss of power.
    pub keeps: bool,
    /// The regular file that it will replace, where that is of interest.
    pub former: Option<Arc<OwnedFd>>,
}

/// The objects of one job.
#[derive(Debug, Default)]
pub(super) struct Objects {
    open: HashMap<u64, OpenObject>,
    /// Keys of temporary names that are in use: two objects of a job may have the same path.
    keys: HashSet<u128>,
    leftovers: Leftovers,
    settled: Settled,
}

/// An object that is being written.
#[derive(Debug)]
pub(super) struct OpenObject {
    directory: Arc<Directory>,
    partly: Partly,
    temporary: Temporary,
    header: EntryHeader,
    pub(super) path: Vec<u8>,
    leaf: Vec<u8>,
    /// What its entry tells beside the header.
    extra: Vec<u8>,
}

/// How the temporary name of an object is made.
#[derive(Debug, Clone, Copy)]
enum Temporary {
    /// Of its path, so that the next attempt finds it.
    Keyed(u128),
    Numbered(u64),
}

impl Temporary {
    fn name<'a>(self, names: &TemporaryNames, space: &'a mut NameSpace) -> &'a [u8] {
        match self {
            Self::Keyed(key) => names.keyed(key, space),
            Self::Numbered(number) => names.object(number, space),
        }
    }
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
        // What has been written since is known where it was written.
        Ok(Some(Opening::Write(open.partly.clone())))
    }

    /// Makes the temporary file of an object, or finds the one of a former attempt.
    pub(super) fn create(
        &mut self,
        names: &TemporaryNames,
        directory: Arc<Directory>,
        header: EntryHeader,
        (path, leaf, extra): (&[u8], &[u8], &[u8]),
        (keeps, baselines): (bool, bool),
    ) -> Result<Opening, Errno> {
        self.leftovers.visit(&directory, names);
        let hash = *blake3::Hasher::new().update(path).update(b"\0").update(leaf).finalize().as_bytes();
        let key = hash.first_chunk().map_or(0, |key| u128::from_be_bytes(*key));
        let keyed = !self.keys.contains(&key);
        let temporary = if keyed { Temporary::Keyed(key) } else { Temporary::Numbered(header.object) };
        let mut space = NameSpace::new();
        let name = temporary.name(names, &mut space);
        let former = if keyed { find(&directory, name, &header, path, hash) } else { None };
        let mut partly = match former {
            Some(Found { partial, held }) => {
                let file = Arc::clone(partial.file());
                Partly { file, held, partial: Some(Arc::new(partial)), keeps, former: None }
            }
            None => make(&directory, name, &header, hash)?,
        };
        partly.keeps = keeps;
        partly.former = if baselines { former_of(&directory, leaf) } else { None };
        if keyed {
            self.keys.insert(key);
        }
        let opening = Opening::Write(partly.clone());
        let (path, leaf, extra) = (path.to_vec(), leaf.to_vec(), extra.to_vec());
        let open = OpenObject { directory, partly, temporary, header, path, leaf, extra };
        self.open.insert(open.header.object, open);
        Ok(opening)
    }

    /// The path of an open object.
    pub(super) fn path(&self, object: u64) -> Option<&[u8]> {
        self.open.get(&object).map(|open| open.path.as_slice())
    }

    /// Takes an open object out.
    pub(super) fn take(&mut self, object: u64) -> Option<OpenObject> {
        let open = self.open.remove(&object)?;
        if let Temporary::Keyed(key) = open.temporary {
            self.keys.remove(&key);
        }
        Some(open)
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
        self.keys.clear();
        for (_, open) in self.open.drain() {
            open.discard(names);
        }
        self.leftovers.remove_own();
    }

    /// Lets go of all that is open. What the next attempt can use stays, once nobody writes to it any more.
    pub(super) fn leave_all(&mut self, names: &TemporaryNames) {
        self.keys.clear();
        for (_, open) in self.open.drain() {
            match &open.partly.partial {
                Some(partial)
                    if matches!(open.temporary, Temporary::Keyed(_))
                        && partial.is_used()
                        && partial.close() => {}
                Some(_) | None => open.discard(names),
            }
        }
    }
}

/// The partial file of a former attempt, if it is one of the same source.
fn find(
    directory: &Directory,
    name: &[u8],
    header: &EntryHeader,
    path: &[u8],
    hash: [u8; 32],
) -> Option<Found> {
    // Not to be waited for where it is no file at all.
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    match Partial::find(file, header, hash, partial::boot()) {
        Ok(found) => {
            let held: u64 = found.held.iter().map(|(start, end)| end - start).sum();
            tracing::info!(path = %Shown(path), held, size = header.size, "goes on from what a former attempt left");
            Some(found)
        }
        Err(Useless::Changed) => {
            tracing::info!(path = %Shown(path), "the source has changed since a former attempt: it starts again");
            None
        }
        Err(Useless::Unreadable) => {
            tracing::warn!(path = %Shown(path), "what a former attempt left is of no use: it starts again");
            None
        }
    }
}

/// The regular file of this name, if there is one that can be read.
fn former_of(directory: &Directory, leaf: &[u8]) -> Option<Arc<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(directory, leaf, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_regular = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    (is_regular && stat.st_size > 0).then(|| Arc::new(file))
}

/// A new file of the object's size, with a map where there is room for one.
fn make(directory: &Directory, name: &[u8], header: &EntryHeader, hash: [u8; 32]) -> Result<Partly, Errno> {
    let file = create_exclusive(directory, name, Mode::S_IRUSR | Mode::S_IWUSR, Access::ReadWrite)?;
    let file = Arc::new(file);
    let partial = match Partial::create(&file, header, hash, partial::boot()) {
        Ok(partial) => partial,
        Err(errno) => {
            tracing::debug!(%errno, "a partial file gets no map");
            None
        }
    };
    if partial.is_none() {
        let size = i64::try_from(header.size).map_err(|_| Errno::EFBIG);
        size.and_then(|size| ftruncate(&file, size)).inspect_err(|_| remove(directory, name))?;
    }
    Ok(Partly { file, held: Vec::new(), partial: partial.map(Arc::new), keeps: false, former: None })
}

impl OpenObject {
    /// Gives the file its metadata, makes it durable and puts it in place; its size.
    pub(super) fn commit(
        &self,
        names: &TemporaryNames,
        (policy, attributes): (Policy, &Attributes),
        volumes: &mut Volumes,
    ) -> Result<u64, Problem> {
        let mut space = NameSpace::new();
        let temporary = self.temporary.name(names, &mut space);
        let file = &self.partly.file;
        let volume = self.directory.volume;
        let failed = |action: &'static str| move |errno| Problem::storage(errno, action, &self.path, volume);
        if let Some(partial) = &self.partly.partial {
            partial.cut(self.header.size).map_err(failed("make it complete"))?;
        }
        attributes.apply(file, &self.extra, &self.path);
        policy.finish_private(file, &self.header).map_err(failed("set its mode and time"))?;
        if volumes.keeps(volume) {
            fsync(file).map_err(failed("flush it to disk"))?;
        }
        let directory = &*self.directory;
        renameat(directory, temporary, directory, self.leaf.as_slice()).map_err(failed("put it in place"))?;
        volumes.mark(volume);
        Ok(self.header.size)
    }

    /// Removes the temporary file.
    pub(super) fn discard(&self, names: &TemporaryNames) {
        remove(&self.directory, self.temporary.name(names, &mut NameSpace::new()));
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
