//! The rates of a bulk connection and of a peer, which lanes keep to by themselves, without programs in the kernel.
use std::fs;
use std::time::Instant;

use crate::data::{assert_same, bytes};
use crate::node::{CLEAR, Node, address};

#[test]
fn lanes_keep_to_the_rates_of_a_bulk_connection_and_of_a_peer_and_follow_their_change() {
    let directory = tempfile::TempDir::new().unwrap();
    let address = address();
    let mut sender = Node::start(&directory.path().join("a"), CLEAR, "");
    let mut receiver = Node::start(&directory.path().join("b"), CLEAR, &address);
    receiver.know(&[sender.named("peer", "")]);
    let source = directory.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), bytes(12_000_000, 3)).unwrap();
    sender.transport.initial_streams = 2;
    sender.transport.max_streams = 2;
    let mut took = |job: u64, bulk_bytes_per_s: u64, peer_bytes_per_s: u64| {
        (sender.bulk_bytes_per_s, sender.peer_bytes_per_s) = (bulk_bytes_per_s, peer_bytes_per_s);
        sender.know(&[receiver.named("peer", &address)]);
        let start = Instant::now();
        sender.send(job, &[&source], &format!("data/{job}/"));
        sender.end_of(job).assert_done();
        assert_same(&source, &receiver.export().join(format!("{job}/source")));
        start.elapsed().as_secs_f64()
    };
    // The lanes stand before the rate does.
    took(1, 1 << 40, 0);
    // Two lanes of 3 MB/s need two seconds; what the buffers held before the first measurement goes sooner.
    let slow = took(2, 3_000_000, 0);
    assert!(slow > 1.0, "{slow} s");
    let fast = took(3, 1 << 40, 0);
    assert!(fast < slow / 1.5, "{fast} s after {slow} s");
    // The same for both lanes together.
    let slow = took(4, 1 << 40, 6_000_000);
    assert!(slow > 1.0, "{slow} s");
    let fast = took(5, 1 << 40, 0);
    assert!(fast < slow / 1.5, "{fast} s after {slow} s");
}
