//! A peer that the plan knows and that means ill: it passes the door as every peer does, and then sends what it
//! likes, or nothing.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dwcp_abi::wire::{
    CHUNK_BYTES, FLAG_OWNER, FRAME_HEADER_BYTES, FrameHeader, FrameKind, JobOpen, TreeOptions, checksum,
};
use dwcp_dataplane::door::{
    DialFailed, DialOrder, Door, DoorConfig, LaneReady, LaneSink, Payload, PeerName, Plan, PlanPeer, Purpose,
};
use dwcp_dataplane::identity::{Fingerprint, Identity};

use crate::node::{Named, Node, PATIENCE};

/// The ill-meaning peer.
pub(crate) struct Stranger {
    identity: Identity,
    door: Door,
    lanes: Receiver<LaneReady>,
}

/// One of its lanes, in clear.
pub(crate) struct Line {
    pub(crate) stream: TcpStream,
}

struct Sink(Sender<LaneReady>);

impl LaneSink for Sink {
    fn lane_ready(&mut self, lane: LaneReady) {
        // The test may be over.
        drop(self.0.send(lane));
    }
    fn dial_failed(&mut self, failed: DialFailed) {
        eprintln!("{failed:?}");
    }
}

impl Stranger {
    pub(crate) fn new() -> Self {
        let identity = Identity::generate().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (sender, lanes) = unbounded();
        let config = DoorConfig::new(vec![any_port], 1, CHUNK_BYTES, 0);
        let door = Door::open(config, &identity, Box::new(Sink(sender))).unwrap();
        Self { identity, door, lanes }
    }

    pub(crate) fn named<'a>(&self, address: &'a str) -> Named<'a> {
        Named { name: "stranger", fingerprint: self.identity.fingerprint().0, address }
    }

    pub(crate) fn address(&self) -> String {
        self.door.addresses()[0].to_string()
    }

    /// Lets a node in, or itself be let in.
    pub(crate) fn know(&self, node: &Node, payload: Payload) {
        let peer = PlanPeer {
            name: PeerName::from("victim"),
            fingerprint: Fingerprint(node.attached().fingerprint),
            address: node.address().to_owned(),
        };
        self.door.handle().set_plan(Arc::new(Plan { peers: vec![peer], payload, ..Plan::default() }));
    }

    /// A new lane to the victim.
    pub(crate) fn dial(&self) -> Line {
        let order = DialOrder { peer: PeerName::from("victim"), lanes: 1, token: 0, purpose: Purpose::Jobs };
        self.door.handle().dial(order).unwrap();
        self.line()
    }

    /// The next lane that stands.
    pub(crate) fn line(&self) -> Line {
        let lane = self.lanes.recv_timeout(PATIENCE).unwrap();
        let stream = TcpStream::from(lane.fd);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Line { stream }
    }
}

impl Line {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Opens a job in the stranger's name.
    pub(crate) fn open(&mut self, job: u64, destination: &str) {
        let open = JobOpen {
            attempt: 1,
            options: TreeOptions::NONE,
            baselines: true,
            packs: 0,
            destination: destination.as_bytes(),
            filters: b"",
        };
        let mut bytes = vec![0; 1024];
        let length =
            dwcp_abi::wire::frame(FrameKind::JobOpen, FLAG_OWNER, job, 1, &open, &mut bytes).unwrap();
        self.say(&bytes[..length]);
    }

    /// The next frame of this kind.
    #[track_caller]
    pub(crate) fn hear(&mut self, kind: FrameKind) -> Vec<u8> {
        loop {
            let mut header = [0; FRAME_HEADER_BYTES];
            self.stream.read_exact(&mut header).unwrap();
            let header = FrameHeader::from_bytes(&header).unwrap();
            let mut payload = vec![0; header.length as usize];
            self.stream.read_exact(&mut payload).unwrap();
            if header.kind == kind {
                return payload;
            }
        }
    }

    /// Waits until the victim has closed the lane. What it says before is of no interest.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self, what: &str) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
}

/// A frame with whatever is in it, and with correct checksums.
pub(crate) fn frame(kind: FrameKind, job: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, job, sequence, payload).to_vec();
    bytes.extend(payload);
    bytes
}

pub(crate) fn header(kind: FrameKind, job: u64, sequence: u64, payload: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let (length, payload_crc) = (payload.len() as u32, checksum(payload));
    FrameHeader { kind, flags: FLAG_OWNER, length, job, sequence, payload_crc }.to_bytes()
}
