//! The receiver's end: packs become a tree. Nothing is visible under its final name before it is complete,
//! verified and durable; nothing outside of the root is ever opened.
use super::directories::{Directories, Directory, Making};
use super::failure::{Failure, Problem, TreeError};
use super::finals::Finals;
use super::metadata::{Policy, mode};
use super::name::{Shown, TemporaryNames, has_temporary, split};
use super::objects::{Objects, OpenedObject};
use super::place::{Place, Root, Sole};
use super::staged::Staged;
use super::store::{Done, Store};
use dwcp_abi::wire::{Code, Entry, EntryHeader, EntryKind, FLAG_SOLE, Pack, open_pack};
use nix::sys::stat::fstat;
use std::sync::Arc;

/// What a receiver takes over, and its bounds.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A regular file that has the size and time of an entry already stays as it is.
    pub skip_unchanged: bool,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            skip_unchanged: false,
            baselines: false,
            placed_since: None,
            special_bits: false,
            owners: false,
            objects_max: 256,
            directories_max: 32,
            finals_bytes_max: 64 << 20,
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
    /// What failed in [`Receiver::finish`] itself, at most 100 of it.
    pub failures: Vec<Failure>,
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
            totals: Totals::default(),
        })
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
        self.objects.discard_all(&self.names);
        self.finals.sort_by_depth();
        let mut failures = self.publish()?;
        failures.truncate(FAILURES_KEPT_MAX);
        while let Some((header, path)) = self.finals.last() {
            if let Some(root) = self.place.opened()
                && let Err(problem) =
                    finish_directory(&mut self.directories, root, &header, path, self.policy)
            {
                self.totals.failed += 1;
                if failures.len() < FAILURES_KEPT_MAX {
                    failures.push(problem.of(path, None));
                }
            }
            self.finals.pop();
        }
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
        Ok(Totals { failures, ..totals })
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
                Ok(Done::Told(failure)) => unpacked.failures.push(failure),
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

impl Drop for Receiver {
    fn drop(&mut self) {
        self.staged.discard(&self.names);
        self.objects.leave_all(&self.names);
    }
}

fn finish_directory(
    directories: &mut Directories,
    root: &Arc<Directory>,
    header: &EntryHeader,
    path: &[u8],
    policy: Policy,
) -> Result<(), Problem> {
    let directory = directories.open(root, path, Making::Refuse)?;
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

const FAILURES_KEPT_MAX: usize = 100;
