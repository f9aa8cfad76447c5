//! How lanes come into being: the door dials and accepts TCP connections, makes the TLS 1.3 handshake with both ends
//! known by fingerprint, exchanges the greeting, and hands each finished lane over: its socket, its secrets, and
//! what was agreed.
//!
//! One thread ([`turn`]) does it for the whole node, so that no worker ever waits for a handshake. It carries no
//! frame, chooses no worker and tries nothing twice: the [`LaneSink`] hears of every lane that stands and of every
//! dial that came to nothing, and decides. The number of connections without a finished greeting is bounded, as is
//! the time each of them may take.
mod accept;
mod attempt;
mod counters;
mod dial;
mod exact;
mod handshake;
mod outcome;
mod pairing;
mod parting;
mod plan;
mod report;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod tls;
mod turn;
mod verify;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use crossbeam_channel::{Sender, TrySendError, bounded};
use dwcp_abi::wire::hello::{FEATURE_TUNNEL, VERSIONS, VersionRange};
use dwcp_sys::rdma::QueuePair;
use nix::sys::eventfd::{EfdFlags, EventFd};

pub use counters::{Counters, Figures};
pub use plan::{Payload, PeerName, Plan, PlanPeer, SocketOptions};

use crate::identity::Identity;
use crate::listeners::Listeners;
use crate::rdma::Rdma;
use crate::record::LaneSecrets;
use accept::Gate;

/// What a door is opened with; the rest is the [`Plan`]'s and may change.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Addresses to listen at; may be empty. Port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Where listeners come from.
    pub listeners: Arc<Listeners>,
    /// Random, new at every start of the dataplane: tells peers that this node has begun anew.
    pub instance: u64,
    /// Protocol versions to speak: [`VERSIONS`].
    pub versions: VersionRange,
    /// Feature bits to offer.
    pub features: u64,
    /// Most payload bytes of a chunk that this node takes.
    pub chunk_length_max: u32,
    /// Bytes that a peer may send on a lane before the first credit.
    pub credit_bytes: u64,
    /// Bounds.
    pub limits: DoorLimits,
    /// Whether lanes may go over RDMA.
    pub rdma: Arc<Rdma>,
}

/// Bounds of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// Accepted connections without a finished greeting; more wait in the kernel's backlog.
    pub accepting_max: usize,
    /// Of those, from one source (an IPv4 address or an IPv6 /64); more are closed at once.
    pub accepting_per_source_max: usize,
    /// Dialled connections without a finished greeting; more wait for their turn.
    pub dialling_max: usize,
    /// Of those, to one peer. Not above the peer's `accepting_per_source_max`, or it turns some away.
    pub dialling_per_peer_max: usize,
    /// Orders that wait; more fail.
    pub orders_max: usize,
    /// Name look-ups at a time.
    pub resolvers_max: usize,
}

/// A lane that stands. Its socket blocks (`O_NONBLOCK` is off), and the next byte from it is the first behind the
/// greeting. **The acceptor must send nothing before it has received a first frame.**
#[derive(Debug)]
pub struct LaneReady {
    /// The socket.
    pub fd: OwnedFd,
    /// Who is at the other end, by the plan.
    pub peer: PeerName,
    /// Which end this node is.
    pub direction: Direction,
    /// What it carries.
    pub purpose: Purpose,
    /// The peer's `instance`.
    pub instance: u64,
    /// The token of the [`DialOrder`], at both ends.
    pub token: u64,
    /// The protocol version to speak.
    pub version: u16,
    /// Feature bits that both understand.
    pub features: u64,
    /// Most payload bytes of a chunk, either way: the smaller of both limits.
    pub chunk_length_max: u32,
    /// Bytes that this node may send before the first credit.
    pub credit_bytes: u64,
    /// Keys of the record layer; `None` where both ends have agreed to go on in clear.
    pub secrets: Option<LaneSecrets>,
    /// What the lane's bytes go over; `None` = the socket. With it the socket must stay silent.
    pub pair: Option<QueuePair>,
    /// The other end of the socket.
    pub remote: SocketAddr,
}

/// Which end of a lane this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It connected.
    Dialled,
    /// The peer did.
    Accepted,
}

/// What a lane carries. The dialler says so by a feature bit that both ends must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Frames of jobs, for a worker.
    Jobs,
    /// Frames of tunnelled connections.
    Tunnels,
}

impl Purpose {
    /// The bits that a greeting must have.
    const fn features(self) -> u64 {
        match self {
            Self::Jobs => 0,
            Self::Tunnels => FEATURE_TUNNEL,
        }
    }

    /// By the bits that both ends know.
    const fn of(features: u64) -> Self {
        if features & FEATURE_TUNNEL == 0 { Self::Jobs } else { Self::Tunnels }
    }
}

/// Lanes of an order that will not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailed {
    /// The peer of the order.
    pub peer: PeerName,
    /// The token of the order.
    pub token: u64,
    /// What they were to carry.
    pub purpose: Purpose,
    /// How many of its lanes this is about.
    pub lanes: u16,
    /// Why, for the program.
    pub failure: DialFailure,
    /// Why, for a person: names the peer and its address, and the way out.
    pub reason: String,
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// The plan has no such peer, or no address for it.
    NoPeer,
    /// The name has no address, or none was found in time.
    Unresolved,
    /// No address takes the connection.
    Unreachable,
    /// The connection or the greeting was not complete in time.
    TimedOut,
    /// Another node than the expected answers at the address.
    WrongIdentity,
    /// The peer does not accept this node's identity.
    NotAccepted,
    /// No protocol version in common.
    Version,
    /// What answers is not a working DWCP node, or broke off.
    Broken,
    /// Too many orders wait, or the door is closing.
    Busy,
}

impl DialFailure {
    /// Every other lane to the same peer would fail alike, until somebody changes something.
    #[must_use]
    pub fn concerns_peer(self) -> bool {
        match self {
            Self::NoPeer
            | Self::Unresolved
            | Self::Unreachable
            | Self::TimedOut
            | Self::WrongIdentity
            | Self::NotAccepted
            | Self::Version => true,
            Self::Broken | Self::Busy => false,
        }
    }
}

/// An order to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialOrder {
    /// Whom.
    pub peer: PeerName,
    /// How many lanes.
    pub lanes: u16,
    /// Comes back with each lane, at both ends.
    pub token: u64,
    /// What they shall carry.
    pub purpose: Purpose,
}

/// Takes what comes out of the door. Called on the door's thread: it must not block.
pub trait LaneSink: Send {
    /// A lane stands.
    fn lane_ready(&mut self, lane: LaneReady);
    /// Ordered lanes will not come.
    fn dial_failed(&mut self, failed: DialFailed);
}

/// An open door; closes when dropped.
#[derive(Debug)]
pub struct Door {
    handle: DoorHandle,
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// Gives orders to a door, from any thread.
#[derive(Debug, Clone)]
pub struct DoorHandle {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// An address cannot be listened at.
    #[error(
        "cannot listen at {address}: {source}; is another process using it? (`peer.listen` names the address)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The door's thread or its wake-up could not be made.
    #[error("cannot start the door: {0}")]
    Start(#[from] io::Error),
}

/// The door takes no order at present, or no more at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the door takes no order")]
pub struct DoorBusy;

#[derive(Debug)]
enum Order {
    SetPlan(Arc<Plan>),
    Dial(DialOrder),
    Stop,
}

impl DoorConfig {
    /// This build's versions and the default bounds.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>, instance: u64, chunk_length_max: u32, credit_bytes: u64) -> Self {
        let limits = DoorLimits::default();
        Self {
            listen,
            listeners: Arc::default(),
            instance,
            versions: VERSIONS,
            features: 0,
            chunk_length_max,
            credit_bytes,
            limits,
            rdma: Arc::default(),
        }
    }
}

/// 64 half-open connections: 32 either way, 16 of one source or to one peer.
impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            accepting_max: 32,
            accepting_per_source_max: 16,
            dialling_max: 32,
            dialling_per_peer_max: 16,
            orders_max: 1024,
            resolvers_max: 4,
        }
    }
}

impl Door {
    /// Listens, and starts the thread. Until the first plan nobody is let in: who connects waits.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn open(config: DoorConfig, identity: &Identity, sink: Box<dyn LaneSink>) -> Result<Self, DoorError> {
        let mut gates = Vec::with_capacity(config.listen.len());
        let mut addresses = Vec::with_capacity(config.listen.len());
        for &address in &config.listen {
            let failed = |source| DoorError::Listen { address, source };
            let gate = Gate::open(address, &config.listeners).map_err(failed)?;
            addresses.push(gate.address().map_err(failed)?);
            gates.push(gate);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(io::Error::from)?);
        let (sender, orders) = bounded(ORDERS_IN_CHANNEL);
        let counters = Arc::new(Counters::default());
        let parts =
            turn::Parts { gates, orders, wake: Arc::clone(&wake), counters: Arc::clone(&counters), sink };
        let turn = turn::Turn::new(config, identity, parts);
        let thread = thread::Builder::new().name("dwcp-door".to_owned()).spawn(move || turn.run())?;
        Ok(Self { handle: DoorHandle { orders: sender, wake }, addresses, counters, thread: Some(thread) })
    }

    /// For giving orders.
    #[must_use]
    pub fn handle(&self) -> DoorHandle {
        self.handle.clone()
    }

    /// Where it listens, in the order of [`DoorConfig::listen`], with the ports that it got.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its figures; they outlive it.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the door's thread had panicked");
        }
    }
}

impl DoorHandle {
    /// Replaces the plan. Greetings that are under way end under the new one: who is not in it is let go.
    pub fn set_plan(&self, plan: Arc<Plan>) {
        // A closed door needs no plan.
        if self.orders.send(Order::SetPlan(plan)).is_ok() {
            self.ring();
        }
    }

    /// Orders lanes. Each comes to the [`LaneSink`], or is counted in a [`DialFailed`] there.
    ///
    /// # Errors
    /// [`DoorBusy`]: nothing was ordered.
    pub fn dial(&self, order: DialOrder) -> Result<(), DoorBusy> {
        match self.orders.try_send(Order::Dial(order)) {
            Ok(()) => {
                self.ring();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(DoorBusy),
        }
    }

    fn stop(&self) {
        // It has stopped already where nobody receives.
        if self.orders.send(Order::Stop).is_ok() {
            self.ring();
        }
    }

    fn ring(&self) {
        // Fails only where the counter is full, and then the door is awake anyway.
        let _ = self.wake.write(1);
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialled => "dialled",
            Self::Accepted => "accepted",
        })
    }
}

const ORDERS_IN_CHANNEL: usize = 1024;

#[cfg(test)]
mod tests;
