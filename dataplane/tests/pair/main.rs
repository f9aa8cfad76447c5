//! Two real dataplanes over loopback, the test in control's place: what is sent arrives.
mod coding;
mod data;
mod deltas;
mod events;
mod fetch;
mod files;
mod filters;
mod hostile;
mod identity;
mod kills;
mod load;
mod node;
mod options;
mod rates;
mod rdma;
mod resume;
mod rings;
mod stall;
mod stranger;
mod tunnels;
mod valve;

use std::fs;
use std::path::Path;

use data::bytes;
use node::{CLEAR, Shape, pair};

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
    sender.send(1, &[&source], "data/in/");
    let end = sender.end_of(1);
    end.assert_done();
    assert_eq!(end.counts.bytes_total, sizes.iter().sum::<usize>() as u64);
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
