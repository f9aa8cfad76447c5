//! Many jobs at once, and what they may cost.
use std::fs;
use std::path::PathBuf;

use dwcp_abi::shm::WorkerCounter;

use crate::data::{assert_same, tree};
use crate::node::{CLEAR, Node, Shape, address, pair};

/// Of the issue: whatever is sent to it.
const RESIDENT_MAX: u64 = 256 << 20;

#[test]
fn two_nodes_send_to_each_other_at_once() {
    let directory = tempfile::TempDir::new().unwrap();
    let (here, there) = (address(), address());
    let shape = Shape { workers: 2, ..CLEAR };
    let mut nodes = [
        Node::start(&directory.path().join("a"), shape, &here),
        Node::start(&directory.path().join("b"), shape, &there),
    ];
    let names = [nodes[0].named("peer", &here), nodes[1].named("peer", &there)];
    let [first, second] = names;
    nodes[0].know(&[second]);
    nodes[1].know(&[first]);
    let sources: Vec<PathBuf> = (0..2).map(|node| directory.path().join(format!("source{node}"))).collect();
    for (node, source) in nodes.iter_mut().zip(&sources) {
        tree(source, &[8_000_000, 8_000_001, 300, 100_000]);
        for job in 1..=2 {
            node.send(job, &[source], &format!("data/{job}/"));
        }
    }
    for node in &mut nodes {
        node.end_of(1).assert_done();
        node.end_of(2).assert_done();
    }
    for job in 1..=2 {
        let name = |node: usize| format!("{job}/source{node}");
        assert_same(&sources[0], &nodes[1].export().join(name(0)));
        assert_same(&sources[1], &nodes[0].export().join(name(1)));
    }
}

#[test]
fn twenty_jobs_at_once_stay_within_the_memory_that_was_promised() {
    let shape = Shape { workers: 2, ..CLEAR };
    let (directory, mut sender, receiver) = pair(shape);
    let source = directory.path().join("source");
    tree(&source, &[1_000_000, 700_000, 20_000]);
    for file in 0..300 {
        fs::write(source.join(format!("small{file}")), vec![file as u8; file]).unwrap();
    }
    for job in 1..=20 {
        sender.send(job, &[&source], &format!("data/{job}/"));
    }
    for job in 1..=20 {
        sender.end_of(job).assert_done();
        assert_same(&source, &receiver.export().join(format!("{job}/source")));
    }
    assert!(sender.counter(WorkerCounter::LanesOpened) >= 1);
    assert_resident(&[&sender, &receiver]);
}

#[test]
fn four_jobs_over_64_lanes_stay_within_the_memory_that_was_promised() {
    let shape = Shape { workers: 2, encrypt: true, ..CLEAR };
    let (directory, mut sender, mut receiver) = pair(shape);
    sender.transport.initial_streams = 64;
    sender.transport.max_streams = 64;
    let address = receiver.address().to_owned();
    sender.know(&[receiver.named("peer", &address)]);
    let source = directory.path().join("source");
    tree(&source, &[12_000_000, 12_000_000, 12_000_000, 20_000_000, 9_000_000]);
    for job in 1..=4 {
        sender.send(job, &[&source], &format!("data/{job}/"));
    }
    for job in 1..=4 {
        sender.end_of(job).assert_done();
    }
    assert!(receiver.counter(WorkerCounter::LanesOpened) > 40, "too few lanes to prove anything");
    assert_resident(&[&sender, &receiver]);
}

#[track_caller]
fn assert_resident(nodes: &[&Node]) {
    for node in nodes {
        let most = node.resident_most();
        assert!(most < RESIDENT_MAX, "{} MiB were resident", most >> 20);
    }
}
