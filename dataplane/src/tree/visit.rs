//! How the scanner's walk takes one item into a pack.
use super::attributes::{self, Kinds};
use super::digest::digest_of;
use super::extra::ExtraList;
use super::failure::Problem;
use super::found::{self, Fingerprint, FoundObject, Read, verify_unchanged};
use super::metadata::header;
use super::scanner::{Item, Scanner, Visited, kind_of};
use dwcp_abi::wire::{
    Code, ContentDigest, EntryHeader, EntryKind, Extra, Node, NodeKind, PackWriter, TEXT_BYTES_MAX,
    TreeOptions, check_name,
};
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, fstat, major, minor};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

impl Scanner {
    /// Appends the current item to the pack.
    pub(super) fn visit(&mut self, item: &Item, pack: &mut PackWriter<'_>) -> Result<Visited, Problem> {
        let kind = match item {
            Item::Name(kind) => *kind,
            Item::Contents(directory) => {
                let directory = directory.try_clone().map_err(|_| self.problem(Errno::EMFILE))?;
                return self.visit_directory(directory, pack);
            }
            Item::Broken(problem) => {
                return Err(problem.clone());
            }
        };
        if check_name(&self.path).is_err() {
            return Err(Problem::new(Code::Io, &self.path, "the path is too long or too deep to be sent"));
        }
        let kind = match kind {
            Some(kind) => Some(kind),
            None => self.look()?,
        };
        match kind {
            Some(Type::Symlink) => self.visit_link(pack),
            Some(Type::File | Type::Directory) => self.visit_opened(pack),
            Some(Type::Fifo | Type::CharacterDevice | Type::BlockDevice | Type::Socket) | None => {
                self.visit_special(pack)
            }
        }
    }

    fn visit_opened(&mut self, pack: &mut PackWriter<'_>) -> Result<Visited, Problem> {
        let mut quiet = self.quiet;
        let opened = found::open(self.parent(), self.leaf(), &mut quiet);
        self.quiet = quiet;
        let file = match opened {
            Ok(file) => file,
            Err(Errno::ELOOP) => return self.visit_link(pack),
            Err(Errno::ENXIO) => return Err(self.special()),
            Err(errno) => return Err(self.problem(errno)),
        };
        let stat = fstat(&file).map_err(|errno| self.problem(errno))?;
        match kind_of(&stat) {
            Some(Type::Directory) => self.visit_directory(file, pack),
            Some(Type::File) => self.visit_file(file, stat, pack),
            _ => Err(self.special()),
        }
    }

    fn visit_file(
        &mut self,
        file: OwnedFd,
        stat: FileStat,
        pack: &mut PackWriter<'_>,
    ) -> Result<Visited, Problem> {
        let has_names = stat.st_nlink > 1 && self.tree.has(TreeOptions::HARD_LINKS);
        if has_names && let Some(visited) = self.visit_other_name(&stat, pack) {
            return Ok(visited);
        }
        let visited = self.visit_first_name(file, stat, pack)?;
        if has_names && !matches!(visited, Visited::NoRoom) {
            self.seen.insert(&stat, &self.path);
        }
        Ok(visited)
    }

    /// Sends a further name of a file that was sent.
    fn visit_other_name(&mut self, stat: &FileStat, pack: &mut PackWriter<'_>) -> Option<Visited> {
        if !self.seen.knows(stat) {
            return None;
        }
        // No name is forgotten for an entry that finds no room.
        if pack.content_room(&self.path, &[0; TEXT_BYTES_MAX]).is_none() {
            return Some(Visited::NoRoom);
        }
        let first = self.seen.first_name(stat)?;
        let appended = pack.append(header(EntryKind::HardLink, stat), &self.path, &first);
        Some(appended.map_or(Visited::NoRoom, |()| Visited::Packed(0)))
    }

    fn visit_first_name(
        &mut self,
        file: OwnedFd,
        stat: FileStat,
        pack: &mut PackWriter<'_>,
    ) -> Result<Visited, Problem> {
        let extra = self.extra(&file, &stat);
        if self.tree.has(TreeOptions::DRY_RUN) {
            return self.announce(file, &stat, extra, pack);
        }
        let place = (self.path.as_slice(), extra.as_bytes(), self.sole_flag());
        let settle = || self.settle();
        let limit = self.limits.inline_bytes_max;
        match found::read_whole(pack, &file, stat, place, (limit, &settle))
            .map_err(|errno| self.problem(errno))?
        {
            Read::Packed(bytes) => Ok(Visited::Packed(bytes)),
            Read::NoRoom => Ok(Visited::NoRoom),
            Read::Changed => Err(self.changed()),
            Read::Large(stat) => self.announce(file, &stat, extra, pack),
        }
    }

    /// Tells of a file whose bytes come by other means, or not at all.
    fn announce(
        &mut self,
        file: OwnedFd,
        stat: &FileStat,
        mut extra: ExtraList,
        pack: &mut PackWriter<'_>,
    ) -> Result<Visited, Problem> {
        // No file is hashed for nothing.
        let room = [extra.as_bytes(), &[0; DIGEST_ROOM]].concat();
        if pack.content_room(&self.path, &room).is_none() {
            return Ok(Visited::NoRoom);
        }
        if self.tree.has(TreeOptions::CHECKSUM) {
            let digest = self.digest(&file, stat)?;
            // Where other records leave no room for it, the file is sent.
            extra.push(&Extra::Digest(ContentDigest { digest }));
        }
        let (size, object) = (u64::try_from(stat.st_size).unwrap_or(0), self.objects + 1);
        let flags = self.sole_flag();
        let header = EntryHeader { flags, size, object, ..header(EntryKind::Object, stat) };
        if pack.append_with(header, (&self.path, extra.as_bytes()), &[]).is_err() {
            return Ok(Visited::NoRoom);
        }
        self.objects = object;
        if self.tree.has(TreeOptions::DRY_RUN) {
            return Ok(Visited::Packed(0));
        }
        Ok(Visited::Object(FoundObject { object, file, size, fingerprint: Fingerprint::of(stat) }))
    }

    /// What is in a file, where the receiver wants to know before it asks for it.
    fn digest(&self, file: &OwnedFd, stat: &FileStat) -> Result<[u8; 32], Problem> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let digest = digest_of(file, size).map_err(|errno| self.problem(errno))?;
        // The same look that its bytes would be sent after: a digest of two contents is none.
        let digest = digest.filter(|_| verify_unchanged(file, &Fingerprint::of(stat)));
        digest.ok_or_else(|| self.changed())
    }

    fn changed(&self) -> Problem {
        let text = "changed while it was read; send it again when nothing writes to it";
        Problem::new(Code::Changed, &self.path, text)
    }

    fn visit_link(&mut self, pack: &mut PackWriter<'_>) -> Result<Visited, Problem> {
        let stat = self.stat()?;
        let target = readlinkat(self.parent(), self.leaf()).map_err(|errno| self.problem(errno))?;
        if target.len() > TEXT_BYTES_MAX {
            return Err(Problem::new(Code::Io, &self.path, "the link's target is too long to be sent"));
        }
        let header = EntryHeader { flags: self.sole_flag(), ..header(EntryKind::Symlink, &stat) };
        let mut extra = ExtraList::default();
        self.owners.push(&stat, self.tree, &mut extra);
        match pack.append_with(header, (&self.path, extra.as_bytes()), target.as_bytes()) {
            Ok(()) => Ok(Visited::Packed(0)),
            Err(_) => Ok(Visited::NoRoom),
        }
    }

    fn visit_directory(&mut self, directory: OwnedFd, pack: &mut PackWriter<'_>) -> Result<Visited, Problem> {
        if self.stack.len() >= self.limits.depth_max {
            return Err(Problem::new(Code::Io, &self.path, "too many directories inside each other"));
        }
        let stat = fstat(&directory).map_err(|errno| self.problem(errno))?;
        if pack.append(header(EntryKind::Directory, &stat), &self.path, &[]).is_err() {
            return Ok(Visited::NoRoom);
        }
        // The destination itself keeps what it has.
        let extra = if self.path.is_empty() { ExtraList::default() } else { self.extra(&directory, &stat) };
        Ok(Visited::Directory(directory, stat, extra))
    }

    /// A pipe, a socket or a device, which is made at the receiver and never opened here.
    fn visit_special(&mut self, pack: &mut PackWriter<'_>) -> Result<Visited, Problem> {
        let stat = self.stat()?;
        let kind = match kind_of(&stat) {
            Some(Type::Fifo) => NodeKind::Fifo,
            Some(Type::Socket) => NodeKind::Socket,
            Some(Type::CharacterDevice) => NodeKind::Character,
            Some(Type::BlockDevice) => NodeKind::Block,
            Some(Type::Directory | Type::File | Type::Symlink) | None => return Err(self.special()),
        };
        let (wanted, major, minor) = match kind {
            NodeKind::Fifo | NodeKind::Socket => (TreeOptions::SPECIALS, 0, 0),
            NodeKind::Character | NodeKind::Block => {
                // Linux device numbers have 12 and 20 bits (makedev(3)).
                (TreeOptions::DEVICES, major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32)
            }
        };
        if !self.tree.has(wanted) {
            return Err(self.special());
        }
        let mut extra = ExtraList::default();
        extra.push(&Extra::Node(Node { kind, major, minor }));
        self.owners.push(&stat, self.tree, &mut extra);
        let header = EntryHeader { flags: self.sole_flag(), ..header(EntryKind::Special, &stat) };
        match pack.append_with(header, (&self.path, extra.as_bytes()), &[]) {
            Ok(()) => Ok(Visited::Packed(0)),
            Err(_) => Ok(Visited::NoRoom),
        }
    }

    /// What an entry tells beside its header.
    fn extra(&mut self, file: &OwnedFd, stat: &FileStat) -> ExtraList {
        let mut extra = ExtraList::default();
        self.owners.push(stat, self.tree, &mut extra);
        let read = attributes::read(file, Kinds::of(self.tree), &self.path, &mut extra);
        // The file itself is sent all the same.
        self.complaint = read.err();
        extra
    }

    fn special(&self) -> Problem {
        let text = "not a regular file, directory or symbolic link; it is left out, unless --specials and --devices \
            ask for it";
        Problem { left_out: true, ..Problem::new(Code::Io, &self.path, text) }
    }
}

/// A record with a digest.
const DIGEST_ROOM: usize = 1 + 32;
