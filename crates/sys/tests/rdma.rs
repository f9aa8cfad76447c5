//! Streams over queue pairs of real ports. `cargo xtask test` runs this in the virtual machine, which has two ports of
//! soft-RoCE with a wire between them, `rxe0` at `wire0` and `rxe1` at `wire1`; there `DWCP_TEST_DEMANDS=rdma` makes their
//! absence a failure. Run with one thread: tests cut the wire.
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwcp_sys::proactor::{BufferId, Completion, Errno, Handle, Options, Proactor, Span, Wait};
use dwcp_sys::rdma::{Device, QueuePair};

/// The two ports, or a line that says why this machine cannot test with them.
fn ports() -> Option<[Arc<Device>; 2]> {
    let demanded = std::env::var("DWCP_TEST_DEMANDS").is_ok_and(|demands| demands.contains("rdma"));
    let devices = ["rxe0", "rxe1"].map(|name| Device::open(name, 1));
    match devices {
        [Ok(one), Ok(other)] => Some([one, other]),
        [Err(why), _] | [_, Err(why)] => {
            assert!(!demanded, "{why}");
            println!("skipped: {why}");
            None
        }
    }
}

/// Two connected pairs, each with its end of a TCP connection.
fn connected(devices: &[Arc<Device>; 2]) -> [(TcpStream, QueuePair); 2] {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    let near = Ipv4Addr::LOCALHOST.into();
    let first = devices[0].prepare(near, None).unwrap();
    let second = devices[1].prepare(near, Some(first.end())).unwrap();
    let (first_end, second_end) = (*first.end(), *second.end());
    [(one, first.connect(&second_end).unwrap()), (other, second.connect(&first_end).unwrap())]
}

struct Side {
    proactor: Proactor,
    handle: Handle,
}

impl Side {
    fn new((line, pair): (TcpStream, QueuePair)) -> Self {
        let options = Options { large_count: 4, large_bytes: LARGE, small_count: 0, ..Options::default() };
        let mut proactor = Proactor::open(&options).unwrap();
        let handle = proactor.add_pair(line.into(), pair).unwrap();
        Self { proactor, handle }
    }

    fn wait(&mut self) -> Completion {
        let mut out = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while out.is_empty() {
            assert!(Instant::now() < deadline, "nothing happened: {:?}", self.proactor);
            self.proactor.turn(Wait::Until(Duration::from_secs(1)), &mut out).unwrap();
        }
        assert_eq!(out.len(), 1, "{out:?}");
        out.remove(0)
    }

    fn send(&mut self, length: u32) -> Result<u32, Errno> {
        self.proactor.send_all(self.handle, span(length), 1);
        self.wait().result
    }

    fn receive(&mut self, length: u32) -> Result<u32, Errno> {
        self.proactor.recv_all(self.handle, span(length), 2);
        self.wait().result
    }

    fn trouble(&self) -> &str {
        self.proactor.pair_trouble(self.handle).unwrap_or("none")
    }
}

fn span(length: u32) -> Span {
    Span { buffer: BufferId(0), start: 3, length }
}

/// Sends and checks rounds of many sizes; each byte follows from its place and its round.
fn talk(side: &mut Side, turn: bool) {
    for (round, length) in LENGTHS.into_iter().enumerate() {
        let byte = |at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ round as u8;
        if turn == (round % 2 == 0) {
            for (at, place) in side.proactor.bytes_mut(span(length)).iter_mut().enumerate() {
                *place = byte(at);
            }
            assert_eq!(side.send(length), Ok(length), "{}", side.trouble());
        } else {
            assert_eq!(side.receive(length), Ok(length), "{}", side.trouble());
            let wrong =
                side.proactor.bytes(span(length)).iter().enumerate().find(|&(at, &got)| got != byte(at));
            assert_eq!(wrong, None, "round {round} of {length} bytes");
        }
    }
}

#[test]
fn bytes_of_all_sizes_travel_both_ways() {
    let Some(devices) = ports() else { return };
    let [one, other] = connected(&devices);
    let far = std::thread::spawn(move || talk(&mut Side::new(other), false));
    talk(&mut Side::new(one), true);
    far.join().unwrap();
}

#[test]
fn a_wire_that_is_cut_breaks_the_stream_soon_and_a_new_one_stands_when_it_is_back() {
    let Some(devices) = ports() else { return };
    let [one, other] = connected(&devices).map(Side::new);
    let (mut one, mut other) = (one, other);
    assert_eq!(one.send(1000), Ok(1000));
    assert_eq!(other.receive(1000), Ok(1000));
    ip(&["link", "set", "wire0", "down"]);
    let started = Instant::now();
    assert_eq!(one.receive(1), Err(Errno::ECONNABORTED));
    assert!(one.trouble().contains("rxe0 port 1 is"), "{}", one.trouble());
    assert!(devices[0].prepare(Ipv4Addr::LOCALHOST.into(), None).is_err());
    ip(&["link", "set", "wire0", "up"]);
    assert!(started.elapsed() < PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    while devices[0].prepare(Ipv4Addr::LOCALHOST.into(), None).is_err() {
        assert!(Instant::now() < deadline, "the port does not come back");
        std::thread::yield_now();
    }
    let [mut one, mut other] = connected(&devices).map(Side::new);
    assert_eq!(one.send(1000), Ok(1000));
    assert_eq!(other.receive(1000), Ok(1000));
}

#[test]
fn an_end_that_does_not_answer_breaks_the_stream_with_the_reason() {
    let Some(devices) = ports() else { return };
    let [(line, pair), (_far_line, far_pair)] = connected(&devices);
    let mut one = Side::new((line, pair));
    drop(far_pair);
    assert_eq!(one.send(5000), Err(Errno::ECONNABORTED));
    assert!(one.trouble().contains("does not answer"), "{}", one.trouble());
}

#[test]
fn an_end_that_goes_away_ends_the_stream_without_trouble() {
    let Some(devices) = ports() else { return };
    let [one, other] = connected(&devices);
    let mut one = Side::new(one);
    drop(Side::new(other));
    assert_eq!(one.receive(1), Ok(0));
    assert_eq!(one.trouble(), "none");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let why = Device::open("no-such-device", 1).unwrap_err().to_string();
    let names_it = ["no-such-device", "no RDMA device", "libibverbs"].iter().any(|word| why.contains(word));
    assert!(names_it, "{why}");
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

const LARGE: u32 = 1 << 20;
const LENGTHS: [u32; 12] =
    [1, 63, 65, 1024, 4096, 65_535, 65_536, 65_537, 131_073, 524_288, 1_000_000, 1_048_573];
const PATIENCE: Duration = Duration::from_secs(30);
