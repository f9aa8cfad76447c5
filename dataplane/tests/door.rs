//! The door over loopback: two nodes, strangers, and everything that a connection can do wrong.
mod door_support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use door_support::{Event, Node, PATIENCE, Seen, deaf_address, plan};
use dwcp_abi::wire::hello::VersionRange;
use dwcp_dataplane::door::{DialFailure, Direction, DoorConfig, DoorLimits, LaneReady, Payload, Plan};
use dwcp_dataplane::identity::Identity;
use dwcp_dataplane::record::{Opened, Opener, Sealer, sealed_length};

/// A frame goes from the dialler to the acceptor, and one back, through the record layer or in clear.
fn exchange(dialled: LaneReady, accepted: LaneReady) {
    assert_eq!(dialled.secrets.is_some(), accepted.secrets.is_some());
    let mut near = Carrier::new(dialled);
    let mut far = Carrier::new(accepted);
    for length in [1, 70_000] {
        let frame: Vec<u8> = (0..length).map(|at| at as u8).collect();
        near.send(&frame);
        assert_eq!(far.receive(frame.len()), frame);
        far.send(&frame);
        assert_eq!(near.receive(frame.len()), frame);
    }
}

struct Carrier {
    stream: TcpStream,
    keys: Option<(Sealer, Opener)>,
}

impl Carrier {
    fn new(lane: LaneReady) -> Self {
        let keys = lane.secrets.map(|secrets| {
            (Sealer::new(&secrets.send).expect("key"), Opener::new(&secrets.receive).expect("key"))
        });
        let stream = TcpStream::from(lane.fd);
        stream.set_read_timeout(Some(PATIENCE)).expect("socket");
        Self { stream, keys }
    }

    fn send(&mut self, plain: &[u8]) {
        let Some((sealer, _)) = &mut self.keys else {
            return self.stream.write_all(plain).expect("sent");
        };
        let mut sealed = vec![0; sealed_length(plain.len())];
        sealer.seal(plain, &mut sealed).expect("sealed");
        self.stream.write_all(&sealed).expect("sent");
    }

    fn receive(&mut self, length: usize) -> Vec<u8> {
        let Some((_, opener)) = &mut self.keys else {
            let mut plain = vec![0; length];
            self.stream.read_exact(&mut plain).expect("received");
            return plain;
        };
        let mut plain = Vec::new();
        while plain.len() < length {
            let mut record = vec![0; 5];
            self.stream.read_exact(&mut record).expect("header");
            let header = record.first_chunk().expect("five bytes");
            record.resize(Opener::record_length(header).expect("record"), 0);
            self.stream.read_exact(&mut record[5..]).expect("body");
            let mut out = vec![0; Opener::room_for(record.len())];
            match opener.open(&mut record, &mut out).expect("authentic") {
                Opened::Data(count) => plain.extend_from_slice(&out[..count]),
                Opened::CloseNotify => panic!("closed"),
            }
        }
        plain
    }
}

#[test]
fn two_nodes_get_lanes_that_carry_bytes() {
    for (near_payload, far_payload, encrypted) in [
        (Payload::Encrypted, Payload::Encrypted, true),
        (Payload::ClearIfBoth, Payload::Encrypted, true),
        (Payload::Encrypted, Payload::ClearIfBoth, true),
        (Payload::ClearIfBoth, Payload::ClearIfBoth, false),
    ] {
        let (near, far) = (Node::open(), Node::open());
        near.knows("far", &far, near_payload);
        far.knows("near", &near, far_payload);
        near.dial("far", 3, 77);
        for _ in 0..3 {
            let (dialled, accepted) = (near.lane(), far.lane());
            assert_eq!(dialled.secrets.is_some(), encrypted, "{near_payload:?} {far_payload:?}");
            assert_eq!((dialled.direction, accepted.direction), (Direction::Dialled, Direction::Accepted));
            assert_eq!((dialled.peer.to_string(), accepted.peer.to_string()), ("far".into(), "near".into()));
            assert_eq!((dialled.instance, accepted.instance), (far.instance, near.instance));
            assert_eq!((dialled.token, accepted.token, dialled.version), (77, 77, 1));
            assert_eq!((dialled.credit_bytes, dialled.chunk_length_max), (1 << 22, 1 << 20));
            assert_eq!(dialled.remote, far.address());
        }
        assert_eq!(
            (near.door.counters().figures().succeeded, far.door.counters().figures().succeeded),
            (3, 3)
        );
    }
}

#[test]
fn bytes_cross_a_fresh_lane_both_ways() {
    for payload in [Payload::Encrypted, Payload::ClearIfBoth] {
        let (near, far) = (Node::open(), Node::open());
        near.knows("far", &far, payload);
        far.knows("near", &near, payload);
        near.dial("far", 1, 0);
        exchange(near.lane(), far.lane());
    }
}

/// The worker finds the first byte behind the greeting, however early it was sent.
#[test]
fn an_early_frame_is_not_swallowed() {
    let (near, far) = (Node::open(), Node::open());
    near.knows("far", &far, Payload::ClearIfBoth);
    far.knows("near", &near, Payload::ClearIfBoth);
    near.dial("far", 1, 0);
    let mut dialled = Carrier::new(near.lane());
    dialled.send(b"frame sent at once");
    dialled.stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut accepted = Carrier::new(far.lane());
    let mut all = Vec::new();
    accepted.stream.read_to_end(&mut all).expect("received");
    assert_eq!(all, b"frame sent at once");
}

#[test]
fn a_name_is_resolved_and_each_address_tried() {
    let (near, far) = (Node::open(), Node::open());
    far.knows("near", &near, Payload::Encrypted);
    let address = format!("localhost:{}", far.address().port());
    near.set_plan(plan(&[("far", far.fingerprint(), &address)]));
    near.dial("far", 2, 0);
    assert_eq!((near.lane().remote, near.lane().remote), (far.address(), far.address()));
}

#[test]
fn an_unknown_dialler_is_refused_and_told_so() {
    let (near, far) = (Node::open(), Node::open());
    near.knows("far", &far, Payload::Encrypted);
    far.set_plan(plan(&[]));
    near.dial("far", 1, 5);
    let failed = near.failure();
    assert_eq!((failed.failure, failed.token, failed.lanes), (DialFailure::NotAccepted, 5, 1));
    assert!(failed.reason.contains(&near.fingerprint().to_string()), "{}", failed.reason);
    assert!(failed.reason.contains(&far.address().to_string()), "{}", failed.reason);
    far.until(|seen: Seen| seen.figures.refused == 1);
    assert_eq!(far.lanes_so_far(), 0);
}

#[test]
fn another_identity_at_the_address_is_refused() {
    let (near, far) = (Node::open(), Node::open());
    let expected = Identity::generate().expect("identity").fingerprint();
    far.knows("near", &near, Payload::Encrypted);
    near.set_plan(plan(&[("far", expected, &far.address().to_string())]));
    near.dial("far", 1, 0);
    let failed = near.failure();
    assert_eq!(failed.failure, DialFailure::WrongIdentity);
    for part in [expected.to_string(), far.fingerprint().to_string(), "`far`".to_owned()] {
        assert!(failed.reason.contains(&part), "{}", failed.reason);
    }
    far.until(|seen: Seen| seen.figures.failed + seen.figures.refused == 1);
    assert_eq!(far.lanes_so_far(), 0);
}

#[test]
fn without_a_common_version_both_ranges_are_named() {
    let near = Node::open_with(|config| config.versions = VersionRange { min: 3, max: 4 });
    let far = Node::open();
    near.knows("far", &far, Payload::Encrypted);
    far.knows("near", &near, Payload::Encrypted);
    near.dial("far", 1, 0);
    let failed = near.failure();
    assert_eq!(failed.failure, DialFailure::Version);
    assert!(failed.reason.contains("1..1") && failed.reason.contains("3..4"), "{}", failed.reason);
    far.until(|seen: Seen| seen.figures.refused == 1);
}

#[test]
fn what_waits_for_an_unreachable_peer_fails_with_it() {
    let near = Node::open_with(|config| config.limits.dialling_per_peer_max = 1);
    let peer = Identity::generate().expect("identity").fingerprint();
    let (vacant, _bound) = deaf_address();
    near.set_plan(plan(&[("far", peer, &vacant.to_string()), ("silent", peer, "")]));
    near.dial("far", 9, 1);
    let (one, other) = (near.failure(), near.failure());
    assert_eq!((one.failure, other.failure), (DialFailure::Unreachable, DialFailure::Unreachable));
    assert_eq!(one.lanes + other.lanes, 9);
    assert!(one.reason.contains(&vacant.to_string()), "{}", one.reason);
    near.dial("silent", 1, 1);
    near.dial("nobody", 1, 1);
    assert_eq!((near.failure().failure, near.failure().failure), (DialFailure::NoPeer, DialFailure::NoPeer));
}

#[test]
fn a_name_without_address_is_reported() {
    let near = Node::open();
    let peer = Identity::generate().expect("identity").fingerprint();
    near.set_plan(plan(&[("far", peer, "no-port-here")]));
    near.dial("far", 4, 1);
    let failed = near.failure();
    assert_eq!((failed.failure, failed.lanes), (DialFailure::Unresolved, 4));
    assert!(failed.reason.contains("no-port-here"), "{}", failed.reason);
}

#[test]
fn a_peer_that_never_answers_costs_no_more_than_the_timeout() {
    let near = Node::open();
    let peer = Identity::generate().expect("identity").fingerprint();
    let (address, _listener) = door_support::silent_listener();
    let plan = plan(&[("far", peer, &address.to_string())]);
    near.set_plan(Plan { connect_timeout: Duration::from_millis(150), ..plan });
    near.dial("far", 1, 1);
    let failed = near.failure();
    assert_eq!(failed.failure, DialFailure::TimedOut);
    assert!(failed.reason.contains("connect_timeout"), "{}", failed.reason);
    assert_eq!(near.door.counters().figures().timed_out, 1);
}

#[test]
fn strangers_who_speak_no_tls_are_let_go() {
    let far = Node::open();
    far.set_plan(plan(&[]));
    let mut oversized = vec![22, 3, 1, 0xff, 0xff];
    oversized.resize(2000, 0);
    let mut hello_of_garbage = vec![22, 3, 1, 1, 0];
    hello_of_garbage.resize(5 + 256, 0x5a);
    let garbage: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0; 100], &oversized, &hello_of_garbage, &[23, 3, 3, 0, 1, 0]];
    for (count, bytes) in garbage.iter().enumerate() {
        let mut stream = far.connect();
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        // An alert or nothing, and then the end; a reset is an end too.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() <= 7, "{answer:02x?}");
        far.until(|seen: Seen| seen.figures.failed == count as u64 + 1);
    }
    far.until(|seen: Seen| seen.figures.half_open == 0);
    assert_eq!(far.lanes_so_far(), 0);
}

#[test]
fn who_never_speaks_or_speaks_slowly_is_cut_off_in_time() {
    let far = Node::open();
    far.set_plan(Plan { connect_timeout: Duration::from_millis(200), ..plan(&[]) });
    let mut silent = far.connect();
    let mut slow = far.connect();
    // A byte at every turn of the reader's patience: each arrives, none completes a record.
    slow.set_read_timeout(Some(Duration::from_millis(20))).expect("socket");
    for byte in [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1)) {
        if slow.write_all(&[byte]).is_err() || slow.read(&mut [0; 16]).is_ok() {
            break;
        }
    }
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0, "closed without a word");
    far.until(|seen: Seen| seen.figures.timed_out == 2 && seen.figures.half_open == 0);
}

#[test]
fn handshakes_cut_short_at_any_byte_leave_nothing_behind() {
    let far = Node::open();
    let near = Node::open();
    far.knows("near", &near, Payload::Encrypted);
    let hello = door_support::client_hello(b"dwcp/1");
    for (before, end) in (0..hello.len()).step_by(23).enumerate() {
        let mut stream = far.connect();
        stream.write_all(&hello[..end]).expect("sent");
        stream.shutdown(Shutdown::Write).expect("shutdown");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        far.until(|seen: Seen| seen.figures.failed == before as u64 + 1);
    }
    far.until(|seen: Seen| seen.figures.half_open == 0);
    assert_eq!(far.lanes_so_far(), 0);
}

#[test]
fn another_application_is_refused() {
    for alpn in [&b"h2"[..], b"dwcp/2", b""] {
        let far = Node::open();
        far.set_plan(plan(&[]));
        let mut stream = far.connect();
        stream.write_all(&door_support::client_hello(alpn)).expect("sent");
        if alpn.is_empty() {
            // No name at all is legal TLS: the greeting would be refused, here nobody authenticates.
            stream.shutdown(Shutdown::Write).expect("shutdown");
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        far.until(|seen: Seen| seen.figures.failed == 1);
    }
}

#[test]
fn half_open_connections_are_bounded() {
    let limits = DoorLimits { accepting_max: 4, accepting_per_source_max: 3, ..DoorLimits::default() };
    let far = Node::open_with(|config: &mut DoorConfig| config.limits = limits);
    far.set_plan(plan(&[]));
    let mut streams: Vec<_> = (0..8).map(|_| far.connect()).collect();
    far.until(|seen: Seen| seen.figures.turned_away == 5 && seen.figures.half_open == 3);
    // From other sources (127.0.0.0/8 is one host's, but not one address): one more, the next waits outside.
    let mut others: Vec<_> = (2..=4_u8).map(|last| far.connect_from([127, 0, 0, last].into())).collect();
    far.until(|seen: Seen| seen.figures.half_open == 4);
    drop((streams.drain(..), others.drain(..1)));
    far.until(|seen: Seen| seen.figures.half_open == 2 && seen.figures.turned_away == 5);
}

#[test]
fn more_lanes_than_slots_come_all_the_same() {
    let (near, far) = (Node::open(), Node::open());
    near.knows("far", &far, Payload::Encrypted);
    far.knows("near", &near, Payload::Encrypted);
    near.dial("far", 100, 1);
    for _ in 0..100 {
        assert_eq!(near.lane().direction, Direction::Dialled);
        assert_eq!(far.lane().direction, Direction::Accepted);
    }
    assert_eq!(far.door.counters().figures().turned_away, 0);
}

#[test]
fn who_leaves_the_plan_during_a_greeting_gets_no_lane() {
    let (near, far) = (Node::open(), Node::open());
    near.knows("far", &far, Payload::Encrypted);
    far.knows("near", &near, Payload::Encrypted);
    near.dial("far", 1, 1);
    drop((near.lane(), far.lane()));
    far.set_plan(plan(&[]));
    near.dial("far", 1, 2);
    assert_eq!(near.failure().failure, DialFailure::NotAccepted);
}

#[test]
fn closing_tells_everybody_who_waits() {
    let near = Node::open();
    let peer = Identity::generate().expect("identity").fingerprint();
    let (address, listener) = door_support::silent_listener();
    near.set_plan(plan(&[("far", peer, &address.to_string())]));
    near.dial("far", 20, 1);
    let _connection = listener.accept().expect("a dial");
    let events = near.close();
    let mut lanes = 0;
    while let Ok(event) = events.try_recv() {
        match event {
            Event::Failed(failed) => {
                assert_eq!(failed.failure, DialFailure::Busy);
                lanes += failed.lanes;
            }
            Event::Lane(lane) => panic!("{lane:?}"),
        }
    }
    assert_eq!(lanes, 20);
}

#[test]
fn an_address_in_use_is_named() {
    let far = Node::open();
    let config = DoorConfig::new(vec![far.address()], 1, 1, 1);
    let identity = Identity::generate().expect("identity");
    let sink = Box::new(door_support::Forward(crossbeam_channel::unbounded().0));
    let failed = dwcp_dataplane::door::Door::open(config, &identity, sink).expect_err("in use");
    assert!(failed.to_string().contains(&far.address().to_string()), "{failed}");
}
