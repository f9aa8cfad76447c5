//! The end of a receiver's job: what had to wait until everything else is in place. And its rehearsal, which has no other
//! part that changes anything.
use super::directories::{Directories, Directory, Making};
use super::failure::{Failures, Problem, TreeError};
use super::links::Linking;
use super::metadata::Policy;
use super::place::Sole;
use super::receiver::{Receiver, Totals, error, stop};
use super::rehearsal::rehearse;
use super::store::Done;
use super::sweep::{Sweep, Sweeping};
use dwcp_abi::wire::{Code, Entry, EntryHeader, EntryKind};
use nix::sys::stat::fstat;

impl Receiver {
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
        self.make_links(&mut failures);
        self.finals.sort_by_depth();
        let sweeping = self.sweeping(&mut failures);
        self.finish_directories(sweeping, &mut failures);
        let before = failures.count;
        self.attributes.tell(&mut failures);
        self.totals.failed += failures.count - before;
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

    fn make_links(&mut self, failures: &mut Failures) {
        let Some(root) = self.place.opened().filter(|_| !self.options.dry_run) else { return };
        let before = failures.count;
        let mut linking = Linking { root, directories: &mut self.directories, names: &mut self.names };
        self.links.make(&mut linking, failures);
        let failed = failures.count - before;
        self.totals.failed += failed;
        self.errors += failed;
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
        let Self { place, directories, options, policy, attributes, finals, sent, filters, totals, .. } =
            self;
        let Some(root) = place.opened() else { return };
        let before = failures.count;
        while let Some((header, path, extra)) = finals.last() {
            let finished = directories.open(root, path, Making::Refuse).and_then(|directory| {
                if let Some(sweeping) = sweeping {
                    let changes = &mut totals.changes;
                    Sweep { sent, filters, sweeping, changes, failures }.directory(&directory, path);
                }
                match options.dry_run {
                    true => Ok(()),
                    false => {
                        attributes.apply(&directory.descriptor, extra, path);
                        finish_directory(directories, &directory, &header, path, *policy)
                    }
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
}

impl Receiver {
    pub(super) fn rehearse(
        &mut self,
        entry: &Entry<'_>,
        sole: Sole,
    ) -> Result<Result<Done, Problem>, TreeError> {
        if entry.header.kind == EntryKind::DirectoryFinal {
            self.finals.push(&entry.header, entry.name, &[]);
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
