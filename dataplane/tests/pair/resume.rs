//! What arrived before a `kill -9` is not sent again by the next attempt, and is never mixed with another source.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dwcp_abi::disk::{PARTIAL_HEADER_BYTES, PartialHeader, PartialLayout, written_runs};
use dwcp_abi::link::{CancelJob, Command, Outcome, PauseJob};
use dwcp_abi::wire::CHUNK_BYTES;
use tempfile::TempDir;

use crate::data::{assert_no_lie, assert_same, bytes, files, is_temporary, tree};
use crate::events::End;
use crate::node::{CLEAR, Node, address, pair_over};
use crate::valve::Valve;

const SIZES: [usize; 4] = [100, 70_000, 1_500_000, 24_000_001];
const TOTAL: u64 = 100 + 70_000 + 1_500_000 + 24_000_001;
/// Packs with small files, frames and heads of chunks.
const BESIDES: u64 = 200_000;
/// Enough for a good part of it.
const FIRST: u64 = 9_000_000;
const LARGEST: &str = "3-24000001";

/// Two nodes with a valve between them, and job 1 in mid-transfer with a few chunks of the largest file there.
struct Scene {
    directory: TempDir,
    sender: Node,
    receiver: Node,
    valve: Valve,
}

impl Scene {
    fn new() -> Self {
        let listen = address();
        let valve = Valve::new(&listen, FIRST);
        let (directory, mut sender, mut receiver) = pair_over(CLEAR, &listen, &valve.address);
        sender.transport.initial_streams = 2;
        sender.know(&[receiver.named("peer", &valve.address)]);
        let source = directory.path().join("source");
        tree(&source, &SIZES);
        sender.send(1, &[&source], "data/");
        let arrived = receiver.export().join("source");
        receiver.until("a few chunks are there", |_| held(&arrived) > 2 * u64::from(CHUNK_BYTES));
        Self { directory, sender, receiver, valve }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn arrived(&self) -> PathBuf {
        self.receiver.export().join("source")
    }

    fn largest(&self) -> PathBuf {
        self.source().join(LARGEST)
    }

    fn restart_receiver(&mut self) {
        self.receiver.restart();
        self.receiver.know(&[self.sender.named("peer", "")]);
    }

    fn restart_sender(&mut self) {
        self.sender.restart();
        let address = self.valve.address.clone();
        self.sender.know(&[self.receiver.named("peer", &address)]);
    }

    fn attempt(&mut self, attempt: u32) -> End {
        let source = self.source();
        self.sender.send_again((1, attempt), &[&source], "data/");
        let end = self.sender.end_of(1);
        assert_eq!(end.attempt, attempt);
        end
    }

    /// The next attempt sends what was not there, and all is there in the end.
    fn assert_goes_on(mut self, there: u64) {
        self.valve.open();
        let end = self.attempt(2);
        end.assert_done();
        assert_same(&self.source(), &self.arrived());
        let counts = end.counts;
        assert!(counts.bytes_resumed > 0, "{counts:?}");
        assert!(counts.bytes_wire <= TOTAL - there + BESIDES, "{there} were there: {counts:?}");
        assert_eq!((counts.bytes_total, counts.bytes_resent), (TOTAL, 0));
    }
}

/// Bytes of large files that are there: of those with their final names, and what partial files say of themselves.
fn held(directory: &Path) -> u64 {
    let large = SIZES.into_iter().filter(|&size| size > CHUNK_BYTES as usize);
    let layouts: Vec<_> = large.map(|size| PartialLayout::of(size as u64).unwrap()).collect();
    let of = |name: &PathBuf| {
        // It may get its name, or go, at any time.
        let file = File::open(directory.join(name)).ok()?;
        let length = file.metadata().ok()?.len();
        if !is_temporary(name) {
            return Some(if length > u64::from(CHUNK_BYTES) { length } else { 0 });
        }
        let layout = layouts.iter().find(|layout| layout.end == length)?;
        let mut header = [0; PARTIAL_HEADER_BYTES];
        file.read_exact_at(&mut header, layout.header_at).ok()?;
        let header = PartialHeader::from_bytes(&header).ok()?;
        let mut map = vec![0; layout.chunks as usize];
        file.read_exact_at(&mut map, layout.written_at).ok()?;
        let chunk = u64::from(CHUNK_BYTES);
        Some(written_runs(&map).map(|(first, end)| (end * chunk).min(header.size) - first * chunk).sum())
    };
    if !directory.exists() {
        return 0;
    }
    files(directory).iter().filter_map(of).sum()
}

#[test]
fn a_receiver_that_was_killed_goes_on_from_what_it_has() {
    let mut scene = Scene::new();
    scene.receiver.kill();
    let there = held(&scene.arrived());
    assert_no_lie(&scene.source(), &scene.arrived());
    scene.restart_receiver();
    scene.valve.open();
    scene.sender.end_of(1).assert_says(Outcome::Interrupted, &["the peer was started anew"]);
    scene.assert_goes_on(there);
}

#[test]
fn a_receiver_goes_on_with_a_sender_that_was_killed() {
    let mut scene = Scene::new();
    scene.sender.kill();
    let there = held(&scene.arrived());
    scene.restart_sender();
    scene.assert_goes_on(there);
}

#[test]
fn both_ends_killed_go_on_and_over_a_further_interruption_too() {
    let mut scene = Scene::new();
    scene.sender.kill();
    scene.receiver.kill();
    let there = held(&scene.arrived());
    scene.restart_receiver_first();
    scene.valve.allow(4_000_000);
    let source = scene.source();
    scene.sender.send_again((1, 2), &[&source], "data/");
    let arrived = scene.arrived();
    scene.receiver.until("more is there", |_| held(&arrived) > there + 2 * u64::from(CHUNK_BYTES));
    scene.receiver.kill();
    let there = held(&arrived);
    scene.restart_receiver();
    scene.valve.open();
    scene.sender.end_of(1);
    let end = scene.attempt(3);
    end.assert_done();
    assert_same(&source, &arrived);
    assert!(end.counts.bytes_wire <= TOTAL - there + BESIDES, "{there} were there: {:?}", end.counts);
}

impl Scene {
    fn restart_receiver_first(&mut self) {
        self.receiver.restart();
        self.restart_sender();
        self.receiver.know(&[self.sender.named("peer", "")]);
    }
}

#[test]
fn a_source_that_changed_meanwhile_is_sent_from_its_start() {
    let mut scene = Scene::new();
    scene.sender.kill();
    fs::write(scene.largest(), bytes(SIZES[3], 77)).unwrap();
    scene.restart_sender();
    scene.valve.open();
    let end = scene.attempt(2);
    end.assert_done();
    assert_same(&scene.source(), &scene.arrived());
    assert!(end.counts.bytes_wire > SIZES[3] as u64, "{:?}", end.counts);
}

#[test]
fn a_source_that_changed_behind_its_times_is_noticed_and_never_mixed() {
    let mut scene = Scene::new();
    scene.sender.kill();
    let times = fs::metadata(scene.largest()).unwrap().modified().unwrap();
    fs::write(scene.largest(), bytes(SIZES[3], 77)).unwrap();
    File::options().write(true).open(scene.largest()).unwrap().set_modified(times).unwrap();
    scene.restart_sender();
    scene.valve.open();
    scene.attempt(2).assert_says(Outcome::Interrupted, &["from its start"]);
    assert_no_lie(&scene.source(), &scene.arrived());
    scene.attempt(3).assert_done();
    assert_same(&scene.source(), &scene.arrived());
}

/// What a paused job has moved is neither sent again nor thrown away.
#[test]
fn a_job_that_is_paused_goes_on_from_there() {
    let mut scene = Scene::new();
    scene.sender.order(0, &Command::Pause(PauseJob { job: 1 }));
    scene.sender.end_of(1).assert_says(Outcome::Interrupted, &["paused by the operator"]);
    let there = held(&scene.arrived());
    scene.assert_goes_on(there);
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing() {
    let mut scene = Scene::new();
    scene.receiver.kill();
    scene.restart_receiver();
    scene.valve.allow(2_000_000);
    scene.sender.end_of(1);
    let source = scene.source();
    scene.sender.send_again((1, 2), &[&source], "data/");
    scene.sender.progress_of(1);
    scene.sender.order(0, &Command::Cancel(CancelJob { job: 1 }));
    scene.valve.open();
    assert_eq!(scene.sender.end_of(1).outcome, Outcome::Cancelled);
    let arrived = scene.arrived();
    scene
        .receiver
        .until("the leftovers are gone", |_| !files(&arrived).iter().any(|name| is_temporary(name)));
    assert_no_lie(&source, &arrived);
}
