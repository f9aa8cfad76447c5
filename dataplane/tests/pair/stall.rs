//! One connection of several that stands still: nobody waits for it.
use std::fs;
use std::time::{Duration, Instant};

use crate::data::bytes;
use crate::node::{CLEAR, Shape, address, pair_over};
use crate::valve::Valve;

fn send_past_a_lane_that_stalls(shape: Shape) {
    let listen = address();
    let valve = Valve::of_some(&listen, 3_000_000, 1);
    let (directory, mut sender, mut receiver) = pair_over(shape, &listen, &valve.address);
    for node in [&mut sender, &mut receiver] {
        (node.transport.read_timeout_ms, node.transport.write_timeout_ms) = (60_000, 60_000);
    }
    sender.know(&[receiver.named("peer", &valve.address)]);
    receiver.know(&[sender.named("peer", "")]);
    let source = directory.path().join("large");
    fs::write(&source, bytes(60_000_000, 1)).unwrap();
    let started = Instant::now();
    sender.send(1, &[&source], "data/");
    let end = sender.end_of(1);
    end.assert_done();
    assert_eq!(end.attempt, 1);
    // The nodes' own patience with a lane is a minute, the kernel's 25 s.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(fs::read(&source).unwrap() == fs::read(receiver.export().join("large")).unwrap());
    // What it owed arrives after all, and changes nothing.
    valve.open();
    sender.send(2, &[&source], "data/again/");
    sender.end_of(2).assert_done();
    assert!(fs::read(&source).unwrap() == fs::read(receiver.export().join("again/large")).unwrap());
}

#[test]
fn a_lane_that_stalls_holds_no_job_up() {
    send_past_a_lane_that_stalls(CLEAR);
}

#[test]
fn a_lane_that_stalls_holds_no_job_up_encrypted() {
    send_past_a_lane_that_stalls(Shape { encrypt: true, ..CLEAR });
}
