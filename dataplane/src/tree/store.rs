//! Puts one file, link or object of a pack on disk, under a temporary name where it has to wait.
use super::attributes::Attributes;
use super::directories::Directory;
use super::existing::is_there;
use super::failure::{Failure, Problem};
use super::metadata::{self, Policy};
use super::name::{NameSpace, TemporaryNames};
use super::objects::{Access, Objects, OpenedObject, Opening, create_exclusive};
use super::options::Options;
use super::special;
use super::staged::{Staged, remove};
use super::volumes::Volumes;
use dwcp_abi::wire::{Code, Entry, EntryKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::unistd::{linkat, symlinkat, write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What came of one entry.
pub(super) enum Done {
    Stored(u64),
    Skipped,
    Opened(OpenedObject),
    Told(Failure),
}

/// The parts of a receiver that storing one file needs.
pub(super) struct Store<'a> {
    pub(super) names: &'a mut TemporaryNames,
    pub(super) options: &'a Options,
    pub(super) policy: Policy,
    pub(super) attributes: &'a Attributes,
    pub(super) volumes: &'a mut Volumes,
    pub(super) staged: &'a mut Staged,
    pub(super) objects: &'a mut Objects,
}

impl Store<'_> {
    /// Stores a file, link or object as `leaf` in its directory.
    pub(super) fn entry(
        &mut self,
        parent: Arc<Directory>,
        leaf: &[u8],
        entry: &Entry<'_>,
    ) -> Result<Done, Problem> {
        match entry.header.kind {
            EntryKind::InlineFile => self.inline(parent, leaf, entry),
            EntryKind::Symlink => self.link(parent, leaf, entry),
            EntryKind::Object => self.object(parent, leaf, entry),
            EntryKind::Special => self.special(parent, leaf, entry),
            EntryKind::Directory | EntryKind::DirectoryFinal | EntryKind::HardLink | EntryKind::Failed => {
                Ok(Done::Skipped)
            }
        }
    }

    fn inline(&mut self, parent: Arc<Directory>, leaf: &[u8], entry: &Entry<'_>) -> Result<Done, Problem> {
        if self.is_there(&parent, leaf, entry) {
            return Ok(Done::Skipped);
        }
        let number = self.names.take_number();
        let mut space = NameSpace::new();
        let temporary = self.names.inline(number, &mut space);
        let volume = parent.volume;
        let failed = |errno| Problem::storage(errno, "write it", entry.name, volume);
        let mut file = None;
        if self.volumes.takes_nameless(volume) {
            match self.nameless(&parent, (leaf, temporary), entry).map_err(failed)? {
                Named::Finally => return Ok(Done::Stored(entry.header.size)),
                Named::Temporarily => {}
                Named::NotAtAll => self.volumes.refuse_nameless(volume),
            }
        }
        if !self.volumes.takes_nameless(volume) {
            let mode = self.policy.creation_mode(&entry.header);
            let created = create_exclusive(&parent, temporary, mode, Access::Write).map_err(failed)?;
            let written = self.fill(&created, entry).inspect_err(|_| remove(&parent, temporary));
            written.map_err(failed)?;
            file = Some(created);
        }
        self.staged.push(parent, number, (entry.name, leaf), file);
        Ok(Done::Stored(entry.header.size))
    }

    /// Makes the file without a name, so that nothing of it can stay behind, and names it when it is complete.
    fn nameless(
        &self,
        parent: &Directory,
        (leaf, temporary): (&[u8], &[u8]),
        entry: &Entry<'_>,
    ) -> Result<Named, Errno> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let Ok(file) = openat(parent, c".", flags, self.policy.creation_mode(&entry.header)) else {
            return Ok(Named::NotAtAll);
        };
        self.fill(&file, entry)?;
        let name = |name: &[u8]| linkat(&file, c"", parent, name, AtFlags::AT_EMPTY_PATH);
        match name(leaf) {
            Ok(()) => return Ok(Named::Finally),
            Err(Errno::EEXIST) => {}
            // Without CAP_DAC_READ_SEARCH before Linux 6.10 (open_by_handle_at(2) has the same rule).
            Err(Errno::ENOENT) => return Ok(Named::NotAtAll),
            Err(errno) => return Err(errno),
        }
        if let Err(errno) = name(temporary) {
            if errno != Errno::EEXIST {
                return Err(errno);
            }
            // Left by a run that was killed.
            remove(parent, temporary);
            name(temporary)?;
        }
        Ok(Named::Temporarily)
    }

    fn fill(&self, file: &OwnedFd, entry: &Entry<'_>) -> Result<(), Errno> {
        write_all(file, entry.content)?;
        if self.attributes.any() {
            // It may have inherited an access list, and have another mode than it was made with.
            self.attributes.apply(file, entry.extra, entry.name);
            return self.policy.finish_private(file, &entry.header);
        }
        self.policy.finish_created(file, &entry.header)
    }

    fn link(&mut self, parent: Arc<Directory>, leaf: &[u8], entry: &Entry<'_>) -> Result<Done, Problem> {
        let number = self.names.take_number();
        let mut space = NameSpace::new();
        let temporary = self.names.inline(number, &mut space);
        let failed = |errno| Problem::storage(errno, "make the link", entry.name, parent.volume);
        let make = || symlinkat(entry.content, &*parent, temporary);
        match make() {
            Err(Errno::EEXIST) => {
                remove(&parent, temporary);
                make()
            }
            Err(Errno::EACCES) => metadata::open_up(&*parent).and_then(|()| make()),
            other => other,
        }
        .map_err(failed)?;
        let finished = self.policy.finish_named(&*parent, temporary, &entry.header);
        finished.inspect_err(|_| remove(&parent, temporary)).map_err(failed)?;
        self.staged.push(parent, number, (entry.name, leaf), None);
        Ok(Done::Stored(0))
    }

    fn special(&mut self, parent: Arc<Directory>, leaf: &[u8], entry: &Entry<'_>) -> Result<Done, Problem> {
        let Some(node) = special::node(entry.extra) else {
            return Err(Problem::new(Code::Protocol, entry.name, "the sender does not say what it is"));
        };
        let allowed = if special::is_device(node) { self.options.devices } else { self.options.specials };
        if !allowed {
            return Err(Problem::new(Code::Forbidden, entry.name, NOT_MADE));
        }
        let number = self.names.take_number();
        let mut space = NameSpace::new();
        let temporary = self.names.inline(number, &mut space);
        let made = special::make(&parent, temporary, node, (self.policy, &entry.header));
        made.map_err(|errno| {
            remove(&parent, temporary);
            Problem::storage(errno, "make the special file", entry.name, parent.volume)
        })?;
        self.staged.push(parent, number, (entry.name, leaf), None);
        Ok(Done::Stored(0))
    }

    fn object(&mut self, parent: Arc<Directory>, leaf: &[u8], entry: &Entry<'_>) -> Result<Done, Problem> {
        let (object, size) = (entry.header.object, entry.header.size);
        let opened = |opening| Ok(Done::Opened(OpenedObject { object, size, opening }));
        if let Some(opening) = self.objects.known(&entry.header, entry.name)? {
            return opened(opening);
        }
        if self.is_there(&parent, leaf, entry) {
            self.objects.settle(object);
            return opened(Opening::Unchanged);
        }
        if self.objects.count() >= self.options.objects_max {
            return Err(Problem::new(Code::Busy, entry.name, "too many objects are open at once"));
        }
        let volume = parent.volume;
        let keeps = self.volumes.keeps(volume);
        let created = self.objects.create(
            self.names,
            parent,
            entry.header,
            (entry.name, leaf, entry.extra),
            (keeps, self.options.baselines),
        );
        opened(created.map_err(|errno| Problem::storage(errno, "make room for it", entry.name, volume))?)
    }

    /// Whether what is there shall stay.
    fn is_there(&self, parent: &Directory, leaf: &[u8], entry: &Entry<'_>) -> bool {
        is_there(self.options, parent, leaf, entry)
            .is_some_and(|same| same.finish((self.policy, self.attributes), (parent, leaf), entry))
    }
}

const NOT_MADE: &str = "special files of this kind are not made here: the job must ask for them (--specials, --devices), \
    and for devices of a peer `privileged` must be set in `exports`";

/// How far a file that was made without a name has come.
enum Named {
    Finally,
    /// The final name is taken: a rename has to replace it.
    Temporarily,
    NotAtAll,
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(file, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
