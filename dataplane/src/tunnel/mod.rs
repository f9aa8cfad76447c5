//! Tunnels: programs' TCP connections, carried over lanes of their own to the peer, which connects them to their targets.
//! One thread ([`turn`]) for the whole node: it listens, connects, and moves bytes between programs' sockets and lanes as
//! the core ([`dwcp_engine::Mux`], one for each peer) says. Workers never see a tunnelled byte, and interactive bytes never
//! stand behind bulk in a socket's queue.
//!
//! Where a peer's connections may go is this node's decision ([`crate::plan::Plan::allows_tunnel`]); where its own go is
//! the peer's.
mod coding;
mod figures;
mod lane;
mod listener;
mod peer;
mod program;
mod sources;
mod target;
mod turn;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::door::{DialFailed, DoorHandle, LaneReady, PeerName};
use crate::node::Node;
use crate::plan::Plan;

pub use figures::Report;

/// The way into the tunnels' thread, from any other.
#[derive(Debug, Clone)]
pub struct Tunnels {
    messages: Sender<Message>,
    wake: Arc<EventFd>,
    turns: Arc<AtomicU64>,
}

/// What other threads say. Only the door and the link do, both at a bounded pace.
#[derive(Debug)]
pub enum Message {
    /// Another plan is in force.
    Plan(Arc<Plan>),
    /// A lane for tunnels stands.
    Lane(Box<LaneReady>),
    /// A lane for tunnels will not come.
    DialFailed(DialFailed),
    /// Measure a round trip.
    Ping {
        /// Whose.
        peer: PeerName,
        /// Comes back with the answer.
        token: u64,
    },
    /// End everything.
    Stop,
}

/// The thread's end of [`Tunnels`].
#[derive(Debug)]
pub struct TunnelInbox {
    messages: Receiver<Message>,
    wake: Arc<EventFd>,
    turns: Arc<AtomicU64>,
}

impl Tunnels {
    /// Both ends.
    ///
    /// # Errors
    /// The system's, when it has no event for waking up.
    pub fn channel() -> io::Result<(Self, TunnelInbox)> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(io::Error::from)?);
        let (sender, messages) = unbounded();
        let turns = Arc::new(AtomicU64::new(0));
        let tunnels = Self { messages: sender, wake: Arc::clone(&wake), turns: Arc::clone(&turns) };
        Ok((tunnels, TunnelInbox { messages, wake, turns }))
    }

    /// Turns of the thread, which takes one a second at least: what stays the same hangs.
    #[must_use]
    pub fn turns(&self) -> u64 {
        // Stands alone.
        self.turns.load(Ordering::Relaxed)
    }

    /// Says something to the thread.
    pub fn post(&self, message: Message) {
        // A thread that has ended needs to hear nothing; a full counter means that it is awake.
        if self.messages.send(message).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Starts the thread. It ends by [`Message::Stop`].
///
/// # Errors
/// The system's, when the thread or its epoll instance cannot be had.
pub fn start(inbox: TunnelInbox, door: DoorHandle, node: Arc<Node>) -> io::Result<JoinHandle<()>> {
    let turn = turn::Turn::new(inbox, door, node)?;
    thread::Builder::new().name("dwcp-tunnel".to_owned()).spawn(move || turn.run())
}
