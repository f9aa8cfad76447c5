//! `kill -9` of control, of the sending and of the receiving dataplane, in mid-transfer.
use std::path::PathBuf;

use dwcp_abi::link::Outcome;
use tempfile::TempDir;

use crate::data::{assert_no_lie, assert_same, files, is_temporary, tree};
use crate::events::Heard;
use crate::node::{CLEAR, Node, address, pair_over};
use crate::valve::Valve;

const SIZES: [usize; 7] = [100, 70_000, 300_000, 5_000_000, 5_000_001, 3_000_000, 12];
/// Enough for the greetings, the pack and a few chunks.
const FIRST: u64 = 3_000_000;

/// Two nodes with a valve between them, and job 1 in mid-transfer.
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
        let (directory, mut sender, receiver) = pair_over(CLEAR, &listen, &valve.address);
        let source = directory.path().join("source");
        tree(&source, &SIZES);
        sender.send(1, &[&source], "data/");
        sender.progress_of(1);
        Self { directory, sender, receiver, valve }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn arrived(&self) -> PathBuf {
        self.receiver.export().join("source")
    }

    fn try_again(&mut self) {
        let source = self.source();
        self.sender.send_again((1, 2), &[&source], "data/");
        let end = self.sender.end_of(1);
        end.assert_done();
        assert_eq!(end.attempt, 2);
        assert_same(&source, &self.arrived());
    }
}

#[test]
fn control_comes_back_in_mid_transfer_and_hears_the_end() {
    let mut scene = Scene::new();
    let instance = scene.sender.attached().instance;
    scene.sender.detach();
    scene.sender.attach();
    assert_eq!(scene.sender.attached().instance, instance, "the jobs live on");
    scene.sender.snapshot(7);
    scene.sender.hear("the snapshot's end", |heard| matches!(heard, Heard::SnapshotEnd(7)));
    scene.sender.snapshot(8);
    scene.sender.hear(
        "the job in the snapshot",
        |heard| matches!(heard, Heard::Progress(progress) if progress.job == 1 && progress.attempt == 1),
    );
    scene.valve.open();
    scene.sender.end_of(1).assert_done();
    assert_same(&scene.source(), &scene.arrived());
}

#[test]
fn a_job_that_ends_while_nobody_is_attached_is_reported_until_it_is_forgotten() {
    let mut scene = Scene::new();
    scene.sender.detach();
    scene.valve.open();
    let (source, arrived) = (scene.source(), scene.arrived());
    scene.receiver.until("all files are there", |_| files(&arrived) == files(&source));
    for _ in 0..2 {
        scene.sender.attach();
        scene.sender.snapshot(1);
        scene.sender.end_of(1).assert_done();
        scene.sender.detach();
    }
    scene.sender.attach();
    let forget = dwcp_abi::link::Command::Forget(dwcp_abi::link::ForgetJob { job: 1 });
    scene.sender.order(0, &forget);
    scene.sender.snapshot(2);
    scene.sender.hear("the snapshot's end", |heard| matches!(heard, Heard::SnapshotEnd(2)));
    scene.sender.ends.clear();
    scene.sender.snapshot(3);
    scene.sender.hear("the snapshot's end", |heard| matches!(heard, Heard::SnapshotEnd(3)));
    assert!(scene.sender.ends.is_empty());
    assert_same(&source, &arrived);
}

#[test]
fn a_job_is_interrupted_when_its_receiver_is_killed_and_completes_at_the_next_attempt() {
    let mut scene = Scene::new();
    // The sender gives up soon; its next attempt has more patience.
    let address = scene.valve.address.clone();
    let receiver = scene.receiver.named("peer", &address);
    scene.sender.transport.connect_timeout_ms = 500;
    scene.sender.know(&[receiver]);
    scene.receiver.kill();
    assert_no_lie(&scene.source(), &scene.arrived());
    assert!(files(&scene.arrived()).iter().any(|name| is_temporary(name)), "nothing was under way");
    scene.sender.end_of(1).assert_says(Outcome::Interrupted, &["peer"]);
    scene.receiver.restart();
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    scene.sender.transport.connect_timeout_ms = 10_000;
    scene.sender.know(&[scene.receiver.named("peer", &address)]);
    scene.valve.open();
    scene.try_again();
}

#[test]
fn a_job_is_interrupted_when_its_receiver_is_back_at_once_and_knows_nothing() {
    let mut scene = Scene::new();
    scene.receiver.kill_and_restart();
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    scene.valve.open();
    scene.sender.end_of(1).assert_says(Outcome::Interrupted, &["the peer was started anew"]);
    assert_no_lie(&scene.source(), &scene.arrived());
    scene.try_again();
}

#[test]
fn a_job_of_a_sender_that_was_killed_completes_at_the_next_attempt() {
    let mut scene = Scene::new();
    let address = scene.valve.address.clone();
    scene.sender.kill_and_restart();
    scene.sender.know(&[scene.receiver.named("peer", &address)]);
    assert_no_lie(&scene.source(), &scene.arrived());
    scene.valve.open();
    scene.try_again();
}

#[test]
fn a_job_whose_sender_is_gone_leaves_what_its_next_attempt_can_use_and_nothing_of_it_remains_then() {
    let mut scene = Scene::new();
    scene.receiver.transport.connect_timeout_ms = 500;
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    scene.sender.kill();
    scene.valve.open();
    let (source, arrived) = (scene.source(), scene.arrived());
    let chunk = u64::from(dwcp_abi::wire::CHUNK_BYTES);
    let is_useless = |name: &PathBuf| {
        let metadata = std::fs::metadata(arrived.join(name));
        is_temporary(name) && metadata.is_ok_and(|metadata| metadata.len() <= chunk)
    };
    scene.receiver.until("only what can be used is left", |_| !files(&arrived).iter().any(is_useless));
    assert_no_lie(&source, &arrived);
    scene.sender.restart();
    scene.sender.know(&[scene.receiver.named("peer", &scene.valve.address)]);
    scene.receiver.transport.connect_timeout_ms = 10_000;
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    scene.try_again();
}
