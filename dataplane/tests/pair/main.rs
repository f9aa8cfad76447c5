//! Two real dataplanes over loopback, the test in control's place: what is sent arrives.
mod node;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use dwcp_abi::link::Outcome;
use node::{Node, Shape};
use tempfile::TempDir;

const CLEAR: Shape = Shape { workers: 1, backend: 0, encrypt: false };

/// A port that was free a moment ago.
fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn pair(shape: Shape) -> (TempDir, Node, Node) {
    let directory = TempDir::new().unwrap();
    let address = address();
    let sender = Node::start(&directory.path().join("a"), shape, "");
    let receiver = Node::start(&directory.path().join("b"), shape, &address);
    sender.plan(shape, &receiver, &address);
    receiver.plan(shape, &sender, "");
    (directory, sender, receiver)
}

/// Bytes that no codec and no luck can confuse.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(length);
    out
}

fn send_tree(shape: Shape) {
    let (directory, mut sender, receiver) = pair(shape);
    let source = directory.path().join("source");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    let sizes = [0, 1, 4096, 131_072, 131_073, 524_287, 524_288, 524_289, 3 << 20, 40_000_001];
    for (index, size) in sizes.into_iter().enumerate() {
        fs::write(source.join(format!("deep/er/{size}")), bytes(size, index as u64)).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
    sender.send(1, &[&source], "data/in/", 0);
    let end = sender.end_of(1);
    assert_eq!((end.outcome, end.text.as_str(), end.failures), (Outcome::Done, "", 0));
    assert_eq!((end.bytes_done, end.bytes_total), (end.bytes_total, sizes.iter().sum::<usize>() as u64));
    let arrived = receiver.root.join("export/in/source");
    for size in sizes {
        let name = format!("deep/er/{size}");
        assert!(fs::read(source.join(&name)).unwrap() == fs::read(arrived.join(&name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_link(arrived.join("link")).unwrap(), Path::new("/nowhere"));
    assert!(arrived.join("empty").is_dir());
}

#[test]
fn a_tree_arrives_in_clear() {
    send_tree(CLEAR);
}

#[test]
fn a_tree_arrives_encrypted() {
    send_tree(Shape { encrypt: true, ..CLEAR });
}

#[test]
fn a_tree_arrives_over_two_workers() {
    send_tree(Shape { workers: 2, ..CLEAR });
}

#[test]
fn a_tree_arrives_encrypted_over_three_workers_without_io_uring() {
    send_tree(Shape { workers: 3, backend: 2, encrypt: true });
}
