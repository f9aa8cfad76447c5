//! The receiver's end: packs become a tree. Nothing is visible under its final name before it is complete,
//! verified and durable; nothing outside of the root is ever opened.
use super::changes::Changes;
use super::directories::{Directories, Directory, Making};
use super::failure::{Failure, Failures, Problem, TreeError};
use super::filters::Filters;
use super::finals::Finals;
use super::metadata::{Policy, mode};
use super::name::{Shown, TemporaryNames, has_temporary, split};
use super::objects::{Objects, OpenedObject};
use super::place::{Place, Root, Sole};
use super::rehearsal::rehearse;
use super::sent::Sent;
use super::staged::Staged;
use super::store::{Done, Store};
use super::sweep::{Sweep, Sweeping};
use dwcp_abi::wire::{
    Code, Entry, EntryHeader, EntryKind, FLAG_LEFT_OUT, FLAG_SOLE, Pack, TreeOptions, open_pack,
};
use nix::sys::stat::fstat;

/// What a receiver takes over, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A regular file that has the size and time of an entry already stays as it is.
    pub skip_unchanged: bool,
    /// A regular file that has the content of an entry already stays, with the entry's time and mode.
    pub checksum: bool,
    /// Nothing is changed; what would be is counted and named.
    pub dry_run: bool,
    /// What the source does not have is deleted in the directories that it has sent, once everything else is there.
    pub delete: bool,
    /// What the sender may send differences to is looked for.
    pub baselines: bool,
    /// So does one that was put in place after this time, in seconds and nanoseconds since 1970: a former attempt of
    /// the job has put it there.
    pub placed_since: Option<(i64, i64)>,
    /// Set-user-ID and set-group-ID bits are taken over.
    pub special_bits: bool,
    /// Owner and group are taken over where that is permitted.
    pub owners: bool,
    /// Objects open at once; more are refused.
    pub objects_max: usize,
    /// Directories kept open.
    pub directories_max: usize,
    /// Bytes kept for directories' final metadata.
    pub finals_bytes_max: u32,
    /// Names that can be told from those to delete; with more, nothing is deleted.
    pub names_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            skip_unchanged: false,
            checksum: false,
            dry_run: false,
            delete: false,
            baselines: false,
            placed_since: None,
            special_bits: false,
            owners: false,
            objects_max: 256,
            directories_max: 32,
            finals_bytes_max: 64 << 20,
            names_max: 8 << 20,
        }
    }
}

impl Options {
    /// What a job asks for.
    #[must_use]
    pub fn of(tree: TreeOptions) -> Self {
        Self {
            // Whoever wants contents compared does not trust times.
            skip_unchanged: tree.has(TreeOptions::SKIP_UNCHANGED) && !tree.has(TreeOptions::CHECKSUM),
            checksum: tree.has(TreeOptions::CHECKSUM),
            dry_run: tree.has(TreeOptions::DRY_RUN),
            delete: tree.has(TreeOptions::DELETE),
            ..Self::default()
        }
    }
}

/// What came of one pack.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Entries that are in place, or announced objects.
    pub entries: u64,
    /// Bytes of content that the pack held and that are in place.
    pub bytes: u64,
    /// Entries that were left alone because they were there already.
    pub skipped: u64,
    /// Objects that were announced, also when they were before.
    pub opened: Vec<OpenedObject>,
    /// Entries that did not make it, here or at the sender already.
    pub failures: Vec<Failure>,
    /// Of these, entries of a kind that is not sent: they are named, and nothing is wrong.
    pub left_out: u64,
}

/// What a finished job did. Packs that came twice count twice.
#[derive(Debug, Default)]
pub struct Totals {
    /// Entries in place.
    pub entries: u64,
    /// Objects committed.
    pub objects: u64,
    /// Bytes in place, objects included.
    pub bytes: u64,
    /// Entries left alone.
    pub skipped: u64,
    /// Entries that failed in any call.
    pub failed: u64,
    /// Of these, in [`Receiver::finish`] itself.
    pub failed_at_end: u64,
    /// What failed there, at most 100 of it.
    pub failures: Vec<Failure>,
    /// What was deleted.
    pub changes: Changes,
}

/// Makes a tree from packs. Dropped before [`Receiver::finish`], it leaves what is of use to the next attempt: objects
/// of which the file itself says what is there. [`Receiver::abandon`] leaves nothing.
#[derive(Debug)]
pub struct Receiver {
    place: Place,
    names: TemporaryNames,
    options: Options,
    policy: Policy,
    directories: Directories,
    staged: Staged,
    objects: Objects,
    finals: Finals,
    /// What a sweep spares, beside what was sent.
    filters: Filters,
    sent: Sent,
    /// Failures after which nothing may be deleted: something may be missing here that the source has.
    errors: u64,
    totals: Totals,
}

impl Receiver {
    /// Receives at `root`. `tag` tells the temporary files of this job from those of others, and is the same when
    /// the job is tried again.
    ///
    /// # Errors
    /// [`TreeError::Destination`].
    pub fn open(root: Root, tag: [u8; 8], options: Options) -> Result<Self, TreeError> {
        let mut directories = Directories::new(options.directories_max);
        let place = Place::find(root, &mut directories)?;
        Ok(Self {
            place,
            names: TemporaryNames::new(tag),
            options,
            policy: Policy::new(options.special_bits, options.owners),
            directories,
            staged: Staged::default(),
            objects: Objects::default(),
            finals: Finals::new(options.finals_bytes_max),
            filters: Filters::default(),
            sent: Sent::new(options.names_max),
            errors: 0,
            totals: Totals::default(),
        })
    }

    /// Spares what the job leaves out, where it deletes.
    #[must_use]
    pub fn sparing(mut self, filters: Filters) -> Self {
        self.filters = filters;
        self
    }

    /// Puts all of a pack in place. The same pack may come again at any time. This is [`Receiver::stage`] and
    /// [`Receiver::publish`] in one.
    ///
    /// # Errors
    /// As those two.
    pub fn unpack(&mut self, pack: &[u8]) -> Result<Unpacked, TreeError> {
        let mut unpacked = self.stage(pack)?;
        unpacked.failures.extend(self.publish()?);
        Ok(unpacked)
    }

    /// Writes all of a pack under temporary names. What the answer counts is in place, and the pack may be
    /// acknowledged, after [`Receiver::publish`]: a flush costs the same for one pack and for many.
    ///
    /// # Errors
    /// [`TreeError::Damaged`] where the digest does not match, and nothing else has changed;
    /// [`TreeError::Malformed`] where the peer breaks the format and [`TreeError::Destination`] where no further
    /// entry could be stored: all files that were not in place by then, of former packs too, are gone.
    pub fn stage(&mut self, pack: &[u8]) -> Result<Unpacked, TreeError> {
        let (digest, entries) = open_pack(pack)?;
        if digest.is_some_and(|digest| blake3::hash(entries) != *digest) {
            return Err(TreeError::Damaged);
        }
        let mut unpacked = Unpacked::default();
        let result = self.stage_entries(entries, &mut unpacked);
        self.totals.failed += unpacked.failures.len() as u64;
        self.errors += unpacked.failures.len() as u64 - unpacked.left_out;
        if result.is_err() {
            self.staged.discard(&self.names);
        }
        result?;
        self.totals.entries += unpacked.entries;
        self.totals.bytes += unpacked.bytes;
        self.totals.skipped += unpacked.skipped;
        Ok(unpacked)
    }

    /// Makes every staged file durable, then puts it in place. The entries that this failed for.
    ///
    /// # Errors
    /// [`TreeError::Destination`] where the flush fails; all staged files are gone.
    pub fn publish(&mut self) -> Result<Vec<Failure>, TreeError> {
        let mut failures = Vec::new();
        let published = self.publish_staged(&mut failures);
        self.totals.failed += failures.len() as u64;
        self.errors += failures.len() as u64;
        if published.is_err() {
            self.staged.discard(&self.names);
        }
        published.map(|()| failures)
    }

    /// Puts an object in place after all of its bytes were written and verified.
    ///
    /// # Errors
    /// [`TreeError::Entry`] or [`TreeError::Destination`]; the object is then gone, and may be announced again.
    pub fn commit(&mut self, object: u64) -> Result<(), TreeError> {
        let Some(open) = self.objects.take(object) else {
            if self.objects.is_settled(object) {
                return Ok(());
            }
            let text = format!("object {object} was never announced");
            let failure = Failure { path: Vec::new(), object: Some(object), code: Code::Protocol, text };
            return Err(TreeError::Entry(failure));
        };
        match open.commit(&self.names, self.policy, &mut self.directories.volumes) {
            Ok(size) => {
                self.objects.settle(object);
                self.totals.objects += 1;
                self.totals.bytes += size;
                Ok(())
            }
            Err(problem) => {
                self.totals.failed += 1;
                self.errors += 1;
                open.discard(&self.names);
                Err(error(problem, &open.path, Some(object)))
            }
        }
    }

    /// The path of an object that is open.
    pub fn path(&self, object: u64) -> Option<&[u8]> {
        self.objects.path(object)
    }

    /// Removes what there is of an object; its path, where there was something.
    pub fn discard(&mut self, object: u64) -> Option<Vec<u8>> {
        let open = self.objects.take(object)?;
        self.errors += 1;
        open.discard(&self.names);
        Some(open.path)
    }

    /// Removes whatever is not complete.
    pub fn abandon(mut self) {
        self.objects.discard_all(&self.names);
    }

    /// Gives directories their final metadata and makes everything durable. Objects that were not committed are
    /// removed.
    ///
    /// # Errors
    /// [`TreeError::Destination`] where the flush fails: nothing can be said about what is on disk.
    pub fn finish(mut self) -> Result<Totals, TreeError> {
        self.errors += self.objects.count() as u64;
        self.objects.discard_all(&self.names);
        let mut failures = Failures::default();
        self.publish()?.into_iter().for_each(|failure| failures.push(failure));
        self.finals.sort_by_depth();
        let sweeping = self.sweeping(&mut failures);
        self.finish_directories(sweeping, &mut failures);
        if self.finals.dropped > 0 {
            let text = format!("too many directories: {} keep a provisional mode", self.finals.dropped);
            failures.push(Problem::new(Code::Busy, b"tree", &text).of(b"tree", None));
            self.totals.failed += self.finals.dropped;
        }
        let flushed = self.directories.volumes.flush();
        flushed.map_err(|errno| {
            error(stop(Problem::system(errno, "flush to disk", b"destination")), b"", None)
        })?;
        let totals = std::mem::take(&mut self.totals);
        Ok(Totals { failed_at_end: failures.count, failures: failures.kept, ..totals })
    }

    /// Whether what the source does not have may go. With anything amiss it stays, as in rsync: what could not be read or
    /// stored would look like what was removed.
    fn sweeping(&mut self, failures: &mut Failures) -> Option<Sweeping> {
        if !self.options.delete {
            return None;
        }
        let text = if self.errors > 0 || self.finals.dropped > 0 {
            "nothing is deleted, because not all could be transferred: see the other failures"
        } else if !self.sent.close() {
            "nothing is deleted: the job has too many names to tell others from them; send its parts one by one"
        } else {
            return Some(if self.options.dry_run { Sweeping::Rehearse } else { Sweeping::Delete });
        };
        failures.push(Problem::new(Code::Io, b"destination", text).of(b"", None));
        self.totals.failed += 1;
        None
    }

    fn finish_directories(&mut self, sweeping: Option<Sweeping>, failures: &mut Failures) {
        let Self { place, directories, options, policy, finals, sent, filters, totals, .. } = self;
        let Some(root) = place.opened() else { return };
        let before = failures.count;
        while let Some((header, path)) = finals.last() {
            let finished = directories.open(root, path, Making::Refuse).and_then(|directory| {
                if let Some(sweeping) = sweeping {
                    let changes = &mut totals.changes;
                    Sweep { sent, filters, sweeping, changes, failures }.directory(&directory, path);
                }
                match options.dry_run {
                    true => Ok(()),
                    false => finish_directory(directories, &directory, &header, path, *policy),
                }
            });
            // What is not there would have been made, and what is in the way was named.
            if let Err(problem) =
                finished.or_else(|problem| if options.dry_run { Ok(()) } else { Err(problem) })
            {
                failures.push(problem.of(path, None));
            }
            finals.pop();
        }
        if let Some(sweeping) = sweeping.filter(|_| sent.root) {
            let changes = &mut totals.changes;
            Sweep { sent, filters, sweeping, changes, failures }.directory(root, b"");
            if sweeping == Sweeping::Delete {
                directories.volumes.mark(root.volume);
            }
        }
        totals.failed += failures.count - before;
    }

    fn stage_entries(&mut self, entries: &[u8], unpacked: &mut Unpacked) -> Result<(), TreeError> {
        for entry in Pack::new(entries) {
            let entry = entry?;
            match self.entry(&entry)? {
                Ok(Done::Stored(bytes)) => {
                    unpacked.entries += 1;
                    unpacked.bytes += bytes;
                }
                Ok(Done::Skipped) => unpacked.skipped += 1,
                Ok(Done::Opened(opened)) => {
                    unpacked.entries += 1;
                    unpacked.opened.push(opened);
                }
                Ok(Done::Told(failure)) => {
                    unpacked.left_out += u64::from(entry.header.flags & FLAG_LEFT_OUT != 0);
                    unpacked.failures.push(failure);
                }
                Err(problem) => {
                    let object = (entry.header.object != 0).then_some(entry.header.object);
                    if problem.stops_job {
                        return Err(error(problem, entry.name, object));
                    }
                    unpacked.failures.push(problem.of(entry.name, object));
                }
            }
            if self.staged.is_full() {
                self.publish_staged(&mut unpacked.failures)?;
            }
        }
        Ok(())
    }

    fn publish_staged(&mut self, failures: &mut Vec<Failure>) -> Result<(), TreeError> {
        let flushed = self.staged.publish(&mut self.directories.volumes, &self.names, failures);
        flushed
            .map_err(|errno| error(stop(Problem::system(errno, "flush to disk", b"destination")), b"", None))
    }

    /// One entry: an outer error ends the job, an inner one only this entry.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<Result<Done, Problem>, TreeError> {
        if self.options.delete {
            self.sent.insert(entry.name);
            self.sent.root |= entry.name.is_empty() && entry.header.kind == EntryKind::Directory;
        }
        if entry.header.kind == EntryKind::Failed {
            let text = format!("{} (at the sender)", Shown(entry.content));
            let path = entry.name.to_vec();
            return Ok(Ok(Done::Told(Failure { path, object: None, code: Code::Io, text })));
        }
        if has_temporary(entry.name) {
            let text = "this name is reserved for files that are not complete yet";
            return Ok(Err(Problem::new(Code::Forbidden, entry.name, text)));
        }
        let sole = if entry.header.flags & FLAG_SOLE == 0 { Sole::No } else { Sole::Yes };
        if self.options.dry_run {
            return self.rehearse(entry, sole);
        }
        let target = self.place.target(&mut self.directories, entry.name, sole)?;
        let directories = &mut self.directories;
        let result = match entry.header.kind {
            EntryKind::Directory => {
                let made = Making::Create(self.policy.directory_mode(&entry.header));
                directories.open(&target.root, target.path, made).map(|_| Done::Stored(0))
            }
            EntryKind::DirectoryFinal => {
                self.finals.push(&entry.header, target.path);
                Ok(Done::Stored(0))
            }
            EntryKind::InlineFile | EntryKind::Symlink | EntryKind::Object | EntryKind::Failed => {
                let (parent, leaf) = split(target.path);
                let made = Making::Create(mode(0o700));
                directories.open(&target.root, parent, made).and_then(|parent| {
                    let mut store = Store {
                        names: &mut self.names,
                        options: &self.options,
                        policy: self.policy,
                        volumes: &mut directories.volumes,
                        staged: &mut self.staged,
                        objects: &mut self.objects,
                    };
                    store.entry(parent, leaf, entry)
                })
            }
        };
        Ok(result)
    }
}

impl Receiver {
    fn rehearse(&mut self, entry: &Entry<'_>, sole: Sole) -> Result<Result<Done, Problem>, TreeError> {
        if entry.header.kind == EntryKind::DirectoryFinal {
            self.finals.push(&entry.header, entry.name);
            return Ok(Ok(Done::Stored(0)));
        }
        let target = self.place.look(&mut self.directories, entry.name, sole)?;
        let change = rehearse(&mut self.directories, target.as_ref(), &self.options, entry);
        Ok(change.map(|change| match change {
            Some(change) => {
                let is_file = matches!(entry.header.kind, EntryKind::InlineFile | EntryKind::Object);
                let bytes = if is_file { entry.header.size } else { 0 };
                let name = if entry.name.is_empty() { b"." } else { entry.name };
                self.totals.changes.note(change, name, bytes);
                Done::Stored(0)
            }
            None => Done::Skipped,
        }))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.staged.discard(&self.names);
        self.objects.leave_all(&self.names);
    }
}

fn finish_directory(
    directories: &mut Directories,
    directory: &Directory,
    header: &EntryHeader,
    path: &[u8],
    policy: Policy,
) -> Result<(), Problem> {
    let failed = |errno| Problem::system(errno, "set the directory's mode and time", path);
    let now = fstat(&directory.descriptor).map_err(failed)?;
    directories.volumes.mark(directory.volume);
    policy.finish_directory(&directory.descriptor, header, &now).map_err(failed)
}

fn stop(problem: Problem) -> Problem {
    Problem { stops_job: true, ..problem }
}

fn error(problem: Problem, path: &[u8], object: Option<u64>) -> TreeError {
    if problem.stops_job {
        TreeError::Destination(problem.of(path, object))
    } else {
        TreeError::Entry(problem.of(path, object))
    }
}
