//! A control that has lost its mind: garbage in the shared memory. The dataplane says so, does nothing of it, and
//! works for the next control.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use dwcp_abi::shm::{COMMAND_RING, EVENT_RING, RING_HEADER_BYTES, Section, WorkerCounter};

use crate::data::{assert_same, bytes, tree};
use crate::events::Heard;
use crate::node::{CLEAR, Node, pair};

/// Of a ring's header, in bytes; the golden files pin them.
const TAIL: u64 = 0;
const HEAD: u64 = 64;

/// The first worker's region, by way of the process's own descriptor of it.
fn region(node: &Node) -> File {
    let directory = format!("/proc/{}/fd", node.attached().pid);
    let descriptors = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let length = dwcp_abi::shm::RegionKind::Worker(0).region_bytes() as u64;
    let is_region = |file: &File| file.metadata().is_ok_and(|metadata| metadata.len() == length);
    descriptors
        .filter(|path| fs::read_link(path).is_ok_and(|name| name.to_string_lossy().contains("memfd:")))
        .filter_map(|path| File::options().write(true).open(path).ok())
        .find(is_region)
        .expect("a region")
}

fn scribble(node: &Node, section: &Section, offset: u64, garbage: &[u8]) {
    region(node).write_all_at(garbage, section.offset_bytes as u64 + offset).unwrap();
}

#[track_caller]
fn assert_works(node: &mut Node, peer: &Node, job: u64) {
    // Whoever hears of a reset repeats what it ordered: it may have been thrown away with the garbage.
    loop {
        node.snapshot(job);
        let heard = node.hear("the snapshot's end", |heard| {
            matches!(heard, Heard::SnapshotEnd(token) if *token == job) || matches!(heard, Heard::RingReset)
        });
        if matches!(heard, Heard::SnapshotEnd(_)) {
            break;
        }
    }
    let source = node.root.join("source");
    tree(&source, &[10, 300_000]);
    node.send(job, &[&source], &format!("data/{job}/"));
    node.end_of(job).assert_done();
    assert_same(&source, &peer.export().join(format!("{job}/source")));
}

#[test]
fn commands_that_cannot_be_read_are_reported_and_nothing_happens() {
    let (_directory, mut node, peer) = pair(CLEAR);
    for (round, length) in [0, 1, 7, 64, 1000, 20_000].into_iter().enumerate() {
        let mut garbage = bytes(length, round as u64 + 9);
        // Of a message that does not exist, or of one that does and ends too early.
        garbage.iter_mut().take(4).for_each(|byte| *byte = if round % 2 == 0 { 0xee } else { 1 });
        node.order_raw(0, &garbage);
        node.hear("the reset", |heard| matches!(heard, Heard::RingReset));
    }
    assert_works(&mut node, &peer, 1);
    node.until("they are counted", |node| node.counter(WorkerCounter::RingResets) >= 6);
}

#[test]
fn a_command_ring_full_of_garbage_is_reported_and_used_again() {
    let (_directory, mut node, peer) = pair(CLEAR);
    let tails = [u64::MAX, 3, 1 << 40, 0x1234_5678];
    for (job, tail) in (1..).zip(tails) {
        let noise = bytes(COMMAND_RING.length_bytes - RING_HEADER_BYTES, job);
        scribble(&node, &COMMAND_RING, RING_HEADER_BYTES as u64, &noise);
        scribble(&node, &COMMAND_RING, HEAD, &bytes(8, job));
        scribble(&node, &COMMAND_RING, TAIL, &u64::to_le_bytes(tail));
        node.ring_bell(0);
        node.hear("the reset", |heard| matches!(heard, Heard::RingReset));
        node.detach();
        node.attach();
        assert_works(&mut node, &peer, job);
    }
}

#[test]
fn an_event_ring_full_of_garbage_is_used_again_by_the_next_control() {
    let (_directory, mut node, peer) = pair(CLEAR);
    let source = node.root.join("source");
    tree(&source, &[10, 300_000]);
    let noise = bytes(EVENT_RING.length_bytes - RING_HEADER_BYTES, 5);
    scribble(&node, &EVENT_RING, RING_HEADER_BYTES as u64, &noise);
    scribble(&node, &EVENT_RING, HEAD, &[0xff; 8]);
    node.send(1, &[&source], "data/0/");
    node.detach();
    node.attach();
    node.snapshot(1);
    node.end_of(1).assert_done();
    assert_works(&mut node, &peer, 2);
}
