//! Lanes over RDMA queue pairs, between the ports `rxe0` and `rxe1` of the virtual machine (see `crates/sys/tests/rdma.rs`);
//! their TCP connections go over loopback, so that the wire can be cut without them.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dwcp_abi::link::Outcome;
use dwcp_abi::shm::WorkerCounter as Counter;
use tempfile::TempDir;

use crate::data::{assert_no_lie, assert_same, bytes, tree};
use crate::node::{CLEAR, Node, PATIENCE, Shape, address, pair_over};

const SIZES: [usize; 8] = [0, 1, 4096, 131_073, 524_287, 524_289, 3 << 20, 6_000_001];
/// So long does it take under emulation that the wire is cut in the middle.
const LONG: usize = 24_000_000;

/// A sender and a receiver with one port each, and how many bytes the sender has sent so far.
struct Scene {
    directory: TempDir,
    sender: Node,
    receiver: Node,
}

impl Scene {
    /// None, with a line, where there are no ports.
    fn new(shape: Shape, ports: [Option<&'static str>; 2]) -> Option<Self> {
        let demanded = std::env::var("DWCP_TEST_DEMANDS").is_ok_and(|demands| demands.contains("rdma"));
        if !Path::new("/sys/class/infiniband/rxe1").exists() {
            assert!(!demanded, "the ports rxe0 and rxe1 were promised");
            println!("skipped: this machine has no RDMA ports rxe0 and rxe1");
            return None;
        }
        let address = address();
        let (directory, mut sender, mut receiver) = pair_over(shape, &address, &address);
        [sender.rdma, receiver.rdma] = ports;
        // A handshake takes a second there.
        sender.transport.initial_streams = 2;
        sender.know(&[receiver.named("peer", &address)]);
        receiver.know(&[sender.named("peer", "")]);
        Some(Self { directory, sender, receiver })
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn arrived(&self) -> PathBuf {
        self.receiver.export().join("source")
    }

    /// A job that takes a while, in the middle of it.
    fn begin_long(&mut self) {
        fs::create_dir_all(self.source()).unwrap();
        fs::write(self.source().join("long"), bytes(LONG, 7)).unwrap();
        let source = self.source();
        self.sender.send(1, &[&source], "data/");
        self.sender.progress_of(1);
        assert!(self.over_rdma() > 0, "it does not go over RDMA");
    }

    /// Bytes that the sender has sent over queue pairs.
    fn over_rdma(&mut self) -> u64 {
        // Figures are published with the chores.
        self.sender.until("figures", |node| node.counter(Counter::BytesSent) > 0);
        self.sender.counter(Counter::RdmaBytesSent)
    }

    /// Small jobs, until one of them goes over RDMA again.
    fn until_rdma_is_back(&mut self) {
        let before = self.over_rdma();
        let small = self.directory.path().join("small");
        fs::write(&small, bytes(700_000, 3)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        for job in 100.. {
            assert!(Instant::now() < deadline, "RDMA is not tried again");
            self.sender.send(job, &[&small], "data/");
            self.sender.end_of(job).assert_done();
            std::thread::sleep(Duration::from_millis(1500));
            if self.over_rdma() > before {
                return;
            }
        }
    }
}

const BOTH: [Option<&'static str>; 2] = [Some("rxe0"), Some("rxe1")];

fn send_tree(shape: Shape) {
    let Some(mut scene) = Scene::new(shape, BOTH) else { return };
    let source = scene.source();
    tree(&source, &SIZES);
    scene.sender.send(1, &[&source], "data/");
    scene.sender.end_of(1).assert_done();
    assert_same(&source, &scene.arrived());
    let all: u64 = SIZES.iter().map(|&size| size as u64).sum();
    scene.sender.until("all bytes went over RDMA", |node| node.counter(Counter::RdmaBytesSent) > all);
    assert_eq!(scene.sender.counter(Counter::RdmaBytesSent), scene.sender.counter(Counter::BytesSent));
    assert!(scene.sender.counter(Counter::RdmaLanes) > 0);
    let features = scene.sender.control().link.node.features().unwrap();
    let line = features.lines().find(|line| line.name == "rdma").unwrap();
    assert_eq!(line.state, "on");
    assert!(line.reason.starts_with("rxe0 port 1"), "{}", line.reason);
}

#[test]
fn rdma_carries_a_tree_in_clear() {
    send_tree(CLEAR);
}

#[test]
fn rdma_carries_a_tree_sealed_between_two_workers_each_and_without_io_uring() {
    send_tree(Shape { encrypt: true, workers: 2, backend: 0 });
    send_tree(Shape { encrypt: true, workers: 1, backend: 2 });
}

#[test]
fn rdma_of_one_end_alone_leaves_lanes_on_tcp() {
    for ports in [[Some("rxe0"), None], [None, Some("rxe1")], [Some("rxe0"), Some("no-such-device")]] {
        let Some(mut scene) = Scene::new(CLEAR, ports) else { return };
        let source = scene.source();
        tree(&source, &SIZES);
        scene.sender.send(1, &[&source], "data/");
        scene.sender.end_of(1).assert_done();
        assert_same(&source, &scene.arrived());
        assert_eq!(scene.over_rdma(), 0);
    }
}

#[test]
fn rdma_whose_port_goes_down_in_mid_transfer_gives_way_to_tcp_and_comes_back() {
    let Some(mut scene) = Scene::new(CLEAR, BOTH) else { return };
    scene.begin_long();
    run("ip", &["link", "set", "wire0", "down"]);
    scene.sender.end_of(1).assert_done();
    assert_same(&scene.source(), &scene.arrived());
    scene.sender.until("lanes were lost", |node| node.counter(Counter::RdmaLanesLost) > 0);
    assert!(scene.sender.counter(Counter::BytesSent) > scene.sender.counter(Counter::RdmaBytesSent));
    run("ip", &["link", "set", "wire0", "up"]);
    scene.until_rdma_is_back();
}

#[test]
fn rdma_whose_packets_are_lost_in_mid_transfer_gives_way_to_tcp_and_comes_back() {
    let Some(mut scene) = Scene::new(CLEAR, BOTH) else { return };
    scene.begin_long();
    run("tc", &["qdisc", "add", "dev", "wire0", "root", "netem", "loss", "100%"]);
    scene.sender.end_of(1).assert_done();
    assert_same(&scene.source(), &scene.arrived());
    scene.sender.until("lanes were lost", |node| node.counter(Counter::RdmaLanesLost) > 0);
    run("tc", &["qdisc", "del", "dev", "wire0", "root"]);
    scene.until_rdma_is_back();
}

#[test]
fn rdma_of_a_receiver_that_is_killed_ends_with_it_and_the_next_attempt_completes() {
    let Some(mut scene) = Scene::new(CLEAR, BOTH) else { return };
    scene.begin_long();
    scene.receiver.kill_and_restart();
    scene.receiver.know(&[scene.sender.named("peer", "")]);
    assert_eq!(scene.sender.end_of(1).outcome, Outcome::Interrupted);
    assert_no_lie(&scene.source(), &scene.arrived());
    let source = scene.source();
    scene.sender.send_again((1, 2), &[&source], "data/");
    scene.sender.end_of(1).assert_done();
    assert_same(&source, &scene.arrived());
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}
