//! Nodes for the tests of the door: an identity, an open door, and everything that came out of it.
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use dwcp_dataplane::door::{
    DialFailed, DialOrder, Door, DoorConfig, Figures, LaneReady, LaneSink, Payload, PeerName, Plan, PlanPeer,
    Purpose,
};
use dwcp_dataplane::identity::{Fingerprint, Identity};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

/// Longest that a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What came out of a door.
#[derive(Debug)]
pub(crate) enum Event {
    Lane(LaneReady),
    Failed(DialFailed),
}

/// Sends on what comes out of a door.
pub(crate) struct Forward(pub(crate) Sender<Event>);

impl LaneSink for Forward {
    fn lane_ready(&mut self, lane: LaneReady) {
        self.0.send(Event::Lane(lane)).ok();
    }
    fn dial_failed(&mut self, failed: DialFailed) {
        self.0.send(Event::Failed(failed)).ok();
    }
}

/// The figures at one moment.
pub(crate) struct Seen {
    pub(crate) figures: Figures,
}

pub(crate) struct Node {
    pub(crate) door: Door,
    pub(crate) instance: u64,
    identity: Identity,
    events: Receiver<Event>,
    lanes: RefCell<usize>,
}

impl Node {
    pub(crate) fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub(crate) fn open_with(change: impl FnOnce(&mut DoorConfig)) -> Self {
        let identity = Identity::generate().expect("identity");
        let instance = u64::from_le_bytes(*identity.fingerprint().0.first_chunk().expect("32 bytes"));
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = DoorConfig::new(vec![any_port], instance, 1 << 20, 1 << 22);
        change(&mut config);
        let (sender, events) = unbounded();
        let door = Door::open(config, &identity, Box::new(Forward(sender))).expect("open");
        Self { door, instance, identity, events, lanes: RefCell::new(0) }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.door.addresses()[0]
    }

    pub(crate) fn set_plan(&self, plan: Plan) {
        self.door.handle().set_plan(Arc::new(plan));
    }

    /// Gives this node a plan with `other` in it, as `name`.
    pub(crate) fn knows(&self, name: &str, other: &Self, payload: Payload) {
        let plan = plan(&[(name, other.fingerprint(), &other.address().to_string())]);
        self.set_plan(Plan { payload, ..plan });
    }

    pub(crate) fn dial(&self, peer: &str, lanes: u16, token: u64) {
        let purpose = Purpose::Jobs;
        let order = DialOrder { peer: PeerName::from(peer), lanes, token, purpose };
        self.door.handle().dial(order).expect("room for an order");
    }

    pub(crate) fn lane(&self) -> LaneReady {
        match self.events.recv_timeout(PATIENCE).expect("an event") {
            Event::Lane(lane) => {
                *self.lanes.borrow_mut() += 1;
                lane
            }
            Event::Failed(failed) => panic!("{failed:?}"),
        }
    }

    pub(crate) fn failure(&self) -> DialFailed {
        match self.events.recv_timeout(PATIENCE).expect("an event") {
            Event::Failed(failed) => failed,
            Event::Lane(lane) => panic!("{lane:?}"),
        }
    }

    /// Lanes that have come, taken or not.
    pub(crate) fn lanes_so_far(&self) -> usize {
        *self.lanes.borrow() + self.events.len()
    }

    /// Waits until the figures are so.
    pub(crate) fn until(&self, so: impl Fn(Seen) -> bool) {
        let started = Instant::now();
        let counters = self.door.counters();
        while !so(Seen { figures: counters.figures() }) {
            assert!(started.elapsed() < PATIENCE, "{:?}", counters.figures());
            std::thread::yield_now();
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("socket");
        stream
    }

    /// Connects from a certain local address.
    pub(crate) fn connect_from(&self, source: IpAddr) -> TcpStream {
        let socket = unconnected();
        let local = SockaddrStorage::from(SocketAddr::new(source, 0));
        bind(socket.as_raw_fd(), &local).expect("local address");
        connect(socket, self.address())
    }

    /// Closes the door; what came out of it remains.
    pub(crate) fn close(self) -> Receiver<Event> {
        let Self { door, events, .. } = self;
        drop(door);
        events
    }
}

/// A TCP socket.
pub(crate) fn unconnected() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket")
}

/// Connects it.
pub(crate) fn connect(socket: OwnedFd, address: SocketAddr) -> TcpStream {
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).expect("connection");
    socket.into()
}

/// A plan with these peers: name, fingerprint, address.
pub(crate) fn plan(peers: &[(&str, Fingerprint, &str)]) -> Plan {
    let peer = |(name, fingerprint, address): &(&str, Fingerprint, &str)| PlanPeer {
        name: PeerName::from(*name),
        fingerprint: *fingerprint,
        address: (*address).to_owned(),
    };
    Plan { peers: peers.iter().map(peer).collect(), ..Plan::default() }
}

/// An address where a connection is refused as long as the socket beside it lives: bound, but not listening.
pub(crate) fn deaf_address() -> (SocketAddr, OwnedFd) {
    let deaf = unconnected();
    bind(deaf.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 1], 0)))).expect("port");
    let stream = TcpStream::from(deaf);
    (stream.local_addr().expect("address"), stream.into())
}

/// The first flight of a stranger who asks for this application; empty = for none.
pub(crate) fn client_hello(alpn: &[u8]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = Some(alpn.to_vec()).filter(|alpn| !alpn.is_empty()).into_iter().collect();
    let name = "peer".try_into().expect("name");
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("connection");
    let mut flight = Vec::new();
    connection.write_tls(&mut flight).expect("memory");
    flight
}

/// A listener that takes connections and says nothing.
pub(crate) fn silent_listener() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    (listener.local_addr().expect("address"), listener)
}
