//! Compression on the way: fewer bytes on the wire, the same bytes at the other end.
use std::fs;

use crate::data::{assert_same, bytes};
use crate::node::{CLEAR, Node, Shape, address};

#[test]
fn every_codec_saves_wire_bytes_and_changes_none() {
    let directory = tempfile::TempDir::new().unwrap();
    let address = address();
    let shape = Shape { encrypt: true, ..CLEAR };
    let mut sender = Node::start(&directory.path().join("a"), shape, "");
    let mut receiver = Node::start(&directory.path().join("b"), shape, &address);
    receiver.know(&[sender.named("peer", "")]);
    let source = directory.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("text"), "a line that comes again and again, as lines do\n".repeat(100_000))
        .unwrap();
    fs::write(source.join("noise"), bytes(700_000, 7)).unwrap();
    for (job, codec) in [(1, 1), (2, 2), (3, 3)] {
        sender.transport.codec = codec;
        sender.transport.codec_level = 3;
        sender.transport.codec_adaptive = false;
        sender.know(&[receiver.named("peer", &address)]);
        sender.send(job, &[&source], &format!("data/{job}/"));
        let end = sender.end_of(job);
        end.assert_done();
        assert_same(&source, &receiver.export().join(format!("{job}/source")));
        let (plain, wire) = (end.counts.bytes_total, end.counts.bytes_wire);
        assert!(wire < plain / 3, "codec {codec}: {wire} bytes for {plain}");
    }
}
