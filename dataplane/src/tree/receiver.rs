//! The receiver's end: packs become a tree. Nothing is visible under its final name before it is complete,
//! verified and durable; nothing outside of the root is ever opened.
use super::attributes::{Attributes, Kinds};
use super::changes::Changes;
use super::directories::{Directories, Making};
use super::failure::{Failure, Problem, TreeError};
use super::filters::Filters;
use super::finals::Finals;
use super::links::Links;
use super::metadata::{Policy, may_chown, mode};
use super::name::{Shown, TemporaryNames, has_temporary, split};
use super::objects::{Objects, OpenedObject};
use super::options::Options;
use super::owners::OwnerIds;
use super::place::{Place, Root, Sole};
use super::sent::Sent;
use super::staged::Staged;
use super::store::{Done, Store};
use dwcp_abi::wire::{Code, Entry, EntryKind, FLAG_LEFT_OUT, FLAG_SOLE, Pack, open_pack};

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
    pub(super) place: Place,
    pub(super) names: TemporaryNames,
    pub(super) options: Options,
    pub(super) policy: Policy,
    pub(super) directories: Directories,
    pub(super) staged: Staged,
    pub(super) objects: Objects,
    pub(super) finals: Finals,
    /// What a sweep spares, beside what was sent.
    pub(super) filters: Filters,
    pub(super) sent: Sent,
    /// Failures after which nothing may be deleted: something may be missing here that the source has.
    pub(super) errors: u64,
    /// Hard links that wait for what they lead to.
    pub(super) links: Links,
    pub(super) attributes: Attributes,
    owner_ids: OwnerIds,
    pub(super) totals: Totals,
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
        let mut totals = Totals::default();
        let mut options = options;
        if options.owner && !may_chown() {
            totals.changes.notes.add(NO_OWNERS);
            (options.owner, options.special_bits) = (false, false);
        }
        let kinds = Kinds { users: options.xattrs, lists: options.acls };
        Ok(Self {
            place,
            names: TemporaryNames::new(tag),
            options,
            policy: Policy::new(options.special_bits, options.owner, options.group),
            directories,
            staged: Staged::default(),
            objects: Objects::default(),
            finals: Finals::new(options.finals_bytes_max),
            filters: Filters::default(),
            sent: Sent::new(options.names_max),
            errors: 0,
            links: Links::new(LINKS_BYTES_MAX),
            attributes: Attributes::new(kinds),
            owner_ids: OwnerIds::default(),
            totals,
        })
    }

    /// Has something said at the job's end, though nothing failed.
    pub fn note(&mut self, line: &str) {
        self.totals.changes.notes.add(line);
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
        let taken_over = (self.policy, &self.attributes);
        match open.commit(&self.names, taken_over, &mut self.directories.volumes) {
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
        let entry = &if self.policy.owns() {
            Entry { header: self.owner_ids.header(entry), ..*entry }
        } else {
            *entry
        };
        let target = self.place.target(&mut self.directories, entry.name, sole)?;
        let directories = &mut self.directories;
        let result = match entry.header.kind {
            EntryKind::Directory => {
                let made = Making::Create(self.policy.directory_mode(&entry.header));
                directories.open(&target.root, target.path, made).map(|_| Done::Stored(0))
            }
            EntryKind::DirectoryFinal => {
                self.finals.push(&entry.header, target.path, entry.extra);
                Ok(Done::Stored(0))
            }
            EntryKind::HardLink => {
                let asked = self.options.hard_links && sole == Sole::No;
                let fits = asked && self.links.push(target.path, entry.content);
                match (asked, fits) {
                    (true, true) => Ok(Done::Stored(0)),
                    (true, false) => Err(Problem::new(Code::Busy, entry.name, TOO_MANY_LINKS)),
                    (false, _) => {
                        Err(Problem::new(Code::Protocol, entry.name, "a hard link that nobody asked for"))
                    }
                }
            }
            EntryKind::InlineFile
            | EntryKind::Symlink
            | EntryKind::Object
            | EntryKind::Special
            | EntryKind::Failed => {
                let (parent, leaf) = split(target.path);
                let made = Making::Create(mode(0o700));
                directories.open(&target.root, parent, made).and_then(|parent| {
                    let mut store = Store {
                        names: &mut self.names,
                        options: &self.options,
                        policy: self.policy,
                        attributes: &self.attributes,
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

pub(super) fn stop(problem: Problem) -> Problem {
    Problem { stops_job: true, ..problem }
}

pub(super) fn error(problem: Problem, path: &[u8], object: Option<u64>) -> TreeError {
    if problem.stops_job {
        TreeError::Destination(problem.of(path, object))
    } else {
        TreeError::Entry(problem.of(path, object))
    }
}

/// Memory for hard links: about half a million of them.
const LINKS_BYTES_MAX: usize = 64 << 20;
const TOO_MANY_LINKS: &str = "the job has too many hard links to be made: send its parts one by one";
const NO_OWNERS: &str = "owners are not kept: dwcp-dataplane may not give files away; give its service CAP_CHOWN, CAP_FOWNER \
    and CAP_FSETID, as /usr/share/doc/dwcp/examples/owners.conf does, or leave --owner out";
