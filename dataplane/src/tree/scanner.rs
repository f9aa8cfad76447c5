//! The sender's walk: a tree becomes packs of entries, as many as are asked for and no sooner.
//!
//! Memory: one open directory (a descriptor and glibc's 32 KiB) per level of the walk, at most
//! [`Limits::depth_max`]; one path; the final metadata of every directory seen, about 90 bytes each, at most
//! [`Limits::finals_bytes_max`]; and with hard links, files of which not all names have come, at most 64 MiB of them.
use super::extra::ExtraList;
use super::failure::{Failure, Problem};
use super::filters::Filters;
use super::finals::Finals;
use super::found::{FoundObject, Quiet};
use super::links::SeenFiles;
use super::metadata::{header, no_metadata};
use super::name::is_temporary;
use super::owners::OwnerNames;
use super::source::{OpenedSource, Source};
use dwcp_abi::wire::{
    COMPONENTS_MAX, Code, EXTRA_BYTES_MAX, EntryHeader, EntryKind, FLAG_LEFT_OUT, FLAG_SOLE, NAME_BYTES_MAX,
    PackWriter, TEXT_BYTES_MAX, TreeOptions, check_name,
};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bounds of a scan.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest file that travels inside a pack, in bytes.
    pub inline_bytes_max: u64,
    /// Objects after which a pack ends, so that their content can start to flow.
    pub objects_per_pack_max: usize,
    /// Directories inside each other.
    pub depth_max: usize,
    /// Bytes kept for directories' final metadata; directories beyond are reported and keep provisional modes.
    pub finals_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inline_bytes_max: 128 << 10,
            objects_per_pack_max: 32,
            depth_max: COMPONENTS_MAX,
            finals_bytes_max: 64 << 20,
        }
    }
}

/// One pack.
#[derive(Debug, Default)]
pub struct Filled {
    /// Bytes of the pack.
    pub length: usize,
    /// Entries in it.
    pub entries: u32,
    /// Bytes of content inside it.
    pub bytes: u64,
    /// Files that were announced in it; their content is sent by other means.
    pub objects: Vec<FoundObject>,
    /// Entries that could not be read. Each is also in the pack, for the receiver.
    pub failures: Vec<Failure>,
    /// Nothing is left after this pack.
    pub end: bool,
}

/// Walks sources in the order that the file system gives.
#[derive(Debug)]
pub struct Scanner {
    sources: std::vec::IntoIter<Source>,
    pub(super) filters: Filters,
    pub(super) limits: Limits,
    pub(super) tree: TreeOptions,
    /// There is one source, and it is not a directory's contents.
    one_name: bool,
    /// Holds the source that is being walked, unless its contents are.
    top: Option<OwnedFd>,
    pub(super) stack: Vec<Frame>,
    /// Path of the current item, relative to the destination.
    pub(super) path: Vec<u8>,
    /// The current item, when it found no room in the last pack.
    held: Option<Item>,
    pub(super) quiet: Quiet,
    pub(super) objects: u64,
    /// Files with further names that were sent.
    pub(super) seen: SeenFiles,
    pub(super) owners: OwnerNames,
    /// What is to be told of the current item, though it is sent.
    pub(super) complaint: Option<Problem>,
    finals: Finals,
    /// The first directory whose final metadata found no room, until it is reported.
    first_dropped: Option<Vec<u8>>,
    #[cfg(test)]
    settle: Option<Settle>,
}

/// Smallest buffer that a pack may be written to: a longest name with a longest text, twice over, and the most that an
/// entry may tell beside.
pub const PACK_BYTES_MIN: usize = (16 << 10) + EXTRA_BYTES_MAX;

/// Memory for files that have further names: about half a million of them.
const SEEN_BYTES_MAX: usize = 64 << 20;

/// A directory that is being read.
#[derive(Debug)]
pub(super) struct Frame {
    directory: Dir,
    path_length: usize,
}

/// What the path stands for.
#[derive(Debug)]
pub(super) enum Item {
    /// A name inside the current directory, and its type where the directory tells.
    Name(Option<Type>),
    /// The destination itself, and the directory whose contents it gets.
    Contents(OwnedFd),
    /// Something that cannot be read.
    Broken(Problem),
}

/// What came of an item.
pub(super) enum Visited {
    Packed(u64),
    Object(FoundObject),
    /// The directory, its state, and the records for its closing entry.
    Directory(OwnedFd, FileStat, ExtraList),
    NoRoom,
}

#[cfg(test)]
struct Settle(Box<dyn Fn() + Send>);

#[cfg(test)]
impl std::fmt::Debug for Settle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settle")
    }
}

impl Scanner {
    /// Will walk `sources` one after the other, without what `filters` leave out. Opens nothing yet.
    #[must_use]
    pub fn new(sources: Vec<Source>, filters: Filters, limits: Limits) -> Self {
        Self {
            one_name: sources.len() == 1,
            sources: sources.into_iter(),
            filters,
            limits,
            tree: TreeOptions::NONE,
            top: None,
            stack: Vec::new(),
            path: Vec::new(),
            held: None,
            quiet: Quiet::Allowed,
            objects: 0,
            seen: SeenFiles::new(SEEN_BYTES_MAX),
            owners: OwnerNames::default(),
            complaint: None,
            finals: Finals::new(limits.finals_bytes_max),
            first_dropped: None,
            #[cfg(test)]
            settle: None,
        }
    }

    /// Reads the trees as a job with these options wants them.
    #[must_use]
    pub fn treating(mut self, tree: TreeOptions) -> Self {
        self.tree = tree;
        if tree.has(TreeOptions::CHECKSUM) {
            // Each was read whole before: the first need not wait for the others.
            self.limits.objects_per_pack_max = 1;
        }
        self
    }

    /// Walks on until `out` is full, enough objects were found, or everything was seen.
    ///
    /// # Panics
    /// Where `out` is smaller than [`PACK_BYTES_MIN`].
    pub fn fill(&mut self, out: &mut [u8]) -> Filled {
        assert!(out.len() >= PACK_BYTES_MIN, "a pack needs {PACK_BYTES_MIN} bytes");
        let mut filled = Filled::default();
        let mut pack = PackWriter::new(out);
        while filled.objects.len() < self.limits.objects_per_pack_max {
            let Some(mut item) = self.held.take().or_else(|| self.next_item()) else {
                filled.end = true;
                break;
            };
            let mut visited = self.visit(&item, &mut pack);
            if let Err(problem) = visited {
                visited = self.fail(&problem, &mut pack, &mut filled);
                item = Item::Broken(problem);
            }
            match visited {
                Ok(Visited::Packed(bytes)) => filled.bytes += bytes,
                Ok(Visited::Object(object)) => filled.objects.push(object),
                Ok(Visited::Directory(directory, stat, extra)) => self.enter(directory, &stat, &extra),
                Ok(Visited::NoRoom) | Err(_) => {
                    self.held = Some(item);
                    self.complaint = None;
                    break;
                }
            }
            if let Some(problem) = self.complaint.take() {
                self.held.get_or_insert(Item::Broken(problem));
            }
        }
        filled.entries = pack.entries();
        filled.length = pack.seal(|entries| *blake3::hash(entries).as_bytes());
        filled
    }

    /// After the last pack of [`Scanner::fill`]: the final metadata of all directories, deepest first.
    ///
    /// # Panics
    /// Where `out` is smaller than [`PACK_BYTES_MIN`].
    pub fn fill_finals(&mut self, out: &mut [u8]) -> Filled {
        assert!(out.len() >= PACK_BYTES_MIN, "a pack needs {PACK_BYTES_MIN} bytes");
        let mut filled = Filled::default();
        let mut pack = PackWriter::new(out);
        if let Some(path) = self.first_dropped.take() {
            let text =
                format!("mode and time of {} directories from here on are not kept", self.finals.dropped);
            self.path = path;
            let problem = Problem::new(Code::Busy, &self.path, &text);
            // The pack is empty: there is room.
            let _room = self.fail(&problem, &mut pack, &mut filled);
        }
        filled.end = loop {
            let Some((header, path, extra)) = self.finals.last() else { break true };
            if pack.append_with(header, (path, extra), &[]).is_err() {
                break false;
            }
            self.finals.pop();
        };
        filled.entries = pack.entries();
        filled.length = pack.seal(|entries| *blake3::hash(entries).as_bytes());
        filled
    }

    /// Puts the next name that is not left out into `path`.
    fn next_item(&mut self) -> Option<Item> {
        loop {
            let item = self.next_found()?;
            if !self.is_excluded(&item) {
                return Some(item);
            }
        }
    }

    fn is_excluded(&self, item: &Item) -> bool {
        match item {
            Item::Name(kind) => self.filters.exclude(&self.path, || {
                // What cannot be looked at is no directory here; its visit tells of the trouble.
                kind.or_else(|| self.look().ok().flatten()) == Some(Type::Directory)
            }),
            Item::Contents(_) | Item::Broken(_) => false,
        }
    }

    /// Puts the next name into `path`: from the innermost directory that has one, or from the next source.
    fn next_found(&mut self) -> Option<Item> {
        while let Some(frame) = self.stack.last_mut() {
            self.path.truncate(frame.path_length);
            match next_name(&mut frame.directory) {
                None => {
                    self.stack.pop();
                }
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes();
                    if matches!(name, b"." | b"..") || is_temporary(name) {
                        continue;
                    }
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name);
                    return Some(Item::Name(entry.file_type()));
                }
                Some(Err(errno)) => {
                    self.stack.pop();
                    return Some(Item::Broken(Problem::system(errno, "read the directory", &self.path)));
                }
            }
        }
        let source = self.sources.next()?;
        self.path.clear();
        self.top = None;
        match source.open() {
            Ok(OpenedSource::Contents(directory)) => Some(Item::Contents(directory)),
            Ok(OpenedSource::Entry(parent, name)) => {
                self.path = name;
                self.top = Some(parent);
                Some(Item::Name(None))
            }
            Err(problem) => {
                self.path = source.name();
                Some(Item::Broken(problem))
            }
        }
    }

    /// Goes on inside a directory that was announced.
    fn enter(&mut self, directory: OwnedFd, stat: &FileStat, extra: &ExtraList) {
        // The destination itself keeps its metadata: it may be an export's own directory.
        if !self.path.is_empty() {
            self.finals.push(&header(EntryKind::DirectoryFinal, stat), &self.path, extra.as_bytes());
            if self.finals.dropped == 1 && self.first_dropped.is_none() {
                self.first_dropped = Some(self.path.clone());
            }
        }
        match Dir::from_fd(directory) {
            Ok(directory) => self.stack.push(Frame { directory, path_length: self.path.len() }),
            Err(errno) => self.held = Some(Item::Broken(self.problem(errno))),
        }
    }

    /// Tells the receiver about something that cannot be sent. A path that cannot even be named is reported under
    /// the directory that holds it.
    fn fail(
        &self,
        problem: &Problem,
        pack: &mut PackWriter<'_>,
        filled: &mut Filled,
    ) -> Result<Visited, Problem> {
        let mut name = self.path.as_slice();
        while check_name(name).is_err() {
            name = super::name::split(&name[..name.len().min(NAME_BYTES_MAX)]).0;
            if name.is_empty() {
                name = b"source";
            }
        }
        let text = problem.text.as_bytes();
        let text = &text[..text.len().min(TEXT_BYTES_MAX)];
        let flags = if problem.left_out { FLAG_LEFT_OUT } else { 0 };
        if pack.append(EntryHeader { flags, ..no_metadata(EntryKind::Failed) }, name, text).is_err() {
            return Ok(Visited::NoRoom);
        }
        let (code, text) = (problem.code, problem.text.clone());
        filled.failures.push(Failure { path: name.to_vec(), object: None, code, text });
        Ok(Visited::Packed(0))
    }

    /// The directory that holds the current name.
    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        match (self.stack.last(), &self.top) {
            (Some(frame), _) => frame.directory.as_fd(),
            (None, Some(top)) => top.as_fd(),
            (None, None) => unreachable!("a name has a frame or a top that holds it"),
        }
    }

    /// The current name inside [`Scanner::parent`].
    pub(super) fn leaf(&self) -> &[u8] {
        super::name::split(&self.path).1
    }

    pub(super) fn sole_flag(&self) -> u8 {
        if self.one_name && self.stack.is_empty() { FLAG_SOLE } else { 0 }
    }

    pub(super) fn stat(&self) -> Result<FileStat, Problem> {
        fstatat(self.parent(), self.leaf(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|errno| self.problem(errno))
    }

    /// The type of the current name, where the directory does not tell it.
    pub(super) fn look(&self) -> Result<Option<Type>, Problem> {
        self.stat().map(|stat| kind_of(&stat))
    }

    pub(super) fn problem(&self, errno: Errno) -> Problem {
        if errno == Errno::ENOENT && !self.stack.is_empty() {
            return Problem::new(Code::Changed, &self.path, "vanished while its directory was read");
        }
        Problem::system(errno, "read it", &self.path)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test's version needs it")]
    pub(super) fn settle(&self) {}

    #[cfg(test)]
    pub(super) fn settle(&self) {
        if let Some(Settle(settle)) = &self.settle {
            settle();
        }
    }
}

fn next_name(directory: &mut Dir) -> Option<Result<nix::dir::Entry, Errno>> {
    let mut names = directory.iter();
    let next = names.next();
    // Dropped, the iterator would start the directory again from its first name.
    std::mem::forget(names);
    next
}

pub(super) fn kind_of(stat: &FileStat) -> Option<Type> {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Some(Type::Directory),
        SFlag::S_IFREG => Some(Type::File),
        SFlag::S_IFLNK => Some(Type::Symlink),
        SFlag::S_IFIFO => Some(Type::Fifo),
        SFlag::S_IFSOCK => Some(Type::Socket),
        SFlag::S_IFCHR => Some(Type::CharacterDevice),
        SFlag::S_IFBLK => Some(Type::BlockDevice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Base;
    use super::*;
    use dwcp_abi::wire::{Pack, open_pack};
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Scans one file of 1000 bytes whose writer acts each time between the look at it and its reading.
    fn scan_while(act: impl Fn(u32, &File) + Send + 'static) -> (Filled, Vec<u8>) {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("file");
        fs::write(&path, [1; 1000]).unwrap();
        let writer = File::options().write(true).open(&path).unwrap();
        let source = Source { base: Base::Local, path: path.as_os_str().as_bytes().to_vec() };
        let mut scanner = Scanner::new(vec![source], Filters::default(), Limits::default());
        let turns = AtomicU32::new(0);
        scanner.settle = Some(Settle(Box::new(move || act(turns.fetch_add(1, Ordering::Relaxed), &writer))));
        let mut bytes = vec![0; 256 << 10];
        let filled = scanner.fill(&mut bytes);
        bytes.truncate(filled.length);
        (filled, bytes)
    }

    #[test]
    fn a_file_that_changes_once_is_read_again() {
        for length in [500, 1500] {
            let (filled, bytes) = scan_while(move |turn, file| {
                if turn == 0 {
                    file.set_len(length).unwrap();
                }
            });
            assert_eq!(filled.bytes, length);
            let entry = Pack::new(open_pack(&bytes).unwrap().1).next().unwrap().unwrap();
            assert_eq!(entry.content.len() as u64, length);
        }
    }

    #[test]
    fn a_file_that_keeps_changing_is_reported() {
        let (filled, bytes) = scan_while(|turn, file| file.set_len(u64::from(turn)).unwrap());
        assert_eq!((filled.failures.len(), filled.failures[0].code), (1, Code::Changed));
        assert_eq!(
            Pack::new(open_pack(&bytes).unwrap().1).next().unwrap().unwrap().header.kind,
            EntryKind::Failed
        );
    }

    #[test]
    fn a_file_that_becomes_large_becomes_an_object() {
        let (filled, _) = scan_while(|_, file| {
            file.set_len(1 << 20).unwrap();
            file.write_all_at(b"x", 5).unwrap();
        });
        assert_eq!((filled.objects.len(), filled.objects[0].size), (1, 1 << 20));
    }
}
