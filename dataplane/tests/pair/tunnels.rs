//! Tunnels between two real dataplanes: programs' connections arrive whole, end as they should, and outlive their lanes.
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dwcp_abi::link::{Command, Ping, TunnelState};
use nix::sys::socket::{setsockopt, sockopt};

use crate::data::bytes;
use crate::events::Heard;
use crate::node::{CLEAR, Node, PATIENCE, Shape, address};

/// A pair with a tunnel from the first node to `target` at the second, and the relay that their lanes go through.
struct Scene {
    _directory: tempfile::TempDir,
    near: Node,
    far: Node,
    relay: Relay,
    entrance: String,
}

impl Scene {
    fn new(shape: Shape, target: &str, allowed: bool) -> Self {
        let listen = address();
        let relay = Relay::new(&listen);
        let directory = tempfile::TempDir::new().unwrap();
        let mut near = Node::start(&directory.path().join("a"), shape, "");
        let mut far = Node::start(&directory.path().join("b"), shape, &listen);
        let entrance = address();
        near.tunnels = vec![(entrance.clone(), target.to_owned())];
        if allowed {
            let (host, port) = target.rsplit_once(':').unwrap();
            far.allow = vec![(host.to_owned(), port.parse().unwrap())];
        }
        far.know(&[near.named("peer", "")]);
        let dial = relay.address.clone();
        near.know(&[far.named("peer", &dial)]);
        let mut scene = Self { _directory: directory, near, far, relay, entrance };
        scene.until_state(TunnelState::Listening);
        scene
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.entrance).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Waits for a word about the listener that is so.
    fn until_state(&mut self, wanted: TunnelState) -> String {
        let entrance = self.entrance.clone();
        let so = |heard: &Heard| matches!(heard, Heard::Tunnel { listen, state, .. } if *listen == entrance && *state == wanted);
        match self.near.hear("the listener's state", so) {
            Heard::Tunnel { text, .. } => text,
            other => unreachable!("{other:?}"),
        }
    }

    /// Waits for the reason of a refusal.
    fn refusal(&mut self) -> String {
        let so = |heard: &Heard| matches!(heard, Heard::Tunnel { text, .. } if !text.is_empty());
        match self.near.hear("a refusal", so) {
            Heard::Tunnel { text, .. } => text,
            other => unreachable!("{other:?}"),
        }
    }
}

/// Passes bytes on between two nodes, and can cut what it passes on.
struct Relay {
    address: String,
    passed: Arc<Mutex<Vec<TcpStream>>>,
    /// Bytes that were passed on, both ways.
    bytes: Arc<AtomicU64>,
    /// Makes it a slow network.
    is_slow: Arc<AtomicBool>,
}

impl Relay {
    fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let (bytes, is_slow) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, slowed) = (Arc::clone(&bytes), Arc::clone(&is_slow));
        let (kept, target) = (Arc::clone(&passed), target.to_owned());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                kept.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    from.set_nodelay(true).unwrap();
                    let (counted, slowed) = (Arc::clone(&counted), Arc::clone(&slowed));
                    thread::spawn(move || {
                        let mut buffer = [0; 16 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut buffer) {
                            counted.fetch_add(count as u64, Ordering::Relaxed);
                            if slowed.load(Ordering::Relaxed) {
                                thread::park_timeout(Duration::from_millis(2));
                            }
                            if to.write_all(&buffer[..count]).is_err() {
                                break;
                            }
                        }
                        // Either may be gone already.
                        drop(to.shutdown(Shutdown::Both));
                        drop(from.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Self { address, passed, bytes, is_slow }
    }

    /// Cuts the connections that stand, all or every second one.
    fn cut(&self, step: usize) {
        let mut passed = self.passed.lock().unwrap();
        for pair in passed.chunks(2).step_by(step) {
            // Cut before is cut.
            drop(pair[0].shutdown(Shutdown::Both));
        }
        if step == 1 {
            passed.clear();
        }
    }
}

/// A target that sends back what it gets, and ends when its program does.
fn echo() -> String {
    serve(|mut stream| {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    })
}

fn serve(program: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let program = Arc::new(program);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let program = Arc::clone(&program);
            thread::spawn(move || program(stream));
        }
    });
    address
}

/// Sends, half closes, and demands everything back, and then the end.
fn exchange(stream: TcpStream, length: usize, seed: u64) {
    let sent = bytes(length, seed);
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).map(|_| received)
    });
    let mut stream = stream;
    for piece in sent.chunks(1 + (seed as usize * 7919) % 50_000) {
        stream.write_all(piece).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let received = reading.join().unwrap().unwrap_or_else(|error| panic!("connection {seed}: {error}"));
    assert_eq!(received.len(), sent.len(), "connection {seed}");
    assert!(received == sent, "connection {seed}: other bytes came back");
}

#[test]
fn a_hundred_connections_arrive_whole_while_their_lanes_are_cut() {
    for shape in [CLEAR, Shape { encrypt: true, ..CLEAR }] {
        let target = echo();
        let mut scene = Scene::new(shape, &target, true);
        let programs: Vec<_> = (0..100)
            .map(|seed| {
                let stream = scene.connect();
                thread::spawn(move || exchange(stream, 1 + (seed as usize * 37_111) % 600_000, seed))
            })
            .collect();
        let is_over = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    thread::park_timeout(Duration::from_millis(150));
                    if is_over.load(Ordering::Relaxed) || round == 8 {
                        return;
                    }
                    scene.relay.cut(if round % 3 == 2 { 1 } else { 2 });
                }
            });
            let results: Vec<_> = programs.into_iter().map(thread::JoinHandle::join).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
        let so = |heard: &Heard| matches!(heard, Heard::TunnelPeer { lanes_lost, .. } if *lanes_lost > 0);
        scene.near.hear("lanes were lost", so);
    }
}

#[test]
fn a_lane_cut_in_mid_stream_costs_a_moment_and_not_a_byte() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, true);
    scene.near.hear("both lanes stand", |heard| matches!(heard, Heard::TunnelPeer { lanes: 2, .. }));
    let mut stream = scene.connect();
    stream.set_nodelay(true).unwrap();
    let mut longest = Duration::ZERO;
    for round in 0..300_u32 {
        if round % 60 == 30 {
            scene.relay.cut(2);
        }
        let begin = Instant::now();
        stream.write_all(&round.to_le_bytes()).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_le_bytes(answer), round);
        longest = longest.max(begin.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

#[test]
fn a_slow_network_carries_less_than_programs_say_where_compression_is_on() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, true);
    scene.relay.is_slow.store(true, Ordering::Relaxed);
    let dial = scene.relay.address.clone();
    for (codec, share) in [(0, 1.0..1.2), (1, 0.0..0.5), (3, 0.0..0.5)] {
        for node in [&mut scene.near, &mut scene.far] {
            node.transport.codec = codec;
        }
        scene.far.know(&[scene.near.named("peer", "")]);
        let named = scene.far.named("peer", &dial);
        scene.near.know(&[named]);
        let before = scene.relay.bytes.load(Ordering::Relaxed);
        let stream = scene.connect();
        let mut reader = stream.try_clone().unwrap();
        let text: Vec<u8> =
            (0..500_000_u32).flat_map(|row| format!("row {row} of a table\n").into_bytes()).collect();
        let expected = text.clone();
        let reading = thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            assert!(received == expected, "other bytes came back");
        });
        let mut stream = stream;
        stream.write_all(&text).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reading.join().unwrap();
        let passed = scene.relay.bytes.load(Ordering::Relaxed) - before;
        let found = passed as f64 / (2.0 * text.len() as f64);
        assert!(share.contains(&found), "codec {codec}: {found}");
    }
}

#[test]
fn an_end_and_a_break_are_passed_on_as_what_they_are() {
    // The target answers only once the program has ended its direction: a half close that became a close would lose it.
    let target = serve(|mut stream| {
        let mut asked = Vec::new();
        if stream.read_to_end(&mut asked).is_ok() {
            drop(stream.write_all(&asked));
        }
    });
    let scene = Scene::new(CLEAR, &target, true);
    exchange(scene.connect(), 100_000, 3);

    // A target that breaks off.
    let breaking = serve(|mut stream| {
        let mut byte = [0];
        drop(stream.read_exact(&mut byte));
        break_off(stream);
    });
    let scene = Scene::new(CLEAR, &breaking, true);
    let mut stream = scene.connect();
    stream.write_all(b"x").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // A program that breaks off.
    let broken = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&broken);
    let target = serve(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        let error = stream.read(&mut [0; 10]).map_err(|error| error.kind());
        seen.store(1 + u64::from(error == Err(std::io::ErrorKind::ConnectionReset)), Ordering::Release);
    });
    let mut scene = Scene::new(CLEAR, &target, true);
    let mut stream = scene.connect();
    stream.read_exact(&mut [0; 5]).unwrap();
    break_off(stream);
    scene.near.until("the target hears of it", |_| broken.load(Ordering::Acquire) > 0);
    assert_eq!(broken.load(Ordering::Acquire), 2, "it was told of an end, not of a break");
}

fn break_off(stream: TcpStream) {
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

#[test]
fn forbidden_and_absent_targets_are_refused_with_the_way_out() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, false);
    assert!(is_refused(scene.connect()));
    let text = scene.refusal();
    assert!(text.contains("tunnels.allow") && text.contains(&target), "{text}");

    let nobody = address();
    let mut scene = Scene::new(CLEAR, &nobody, true);
    assert!(is_refused(scene.connect()));
    let text = scene.refusal();
    assert!(text.contains(&nobody) && text.contains("refused"), "{text}");
}

/// The connection breaks off without a byte.
fn is_refused(mut stream: TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_ping_makes_its_lane_and_says_why_it_cannot() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, true);
    let dial = scene.relay.address.clone();
    scene.near.tunnels.clear();
    let named = scene.far.named("peer", &dial);
    scene.near.know(&[named]);
    for token in 1..4 {
        scene.near.order(0, &Command::Ping(Ping { token, peer: b"peer" }));
        scene.near.hear("an answer", |heard| {
            matches!(heard, Heard::Pong(found, rtt_ns, text) if *found == token && *rtt_ns > 0 && text.is_empty())
        });
    }
    for (peer, part) in [(&b"stranger"[..], "`peers:`"), (b"peer", "")] {
        if part.is_empty() {
            // Nobody there any more: the lanes go, and none comes.
            scene.far.kill();
        }
        scene.near.until("the answer", |near| {
            near.order(0, &Command::Ping(Ping { token: 9, peer }));
            let heard = near.hear("an answer", |heard| matches!(heard, Heard::Pong(9, ..)));
            matches!(heard, Heard::Pong(_, 0, text) if text.contains(part) && !text.is_empty())
        });
    }
}

#[test]
fn a_listener_that_is_taken_says_so_and_comes_when_it_is_free() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, true);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.entrance = taken.local_addr().unwrap().to_string();
    scene.near.tunnels = vec![(scene.entrance.clone(), target)];
    let dial = scene.relay.address.clone();
    let named = scene.far.named("peer", &dial);
    scene.near.know(&[named]);
    let text = scene.until_state(TunnelState::Failed);
    assert!(text.contains(&scene.entrance) && text.contains("taken") && text.contains("ss -ltnp"), "{text}");
    drop(taken);
    scene.until_state(TunnelState::Listening);
    exchange(scene.connect(), 1000, 1);
}

#[test]
fn a_peer_killed_and_started_again_breaks_connections_and_takes_new_ones() {
    let target = echo();
    let mut scene = Scene::new(CLEAR, &target, true);
    let mut old = scene.connect();
    old.write_all(b"before").unwrap();
    old.read_exact(&mut [0; 6]).unwrap();
    scene.far.kill();
    scene.far.restart();
    scene.far.know(&[scene.near.named("peer", "")]);
    assert!(old.read(&mut [0]).is_err(), "the other end has forgotten it");
    exchange(scene.connect(), 10_000, 2);

    // The end that listens.
    let mut old = scene.connect();
    old.write_all(b"before").unwrap();
    old.read_exact(&mut [0; 6]).unwrap();
    scene.near.kill();
    scene.near.restart();
    let dial = scene.relay.address.clone();
    let named = scene.far.named("peer", &dial);
    scene.near.know(&[named]);
    scene.until_state(TunnelState::Listening);
    exchange(scene.connect(), 10_000, 3);
}

#[test]
fn who_does_not_read_holds_up_nobody_and_little_memory() {
    let target = serve(|mut stream| {
        let mut asked = [0];
        if stream.read_exact(&mut asked).is_ok() {
            let piece = [asked[0]; 64 * 1024];
            for _ in 0..1024 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let scene = Scene::new(CLEAR, &target, true);
    let mut lazy: Vec<TcpStream> = (0..20).map(|_| scene.connect()).collect();
    for stream in &mut lazy {
        stream.write_all(b"x").unwrap();
    }
    let mut stream = scene.connect();
    stream.write_all(b"y").unwrap();
    let mut count = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        assert!(buffer[..read].iter().all(|&byte| byte == b'y'));
        count += read;
    }
    assert_eq!(count, 64 << 20);
    // 20 windows of 64 KiB, which had no reason to grow far, and the buffers of two dataplanes.
    let most = scene.near.resident_most().max(scene.far.resident_most());
    assert!(most < 220 << 20, "{} MiB", most >> 20);
}
