//! The next version of a file is sent as its differences, and what the two ends believe of each other may be wrong.
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dwcp_abi::shm::WorkerCounter;
use tempfile::TempDir;

use crate::data::{assert_same, bytes};
use crate::events::End;
use crate::node::{CLEAR, Node, Shape, address, pair_over};
use crate::valve::Valve;

/// Longer than what is searched in memory as a whole.
const LARGE: usize = 40_000_000;
const SMALL: usize = 3_000_001;

struct Scene {
    directory: TempDir,
    sender: Node,
    receiver: Node,
    valve: Valve,
    jobs: u64,
}

impl Scene {
    /// Two nodes that have transferred two files, on a path that is slow enough for differences.
    fn new(shape: Shape) -> Self {
        let listen = address();
        let valve = Valve::new(&listen, u64::MAX);
        let (directory, mut sender, mut receiver) = pair_over(shape, &listen, &valve.address);
        for node in [&mut sender, &mut receiver] {
            node.transport.deltas = true;
            node.transport.pacing_bytes_per_s = 400_000_000 / 4;
        }
        sender.know(&[receiver.named("peer", &valve.address)]);
        receiver.know(&[sender.named("peer", "")]);
        let mut scene = Self { directory, sender, receiver, valve, jobs: 0 };
        fs::create_dir(scene.source()).unwrap();
        fs::write(scene.source().join("large"), bytes(LARGE, 1)).unwrap();
        fs::write(scene.source().join("small"), bytes(SMALL, 2)).unwrap();
        let first = scene.send();
        assert_eq!(first.counts.bytes_total, (LARGE + SMALL) as u64);
        assert!(first.counts.bytes_wire > first.counts.bytes_total, "nothing was there");
        scene.wait_for_kept(2);
        scene
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn arrived(&self, name: &str) -> PathBuf {
        self.receiver.export().join("source").join(name)
    }

    fn send(&mut self) -> End {
        self.jobs += 1;
        let source = self.source();
        self.sender.send(self.jobs, &[&source], "data/");
        let end = self.sender.end_of(self.jobs);
        end.assert_done();
        assert_same(&source, &self.receiver.export().join("source"));
        end
    }

    fn wait_for_kept(&mut self, versions: usize) {
        let kept = self.sender.root.join("state/baselines");
        let is_copy = |name: &std::ffi::OsStr| name == "copy";
        self.sender.until("what was sent is kept", |_| {
            let names = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| !is_copy(name)).count() == versions
        });
    }

    fn unmade(&mut self) -> u64 {
        self.receiver.counter(WorkerCounter::DeltaChunksUnmade)
    }
}

/// Bytes are put in near the front, so that everything moves, and some are changed throughout.
fn next_version(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let inserted = bytes(1000, 99);
    content.splice(5000..5000, inserted);
    for at in (0..content.len()).step_by(97_001) {
        content[at] ^= 0x55;
    }
    fs::write(path, content).unwrap();
}

fn sends_differences(shape: Shape) {
    let mut scene = Scene::new(shape);
    for name in ["large", "small"] {
        next_version(&scene.source().join(name));
    }
    let second = scene.send();
    assert!(second.counts.bytes_wire < second.counts.bytes_total / 50, "{:?}", second.counts);
    assert_eq!(scene.unmade(), 0);
    scene.wait_for_kept(4);
    let third = scene.send();
    assert!(third.counts.bytes_wire < 20_000, "nothing differs: {:?}", third.counts);
}

#[test]
fn the_next_version_is_sent_as_its_differences() {
    sends_differences(CLEAR);
}

#[test]
fn differences_cross_encrypted_lanes_of_two_workers() {
    sends_differences(Shape { workers: 2, encrypt: true, ..CLEAR });
}

#[test]
fn a_kept_version_outlives_the_sender_and_a_damaged_one_is_not_used() {
    let mut scene = Scene::new(CLEAR);
    next_version(&scene.source().join("small"));
    let kept = scene.sender.root.join("state/baselines");
    for entry in fs::read_dir(&kept).unwrap().map(Result::unwrap) {
        let mut content = fs::read(entry.path()).unwrap();
        if content.len() == LARGE {
            content[7_000_000] ^= 1;
            fs::write(entry.path(), content).unwrap();
        }
    }
    scene.sender.kill_and_restart();
    scene.sender.know(&[scene.receiver.named("peer", &scene.valve.address)]);
    let end = scene.send();
    let wire = end.counts.bytes_wire as usize;
    assert!(wire > LARGE && wire < LARGE + SMALL / 2, "only the small one is of use: {wire}");
}

#[test]
fn another_file_at_the_receiver_costs_nothing_but_the_difference() {
    let mut scene = Scene::new(CLEAR);
    next_version(&scene.source().join("small"));
    fs::write(scene.arrived("small"), bytes(SMALL, 77)).unwrap();
    fs::remove_file(scene.arrived("large")).unwrap();
    let end = scene.send();
    assert!(end.counts.bytes_wire > end.counts.bytes_total, "{:?}", end.counts);
    assert_eq!(scene.unmade(), 0);
}

/// The receiver's file is changed in place after it was named, and while chunks of differences to it are under way.
#[test]
fn a_baseline_that_changes_under_way_is_noticed_and_sent_as_it_is() {
    let mut scene = Scene::new(CLEAR);
    next_version(&scene.source().join("large"));
    let chunks = |scene: &mut Scene| scene.receiver.counter(WorkerCounter::ChunksReceived);
    let before = chunks(&mut scene);
    scene.valve.allow(12_000);
    scene.jobs += 1;
    let (job, source, large) = (scene.jobs, scene.source(), scene.arrived("large"));
    scene.sender.send(job, &[&source], "data/");
    scene
        .receiver
        .until("the file was named", |node| node.counter(WorkerCounter::ChunksReceived) > before + 2);
    let held = fs::File::options().write(true).open(&large).unwrap();
    for at in (0..LARGE as u64).step_by(50_000) {
        held.write_all_at(b"changed!", at).unwrap();
    }
    scene.valve.open();
    scene.sender.end_of(job).assert_done();
    assert_same(&source, &scene.receiver.export().join("source"));
    assert!(scene.unmade() > 0, "differences were of no use");
}

#[test]
fn a_receiver_that_wants_no_differences_gets_none() {
    let mut scene = Scene::new(CLEAR);
    scene.receiver.transport.deltas = false;
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    next_version(&scene.source().join("small"));
    let end = scene.send();
    assert!(end.counts.bytes_wire > end.counts.bytes_total, "{:?}", end.counts);
}
