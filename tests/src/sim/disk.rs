//! Files and trees of the fake driver: what the operations of a worker do when their time has come.
use std::rc::Rc;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    Code, ContentId, EARLY_PACKS_MAX, Held, PACK_HEAD_BYTES, PackHead, TASK_PAYLOAD_MAX, TreeOptions,
};
use dwcp_engine::{
    FileId, FinalCheck, FoundObject, Hash, JobKey, Leftovers, OpenedObject, PackId, Place, Source,
    SubtreeDigests, TaskId, Time, ZERO_CHUNK,
};

use super::node::{Against, File, TreeObject};
use super::op::{Completion, Op, Piece};
use super::partial::Partial;
use super::scenario::MS;
use super::source::SMALL_MAX;
use super::world::{Event, World};

/// Records of a fake pack: kind, entry, then what the kind says.
pub(super) const SMALL: u8 = 1;
pub(super) const LARGE: u8 = 2;
pub(super) const FINAL: u8 = 3;
pub(super) const FAILED: u8 = 4;
/// How often an entry that changes does so between two reads of it.
const CHANGES_PER_MILLE: u64 = 300;
/// How often what is written is flushed.
const FLUSHES_PER_MILLE: u64 = 150;
/// How often a sender has what its receiver has.
const FOUND_PER_MILLE: u64 = 800;
const VERSIONS_MAX: usize = 5;
/// Between two looks of an early pack for its job.
const EARLY_LOOK: Time = 50 * MS;
/// Largest object that a fake tree takes from anybody.
const OBJECT_MAX: u64 = 64 << 20;

/// How a job is named where a driver would find paths.
pub(super) fn path_of(job: usize) -> Vec<u8> {
    [&b"DWCPSIM:"[..], &(job as u64).to_le_bytes()].concat()
}

fn job_of(path: &[u8]) -> Option<usize> {
    let number = path.strip_prefix(b"DWCPSIM:")?;
    Some(u64::from_le_bytes(number.try_into().ok()?) as usize)
}

impl World {
    /// An operation ends: does it, and hands over what came of it.
    pub(super) fn execute(&mut self, node: usize, worker: usize, op: Op) {
        let completion = match op {
            Op::Read(piece) => Some(self.execute_read(node, worker, piece)),
            Op::Write(piece) => Some(self.execute_write(node, worker, piece)),
            Op::OpenScanner { job, serial, sources } => self.open_scanner(node, job, serial, sources),
            Op::Fill { job, serial } => self.fill(node, job, serial),
            Op::FillFinals { job, serial } => self.fill_finals(node, job, serial),
            Op::Prepare { job, serial, object, file } => self.prepare(node, job, serial, object, file),
            Op::CheckSource { job, serial, object } => self.check_source(node, job, serial, object),
            Op::OpenReceiver { job, serial, destination } => {
                self.open_receiver(node, job, serial, destination)
            }
            Op::Unpack { task, job, attempt, patience, buffer, length } => {
                let tree = self.nodes[node].trees.get(&job);
                let bytes = &self.nodes[node].workers[worker].buffers[buffer.0 as usize];
                let head = PackHead::decode(&bytes[..PACK_HEAD_BYTES]);
                let is_early = head.is_ok_and(|head| head.number < EARLY_PACKS_MAX);
                if patience > 0 && tree.is_none_or(|tree| tree.attempt == attempt && !tree.ready) {
                    let patience = patience - 1;
                    let op = Op::Unpack { task, job, attempt, patience, buffer, length };
                    let epoch = self.nodes[node].epoch;
                    return self.after(EARLY_LOOK, Event::Op { node, epoch, worker, op });
                }
                if is_early && tree.is_none_or(|tree| tree.attempt == attempt && !tree.ready) {
                    self.nodes[node].workers[worker].busy.remove(&buffer);
                    return self.complete(node, worker, Completion::Unclaimed { task });
                }
                self.nodes[node].workers[worker].busy.remove(&buffer);
                let bytes = self.nodes[node].workers[worker].buffers[buffer.0 as usize].clone();
                Some(self.unpack(node, task, (job, attempt), &bytes[..PACK_HEAD_BYTES + length as usize]))
            }
            Op::Commit { job, serial, object, verify } => self.commit(node, job, serial, object, verify),
            Op::Finish { job, serial } => self.finish(node, job, serial),
        };
        if let Some(completion) = completion {
            self.complete(node, worker, completion);
        }
    }

    fn execute_read(&mut self, node: usize, worker: usize, piece: Piece) -> Completion {
        let Piece { task, buffer, .. } = piece;
        self.nodes[node].workers[worker].busy.remove(&buffer);
        Completion::Read { task, result: self.read(node, worker, piece) }
    }

    fn read(&mut self, node: usize, worker: usize, piece: Piece) -> Result<Hash, Code> {
        let Some(&File::Source { job, entry, .. }) = self.nodes[node].files.get(&piece.file) else {
            return Err(Code::Io);
        };
        let changes = self.faults_on() && self.rng.chance(CHANGES_PER_MILLE);
        let node = &mut self.nodes[node];
        let entry = &mut self.jobs[job].entries[entry];
        if changes && entry.will_change && entry.versions.len() < VERSIONS_MAX {
            entry.change(&mut self.rng);
        }
        assert!(piece.offset + u64::from(piece.length) <= entry.size(), "a read beyond the end of its file");
        let range = piece.offset as usize..piece.offset as usize + piece.length as usize;
        let end = piece.offset + u64::from(piece.length);
        if entry.read_fails && end == entry.size() {
            return Err(Code::Io);
        }
        let bytes = match piece.source {
            Source::Hole => &ZERO_CHUNK[..piece.length as usize],
            Source::File => &entry.current()[range],
        };
        if piece.source == Source::File {
            let buffer = &mut node.workers[worker].buffers[piece.buffer.0 as usize];
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
        Ok(SubtreeDigests::leaf(bytes, piece.offset, piece.object_size))
    }

    fn execute_write(&mut self, node: usize, worker: usize, piece: Piece) -> Completion {
        let Piece { task, buffer, .. } = piece;
        self.nodes[node].workers[worker].busy.remove(&buffer);
        Completion::Written { task, result: self.write(node, worker, piece) }
    }

    fn write(&mut self, index: usize, worker: usize, piece: Piece) -> Result<Hash, Code> {
        let full = self.is_full(index);
        let node = &mut self.nodes[index];
        let flushes = self.rng.chance(FLUSHES_PER_MILLE);
        let Some(File::Partial { tree, partial, writes, committing }) = node.files.get_mut(&piece.file)
        else {
            return Err(Code::Io);
        };
        assert!(!*committing, "a chunk is written into a file that is being committed");
        *writes -= 1;
        let object = node.trees.get(tree).and_then(|tree| {
            let object = tree.objects.values().find(|object| object.file == Some(piece.file))?;
            Some(&self.jobs[tree.job?].entries[object.entry])
        });
        if object.is_some_and(|entry| entry.write_fails) {
            return Err(Code::Io);
        }
        if full {
            return Err(Code::NoSpace);
        }
        let range = piece.offset as usize..piece.offset as usize + piece.length as usize;
        let place = partial.bytes.get_mut(range).expect("a write beyond the end of its file");
        let payload = match piece.source {
            Source::Hole => &ZERO_CHUNK[..piece.length as usize],
            Source::File => {
                let buffer = &node.workers[worker].buffers[piece.buffer.0 as usize];
                &buffer[dwcp_abi::wire::CHUNK_HEAD_BYTES..][..piece.length as usize]
            }
        };
        place.copy_from_slice(payload);
        partial.wrote(piece.offset, flushes);
        Ok(SubtreeDigests::leaf(payload, piece.offset, piece.object_size))
    }

    fn open_scanner(
        &mut self,
        node: usize,
        key: JobKey,
        serial: u64,
        sources: Option<Vec<u8>>,
    ) -> Option<Completion> {
        let job = match sources {
            Some(path) => job_of(&path).filter(|&job| self.is_fetched_from(job, node, key)),
            None => self.job_of_key(node, key),
        };
        let entries = job.map_or(0, |job| self.jobs[job].entries.len());
        let mut order: Vec<usize> = (0..entries).collect();
        self.rng.shuffle(&mut order);
        let finals = self.rng.below(3);
        let scanner = self.nodes[node].scanners.get_mut(&key).filter(|scanner| scanner.serial == serial)?;
        (scanner.job, scanner.order, scanner.finals) = (job, order, finals);
        let result = if job.is_some() { Ok(()) } else { Err(Code::NotFound) };
        Some(Completion::ScannerOpened { job: key, serial, result })
    }

    fn fill(&mut self, node: usize, key: JobKey, serial: u64) -> Option<Completion> {
        let most = self.rng.between(1, 8) as usize;
        let scanner = self.nodes[node].scanners.get(&key).filter(|scanner| scanner.serial == serial)?;
        let job = scanner.job?;
        let range = scanner.next..(scanner.next + most).min(scanner.order.len());
        let first = scanner.next == 0;
        let (end, chosen) = (range.end == scanner.order.len(), scanner.order[range.clone()].to_vec());
        let (mut pack, mut bytes, mut objects) = (Vec::new(), 0, Vec::new());
        for &entry in &chosen {
            let (large, version) = {
                let entry = &self.jobs[job].entries[entry];
                (entry.large, entry.versions.len())
            };
            pack.push(if large { LARGE } else { SMALL });
            pack.extend_from_slice(&(entry as u32).to_le_bytes());
            let content = self.jobs[job].entries[entry].current().clone();
            if !large {
                pack.extend_from_slice(&(content.len() as u32).to_le_bytes());
                pack.extend_from_slice(&content);
                bytes += content.len() as u64;
                continue;
            }
            let file = FileId(self.nodes[node].number());
            self.nodes[node].files.insert(file, File::Source { job, entry, against: Against::Nothing });
            let scanner = self.nodes[node].scanners.get_mut(&key)?;
            let object = scanner.next_object;
            scanner.next_object += 1;
            scanner.objects.insert(object, (entry, version));
            let size = content.len() as u64;
            pack.extend_from_slice(&object.to_le_bytes());
            pack.extend_from_slice(&size.to_le_bytes());
            pack.extend_from_slice(&self.jobs[job].entries[entry].stamp().to_le_bytes());
            let extents = self.jobs[job].entries[entry].extents();
            objects.push(FoundObject { object, file, size, extents });
        }
        let failures = if first { self.jobs[job].scan_failures } else { 0 };
        for _ in 0..failures {
            pack.push(FAILED);
            pack.extend_from_slice(&0u32.to_le_bytes());
        }
        let id = self.store_pack(node, pack);
        let scanner = self.nodes[node].scanners.get_mut(&key)?;
        (scanner.next, scanner.busy) = (range.end, false);
        let entries = chosen.len() as u64 + failures;
        Some(Completion::Filled { job: key, serial, pack: id, entries, bytes, objects, failures, end })
    }

    fn store_pack(&mut self, node: usize, bytes: Vec<u8>) -> PackId {
        let id = PackId(self.nodes[node].number());
        self.nodes[node].packs.insert(id, Rc::new(bytes));
        id
    }

    fn fill_finals(&mut self, node: usize, key: JobKey, serial: u64) -> Option<Completion> {
        let scanner = self.nodes[node].scanners.get_mut(&key).filter(|scanner| scanner.serial == serial)?;
        scanner.busy = false;
        let entries = scanner.finals;
        scanner.finals = scanner.finals.saturating_sub(1);
        let end = scanner.finals == 0;
        let record = [&[FINAL][..], &0u32.to_le_bytes()].concat();
        let pack = self.store_pack(node, record.repeat(entries as usize));
        Some(Completion::FinalsFilled { job: key, serial, pack, entries, end })
    }

    /// Looks for what the receiver has, and finds it mostly.
    fn prepare(
        &mut self,
        node: usize,
        key: JobKey,
        serial: u64,
        object: u64,
        file: FileId,
    ) -> Option<Completion> {
        self.nodes[node].scanners.get(&key).filter(|scanner| scanner.serial == serial)?;
        let found = self.rng.chance(FOUND_PER_MILLE);
        if let Some(File::Source { against, .. }) = self.nodes[node].files.get_mut(&file)
            && *against == Against::Nothing
            && found
        {
            *against = Against::Baseline;
        }
        Some(Completion::Prepared { job: key, serial, object })
    }

    fn check_source(&mut self, node: usize, key: JobKey, serial: u64, object: u64) -> Option<Completion> {
        let scanner = self.nodes[node].scanners.get_mut(&key).filter(|scanner| scanner.serial == serial)?;
        let &(entry, version) = scanner.objects.get(&object)?;
        let entry = &self.jobs[scanner.job?].entries[entry];
        let changed = entry.versions.len() != version && !entry.sneaky;
        if changed {
            scanner.changed.insert(object);
        }
        let check = if changed { FinalCheck::Changed } else { FinalCheck::Unchanged };
        Some(Completion::SourceChecked { job: key, serial, object, check })
    }

    fn open_receiver(
        &mut self,
        node: usize,
        key: JobKey,
        serial: u64,
        destination: Option<Vec<u8>>,
    ) -> Option<Completion> {
        let job = match destination {
            Some(path) => job_of(&path).filter(|&job| self.is_sent_to(job, node, key)),
            None => self.job_of_key(node, key),
        };
        let tree = self.nodes[node].trees.get_mut(&key).filter(|tree| tree.serial == serial)?;
        (tree.job, tree.ready) = (job, job.is_some());
        let result = if job.is_some() { Ok(()) } else { Err(Code::Forbidden) };
        Some(Completion::ReceiverOpened { job: key, serial, result })
    }

    fn unpack(
        &mut self,
        node: usize,
        task: TaskId,
        (key, attempt): (JobKey, u32),
        bytes: &[u8],
    ) -> Completion {
        let nothing = |fatal| Completion::Unpacked {
            task,
            entries: 0,
            bytes: 0,
            opened: Vec::new(),
            failures: 0,
            fatal,
        };
        let head = PackHead::decode(&bytes[..PACK_HEAD_BYTES]).expect("the driver has read the head");
        let full = self.is_full(node);
        let Some(tree) = self.nodes[node].trees.get_mut(&key) else { return nothing(None) };
        if !tree.ready || tree.attempt != attempt {
            return nothing(None);
        }
        if full {
            return nothing(Some(Code::NoSpace));
        }
        let again = !tree.packs.insert(head.number);
        let (mut entries, mut plain, mut failures, mut opened) = (0, 0, 0, Vec::new());
        let mut rest = &bytes[PACK_HEAD_BYTES..];
        while let Some((&kind, tail)) = rest.split_first() {
            let Some((entry, tail)) = tail.split_first_chunk::<4>() else {
                return nothing(Some(Code::Protocol));
            };
            let entry = u32::from_le_bytes(*entry) as usize;
            rest = match kind {
                FINAL => tail,
                FAILED => {
                    (entries, failures) = (entries + 1, failures + 1);
                    tail
                }
                SMALL => {
                    let Some((content, tail)) = small(tail) else { return nothing(Some(Code::Protocol)) };
                    (entries, plain) = (entries + 1, plain + content.len() as u64);
                    self.store_small(node, key, entry, content);
                    tail
                }
                LARGE => {
                    let Some((object, tail)) = tail.split_first_chunk::<8>() else {
                        return nothing(Some(Code::Protocol));
                    };
                    let Some((size, tail)) = tail.split_first_chunk::<8>() else {
                        return nothing(Some(Code::Protocol));
                    };
                    let Some((stamp, tail)) = tail.split_first_chunk::<8>() else {
                        return nothing(Some(Code::Protocol));
                    };
                    let (object, size) = (u64::from_le_bytes(*object), u64::from_le_bytes(*size));
                    let stamp = u64::from_le_bytes(*stamp);
                    entries += 1;
                    let (place, held) = self.place(node, key, entry, object, (size, stamp));
                    failures += u64::from(matches!(place, Place::Refused(_)));
                    let baseline = self.baseline(node, key, place);
                    opened.push(OpenedObject { object, place, size, held, baseline });
                    tail
                }
                _ => return nothing(Some(Code::Protocol)),
            };
        }
        if again {
            failures = 0;
        }
        Completion::Unpacked { task, entries, bytes: plain, opened, failures, fatal: None }
    }

    /// What is under an object's name already, where the sender wants to know.
    fn baseline(&mut self, node: usize, key: JobKey, place: Place) -> Held {
        let asked = self.nodes[node].trees.get(&key).is_some_and(|tree| tree.baselines);
        if !asked || !matches!(place, Place::Open(_)) || self.rng.chance(300) {
            return Held::NOTHING;
        }
        Held { content: ContentId([7; 16]), length: self.rng.between(1, 1 << 30) }
    }

    fn store_small(&mut self, node: usize, key: JobKey, entry: usize, content: &[u8]) {
        let Some(job) = self.nodes[node].trees.get(&key).and_then(|tree| tree.job) else { return };
        if !self.is_hostile(self.jobs[job].from()) {
            assert!(self.jobs[job].entries[entry].can_be(content), "a small file arrived with other bytes");
        }
        self.nodes[node].visible.insert((job, entry), Rc::new(content.to_vec()));
    }

    /// Makes a place for an announced object, or says again which one it has.
    fn place(
        &mut self,
        node: usize,
        key: JobKey,
        entry: usize,
        object: u64,
        (size, stamp): (u64, u64),
    ) -> (Place, Vec<(u64, u64)>) {
        let file = FileId(self.nodes[node].number());
        let node = &mut self.nodes[node];
        let nowhere = (Place::Refused(Code::Io), Vec::new());
        let Some(tree) = node.trees.get_mut(&key) else { return nowhere };
        if let Some(known) = tree.objects.get(&object) {
            return (known.place, Vec::new());
        }
        let Some(job) = tree.job else { return nowhere };
        let source = self.jobs[job].entries.get(entry);
        // Only this job puts anything under this name: what a former attempt has put there stays.
        let placed = tree.attempt > 1 && source.is_some_and(|entry| !entry.will_change);
        let held = (tree.options.has(TreeOptions::SKIP_UNCHANGED) || placed)
            && node.visible.contains_key(&(job, entry));
        let refused = source.is_none_or(|entry| entry.refused) || size > OBJECT_MAX;
        let place = match (held, refused) {
            (true, _) => Place::Held,
            (false, true) => {
                tree.failures += 1;
                tree.text = format!("entry {entry}: not allowed");
                Place::Refused(Code::Forbidden)
            }
            (false, false) => Place::Open(file),
        };
        let (mut object_file, mut held) = (None, Vec::new());
        if place == Place::Open(file) {
            let partial = Partial::open(node.leftovers.remove(&(job, entry)), (job, entry), (size, stamp));
            held = partial.held();
            self.resumed += u64::from(!held.is_empty());
            node.files.insert(file, File::Partial { tree: key, partial, writes: 0, committing: false });
            object_file = Some(file);
        }
        tree.objects.insert(object, TreeObject { entry, file: object_file, place });
        (place, held)
    }

    fn commit(
        &mut self,
        index: usize,
        key: JobKey,
        serial: u64,
        object: u64,
        verify: Option<Hash>,
    ) -> Option<Completion> {
        let node = &mut self.nodes[index];
        let tree = node.trees.get_mut(&key).filter(|tree| tree.serial == serial)?;
        let job = tree.job?;
        let state = tree.objects.get_mut(&object)?;
        let file = state.file.take()?;
        let entry = state.entry;
        let Some(File::Partial { partial, .. }) = node.files.remove(&file) else { return None };
        let bytes = partial.bytes;
        let truth = &self.jobs[job].entries[entry];
        let (attempt, digest) = (tree.attempt, *blake3::hash(&bytes).as_bytes());
        let failure = if verify.is_some_and(|hash| digest != hash) {
            Some(Code::Integrity)
        } else if truth.commit_fails {
            Some(Code::Io)
        } else {
            None
        };
        let result = match failure {
            Some(code) => {
                tree.failures += 1;
                tree.text = format!("entry {entry}: cannot be committed");
                Err(code)
            }
            None => {
                let honest = !self.is_hostile(self.jobs[job].from());
                let truth = &self.jobs[job].entries[entry];
                assert!(
                    !honest || truth.can_be(&bytes),
                    "job {job} entry {entry} is visible with other bytes"
                );
                let announced = self.digests.get(&(job, attempt, object));
                assert!(
                    !honest || announced == Some(&digest),
                    "job {job} entry {entry} is not what was read"
                );
                self.nodes[index].visible.insert((job, entry), Rc::new(bytes));
                Ok(())
            }
        };
        Some(Completion::Committed { job: key, serial, object, result })
    }

    fn finish(&mut self, node: usize, key: JobKey, serial: u64) -> Option<Completion> {
        let node = &mut self.nodes[node];
        let tree = node.trees.get(&key).filter(|tree| tree.serial == serial)?;
        let (failures, text) = (tree.failures, tree.text.clone());
        node.close_tree(key, Leftovers::Remove);
        Some(Completion::Finished { job: key, serial, failures, text })
    }

    fn is_full(&self, node: usize) -> bool {
        self.scenario.disk_full && node == 0 && self.faults_on()
    }
}

/// A small entry's content, and what follows it.
fn small(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, tail) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (length <= SMALL_MAX).then_some(())?;
    tail.split_at_checked(length)
}

const _: () = assert!(8 * (SMALL_MAX + 32) < TASK_PAYLOAD_MAX as usize);
