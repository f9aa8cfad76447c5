//! A door against peers whose TLS is in order and whose intentions are not: impostors, and known nodes that break
//! the rules of the greeting.
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use dwcp_abi::wire::hello::{GREETING_MAX, Greeting, Hello, REFUSE_VERSION, Refuse, Welcome};
use rustls::Connection;

use super::tls::Tls;
use super::tls::testing::impostor;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Event {
    Lane(LaneReady),
    Failed(DialFailed),
}

struct Forward(crossbeam_channel::Sender<Event>);

impl LaneSink for Forward {
    fn lane_ready(&mut self, lane: LaneReady) {
        self.0.send(Event::Lane(lane)).ok();
    }
    fn dial_failed(&mut self, failed: DialFailed) {
        self.0.send(Event::Failed(failed)).ok();
    }
}

struct Node {
    door: Door,
    identity: Identity,
    events: Receiver<Event>,
}

impl Node {
    /// Knows `peer`, at `address`.
    fn that_knows(peer: &Identity, address: &str) -> Self {
        let identity = Identity::generate().expect("identity");
        let (sender, events) = unbounded();
        let config = DoorConfig::new(vec![SocketAddr::from(([127, 0, 0, 1], 0))], 1, 1 << 20, 1 << 20);
        let door = Door::open(config, &identity, Box::new(Forward(sender))).expect("open");
        let (name, address) = (PeerName::from("peer"), address.to_owned());
        let peers = vec![PlanPeer { name, fingerprint: peer.fingerprint(), address }];
        door.handle().set_plan(Arc::new(Plan { peers, ..Plan::default() }));
        Self { door, identity, events }
    }

    fn until(&self, so: impl Fn(Figures) -> bool) {
        let started = Instant::now();
        while !so(self.door.counters().figures()) {
            assert!(started.elapsed() < PATIENCE, "{:?}", self.door.counters().figures());
            thread::yield_now();
        }
    }

    fn failure(&self) -> DialFailed {
        match self.events.recv_timeout(PATIENCE).expect("an event") {
            Event::Failed(failed) => failed,
            Event::Lane(lane) => panic!("{lane:?}"),
        }
    }

    /// A connection to this node's door, its TLS complete as far as the dialler can tell.
    fn dialled_by(&self, tls: &Tls) -> Client {
        let mut stream = TcpStream::connect(self.door.addresses()[0]).expect("connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("socket");
        let address = [127, 0, 0, 1].into();
        let (connection, _) = tls.dial(self.identity.fingerprint(), address).expect("connection");
        let mut connection = Connection::from(connection);
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("handshake");
        }
        Client { connection, stream }
    }
}

/// A peer whose greeting is the test's.
struct Client {
    connection: Connection,
    stream: TcpStream,
}

impl Client {
    /// Sends plain bytes in one record.
    fn say(&mut self, plain: &[u8]) {
        self.connection.writer().write_all(plain).expect("memory");
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.stream).expect("sent");
        }
    }

    /// What the other end says until it ends, or until so much of it is here.
    fn hear(&mut self, enough: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < enough {
            let mut part = [0; 2048];
            match self.connection.reader().read(&mut part) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match self.connection.read_tls(&mut self.stream) {
                        Ok(1..) if self.connection.process_new_packets().is_ok() => {}
                        _ => break,
                    }
                }
                Err(_) => break,
            }
        }
        heard
    }
}

fn hello() -> Hello {
    let (chunk_length_max, credit_bytes) = (4096, 1 << 16);
    Hello {
        versions: VERSIONS,
        features: 0,
        instance: 2,
        token: 3,
        clear: false,
        chunk_length_max,
        credit_bytes,
    }
}

fn welcome() -> Welcome {
    let (chunk_length_max, credit_bytes) = (4096, 1 << 16);
    Welcome { version: 1, features: 0, instance: 2, clear: false, chunk_length_max, credit_bytes }
}

fn framed(greeting: &Greeting<'_>) -> Vec<u8> {
    let mut bytes = [0; GREETING_MAX];
    let length = greeting.encode_framed(&mut bytes).expect("fits");
    bytes[..length].to_vec()
}

#[test]
fn a_known_certificate_without_its_key_opens_nothing() {
    let (known, stranger) =
        (Identity::generate().expect("identity"), Identity::generate().expect("identity"));
    let node = Node::that_knows(&known, "");
    let mut client = node.dialled_by(&impostor(&known, &stranger));
    assert_eq!(client.hear(1), b"");
    node.until(|figures| figures.failed + figures.refused == 1);
    assert!(node.events.is_empty());
    // The same certificate with its key does.
    let mut client = node.dialled_by(&Tls::new(&known));
    client.say(&framed(&Greeting::Hello(hello())));
    assert!(matches!(node.events.recv_timeout(PATIENCE), Ok(Event::Lane(_))));
}

#[test]
fn greetings_that_break_the_rules_come_to_nothing() {
    let known = Identity::generate().expect("identity");
    let node = Node::that_knows(&known, "");
    let hello = framed(&Greeting::Hello(hello()));
    let followed = [&hello[..], b"frame"].concat();
    let long = [&hello[..], &[0; 3000]].concat();
    let welcome = framed(&Greeting::Welcome(welcome()));
    let broken = [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &followed,
        &long,
        &welcome,
        &[0; 64],
        b"DWCP\xff\xff",
        b"DWCP\x01\x00\x09",
    ];
    for (before, bytes) in broken.iter().enumerate() {
        let mut client = node.dialled_by(&Tls::new(&known));
        client.say(bytes);
        assert_eq!(client.hear(1), b"", "{bytes:?}");
        node.until(|figures| figures.failed == before as u64 + 1);
    }
    node.until(|figures| figures.half_open == 0);
    assert!(node.events.is_empty());
}

#[test]
fn a_greeting_cut_short_is_no_greeting() {
    let known = Identity::generate().expect("identity");
    let node = Node::that_knows(&known, "");
    let hello = framed(&Greeting::Hello(hello()));
    for (before, end) in (0..hello.len()).step_by(9).enumerate() {
        let mut client = node.dialled_by(&Tls::new(&known));
        client.say(&hello[..end]);
        client.connection.send_close_notify();
        client.say(b"");
        assert_eq!(client.hear(1), b"");
        node.until(|figures| figures.failed == before as u64 + 1);
    }
    assert!(node.events.is_empty());
}

#[test]
fn a_greeting_in_many_records_is_one() {
    let known = Identity::generate().expect("identity");
    let node = Node::that_knows(&known, "");
    let mut client = node.dialled_by(&Tls::new(&known));
    for byte in framed(&Greeting::Hello(hello())) {
        client.say(&[byte]);
    }
    let Ok(Event::Lane(lane)) = node.events.recv_timeout(PATIENCE) else { panic!("no lane") };
    assert_eq!((lane.instance, lane.token, lane.chunk_length_max, lane.credit_bytes), (2, 3, 4096, 1 << 16));
    let heard = client.hear(framed(&Greeting::Welcome(welcome())).len());
    assert!(matches!(Greeting::decode_framed(&heard), Ok(Some((Greeting::Welcome(_), _)))));
}

/// Answers one dial with these plain bytes, or with a close where there are none.
fn acceptor(tls: Tls, knows: &Identity, answer: Vec<u8>) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("address").to_string();
    let (name, fingerprint) = (PeerName::from("dialler"), knows.fingerprint());
    let peers = vec![PlanPeer { name, fingerprint, address: String::new() }];
    let plan = Arc::new(Plan { peers, ..Plan::default() });
    let thread = thread::spawn(move || {
        let (connection, _) = tls.accept(plan).expect("connection");
        let stream = listener.accept().expect("a dial").0;
        stream.set_read_timeout(Some(PATIENCE)).expect("socket");
        let mut client = Client { connection: connection.into(), stream };
        while client.connection.is_handshaking() {
            if client.connection.complete_io(&mut client.stream).is_err() {
                return;
            }
        }
        if !answer.is_empty() {
            client.hear(framed(&Greeting::Hello(hello())).len());
            client.say(&answer);
        }
    });
    (address, thread)
}

/// What the dial of a node comes to whose peer answers so. The plan's address is known only after the acceptor
/// listens, which needs the node's identity: so the plan is set twice.
fn dial_answered_with(answer: Vec<u8>, tls: impl FnOnce(&Identity) -> Tls) -> DialFailed {
    let peer = Identity::generate().expect("identity");
    let node = Node::that_knows(&peer, "");
    let (address, thread) = acceptor(tls(&peer), &node.identity, answer);
    let (name, fingerprint) = (PeerName::from("peer"), peer.fingerprint());
    let peers = vec![PlanPeer { name: name.clone(), fingerprint, address: address.clone() }];
    node.door.handle().set_plan(Arc::new(Plan { peers, ..Plan::default() }));
    node.door
        .handle()
        .dial(DialOrder { peer: name, lanes: 1, token: 0, purpose: Purpose::Jobs })
        .expect("room");
    let failed = node.failure();
    assert!(failed.reason.contains(&address), "{}", failed.reason);
    thread.join().expect("acceptor");
    failed
}

#[test]
fn an_acceptor_that_breaks_the_rules_gets_no_lane() {
    let answer = |change: fn(&mut Welcome)| {
        let mut changed = welcome();
        change(&mut changed);
        framed(&Greeting::Welcome(changed))
    };
    let followed = [answer(|_| {}), b"frame".to_vec()].concat();
    for bytes in [
        answer(|welcome| welcome.clear = true),
        framed(&Greeting::Hello(hello())),
        followed,
        vec![0; 50],
        Vec::new(),
    ] {
        let failed = dial_answered_with(bytes.clone(), Tls::new);
        assert_eq!(failed.failure, DialFailure::Broken, "{bytes:?}: {}", failed.reason);
    }
    for version in [0, 2, u16::MAX] {
        let failed =
            dial_answered_with(framed(&Greeting::Welcome(Welcome { version, ..welcome() })), Tls::new);
        assert_eq!(failed.failure, DialFailure::Version, "{}", failed.reason);
    }
}

#[test]
fn a_refusal_is_passed_on() {
    let refuse = |code| Greeting::Refuse(Refuse { code, versions: VERSIONS, text: b"not at this hour" });
    for (code, expected) in [(REFUSE_VERSION, DialFailure::Version), (77, DialFailure::Broken)] {
        let failed = dial_answered_with(framed(&refuse(code)), Tls::new);
        assert_eq!(failed.failure, expected);
        assert!(failed.reason.contains("not at this hour"), "{}", failed.reason);
    }
}

#[test]
fn an_impostor_at_the_address_gets_no_lane() {
    let failed = dial_answered_with(framed(&Greeting::Welcome(welcome())), |peer| {
        impostor(peer, &Identity::generate().expect("identity"))
    });
    assert_eq!(failed.failure, DialFailure::Broken, "{}", failed.reason);
}
