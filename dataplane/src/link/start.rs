//! Starting the workers and the door, as control's first `Attach` says.
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use dwcp_abi::link::Attach;
use dwcp_abi::wire::CHUNK_BYTES;
use dwcp_sys::buffers::Wish;
use dwcp_sys::link::Link;
use dwcp_sys::proactor::{BackendChoice, Options};
use dwcp_sys::topology::Topology;

use super::serve::ServeError;
use crate::baselines::Kept;
use crate::door::{DialFailed, Direction, Door, DoorConfig, LaneReady, LaneSink, Purpose};
use crate::identity::Identity;
use crate::jobs::FirstSeen;
use crate::listeners::Listeners;
use crate::node::{Inbox, Node, Turns};
use crate::tunnel::{self, Message, Tunnels};
use crate::worker::{WorkerConfig, WorkerUp, start};

/// A dataplane that runs.
pub(super) struct Running {
    pub(super) node: Arc<Node>,
    pub(super) link: Link,
    pub(super) door: Door,
    pub(super) workers: Vec<WorkerUp>,
    pub(super) tunnels: Tunnels,
    threads: Vec<JoinHandle<()>>,
}

/// Lanes that one worker may have, whatever the plan says.
const LANES_PER_WORKER_MAX: u16 = 512;

impl Running {
    /// Starts everything.
    ///
    /// # Errors
    /// What could not be had.
    pub(super) fn start(
        attach: &Attach<'_>,
        identity: &Identity,
        instance: u64,
        state: &Path,
        listeners: &Arc<Listeners>,
    ) -> Result<Self, ServeError> {
        let cores = cores(attach)?;
        let count = cores.len() as u16;
        let node =
            Arc::new(Node::new(instance, FirstSeen::open(state)?, Kept::open(state)?, Arc::clone(listeners)));
        let link = Link::create(count, instance)?;
        let (tunnels, tunnel_inbox) = Tunnels::channel()?;
        let sink = Sink { node: Arc::clone(&node), turns: Turns::default(), tunnels: tunnels.clone() };
        let mut config = DoorConfig::new(listen(attach)?, instance, CHUNK_BYTES, 0);
        config.listeners = Arc::clone(listeners);
        config.rdma = Arc::clone(&node.rdma);
        let door = Door::open(config, identity, Box::new(sink))?;
        let mut running = Self { node, link, door, workers: Vec::new(), tunnels, threads: Vec::new() };
        for (worker, core) in (0..count).zip(cores) {
            let config = WorkerConfig {
                worker,
                workers: count,
                core,
                proactor: proactor(attach),
                buffer_bytes: attach.buffer_bytes / u64::from(count),
                lanes_max: LANES_PER_WORKER_MAX,
            };
            let (up, thread) = start(
                config,
                &running.node,
                running.door.handle(),
                &running.link.workers[usize::from(worker)],
            )?;
            running.workers.push(up);
            running.threads.push(thread);
        }
        running.node.close_workers();
        let (door, node) = (running.door.handle(), Arc::clone(&running.node));
        // The first to say so has said it.
        drop(node.tunnels.set(running.tunnels.clone()));
        running.threads.push(tunnel::start(tunnel_inbox, door, node)?);
        Ok(running)
    }

    /// Whether a worker, or the tunnels' thread, has ended by itself: the process is of no use any more.
    pub(super) fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends the workers, and waits for them.
    pub(super) fn stop(self) {
        self.tunnels.post(Message::Stop);
        for worker in 0..self.node.worker_count() {
            self.node.post(worker, Inbox::Stop);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker or the tunnels' thread had panicked");
            }
        }
    }
}

fn proactor(attach: &Attach<'_>) -> Options {
    Options {
        backend: match attach.backend {
            1 => BackendChoice::IoUring,
            2 => BackendChoice::Epoll,
            _ => BackendChoice::Auto,
        },
        hugepages: if attach.hugepages { Wish::Wanted } else { Wish::Never },
        ..Options::default()
    }
}

/// The workers' cores: as named, or one per physical core away from control's.
fn cores(attach: &Attach<'_>) -> Result<Vec<Option<usize>>, ServeError> {
    let named: Vec<usize> = attach
        .cores
        .chunks_exact(2)
        .map(|core| usize::from(u16::from_le_bytes([core[0], core[1]])))
        .collect();
    let topology = Topology::of_this_process()?;
    let workers = match (usize::from(attach.workers), named.len()) {
        (0, 0) => topology.physical_cores().saturating_sub(1).clamp(1, WORKERS_AUTO_MAX),
        (0, named) => named,
        (workers, _) => workers.min(usize::from(dwcp_abi::shm::WORKERS_MAX)),
    };
    let chosen = if named.is_empty() { topology.choose_cores(workers, 1) } else { named };
    Ok((0..workers).map(|worker| chosen.get(worker).copied()).collect())
}

/// Workers that are started without being asked for more: each costs buffers.
const WORKERS_AUTO_MAX: usize = 8;

fn listen(attach: &Attach<'_>) -> Result<Vec<SocketAddr>, ServeError> {
    if attach.listen.is_empty() {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(attach.listen).into_owned();
    let addresses =
        text.to_socket_addrs().map_err(|source| ServeError::Listen { text: text.clone(), source })?;
    Ok(addresses.collect())
}

/// Takes lanes from the door to the workers.
struct Sink {
    node: Arc<Node>,
    turns: Turns,
    tunnels: Tunnels,
}

impl LaneSink for Sink {
    fn lane_ready(&mut self, lane: LaneReady) {
        self.node.know_address(lane.remote.ip());
        if lane.purpose == Purpose::Tunnels {
            return self.tunnels.post(Message::Lane(Box::new(lane)));
        }
        let worker = self.turns.take(&lane.peer, self.node.worker_count());
        let mut keeper = self.node.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match lane.direction {
            Direction::Dialled => keeper.dialled(&lane.peer),
            Direction::Accepted => keeper.accepted(&lane.peer),
        }
        drop(keeper);
        self.node.post(worker, Inbox::Lane(Box::new(lane)));
    }

    fn dial_failed(&mut self, failed: DialFailed) {
        if failed.purpose == Purpose::Tunnels {
            return self.tunnels.post(Message::DialFailed(failed));
        }
        tracing::warn!(peer = %String::from_utf8_lossy(&failed.peer.0), reason = failed.reason, "dial failed");
        let mut keeper = self.node.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for _ in 0..failed.lanes {
            keeper.failed(&failed.peer, Instant::now());
        }
        drop(keeper);
        let text: Arc<str> = failed.reason.into();
        for worker in 0..self.node.worker_count() {
            self.node.post(worker, Inbox::DialFailed { peer: failed.peer.clone(), text: Arc::clone(&text) });
        }
    }
}
