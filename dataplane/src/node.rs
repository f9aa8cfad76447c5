//! What the threads of a dataplane share: the plan, open files, receiving trees, the way into each worker. Nothing
//! here is touched per chunk but the file table, once per file and worker.
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crossbeam_channel::Sender;
use dwcp_engine::{JobKey, Owner, PeerId, Tell};
use dwcp_sys::proactor::Waker;

use crate::baselines::{Contents, Kept};
use crate::door::{LaneReady, PeerName};
use crate::jobs::{FirstSeen, ReceiveTrees, TreeReply};
use crate::keeper::Keeper;
use crate::listeners::Listeners;
use crate::packs::PackTable;
use crate::paths::Paths;
use crate::plan::Plan;
use crate::rdma::Rdma;
use crate::tree::Flusher;
use crate::worker::FileTable;

/// One per process.
pub struct Node {
    /// Random, new at each start.
    pub instance: u64,
    /// Open files by number.
    pub files: FileTable,
    /// Filled packs by number.
    pub packs: PackTable,
    /// When jobs were first heard of.
    pub first_seen: FirstSeen,
    /// What was sent before.
    pub kept: Kept,
    /// What files here consist of.
    pub contents: Contents,
    /// Sockets that outlive the process.
    pub listeners: Arc<Listeners>,
    /// Flushes what is received, now and then.
    pub flusher: Flusher,
    /// Threads of receiving jobs.
    pub receive_trees: ReceiveTrees,
    /// How many lanes each peer should have, and has.
    pub keeper: Mutex<Keeper>,
    /// The way to the tunnels' thread, once it is there.
    pub tunnels: OnceLock<crate::tunnel::Tunnels>,
    /// How fast each peer may be sent to.
    pub paths: Mutex<Paths>,
    /// Whether lanes go over RDMA.
    pub rdma: Arc<Rdma>,
    /// Addresses that lanes have stood to or from.
    known: Mutex<BTreeSet<IpAddr>>,
    serials: AtomicU64,
    plan: RwLock<Arc<Plan>>,
    peers: RwLock<Vec<PeerName>>,
    workers: RwLock<Vec<(Sender<Inbox>, Waker)>>,
    /// The same once all of them have started: workers speak to each other per chunk, without a lock.
    all_workers: OnceLock<Vec<(Sender<Inbox>, Waker)>>,
}

/// What other threads say to a worker.
#[expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
pub enum Inbox {
    /// Another worker.
    Tell { worker: u16, tell: Tell },
    /// A job's tree, by the number of its thread.
    Tree { serial: u64, reply: TreeReply },
    /// A lane stands and is this worker's now.
    Lane(Box<LaneReady>),
    /// A peer cannot be reached.
    DialFailed { peer: PeerName, text: Arc<str> },
    /// What became of a ping, for control.
    Pong { token: u64, rtt_ns: u64, text: String },
    /// Figures of tunnels, for control.
    Tunnels(Box<crate::tunnel::Report>),
    /// Finish what is in hand and end.
    Stop,
}

impl Node {
    /// A node without workers and with an empty plan.
    #[must_use]
    pub fn new(instance: u64, first_seen: FirstSeen, kept: Kept, listeners: Arc<Listeners>) -> Self {
        Self {
            instance,
            files: FileTable::default(),
            packs: PackTable::default(),
            first_seen,
            kept,
            contents: Contents::default(),
            listeners,
            flusher: Flusher::default(),
            receive_trees: ReceiveTrees::default(),
            keeper: Mutex::new(Keeper::default()),
            tunnels: OnceLock::new(),
            paths: Mutex::new(Paths::default()),
            rdma: Arc::default(),
            known: Mutex::new(BTreeSet::new()),
            serials: AtomicU64::new(0),
            plan: RwLock::new(Arc::new(Plan::default())),
            peers: RwLock::new(Vec::new()),
            workers: RwLock::new(Vec::new()),
            all_workers: OnceLock::new(),
        }
    }

    /// A number for a tree's thread.
    #[must_use]
    pub fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a plan in force.
    pub fn set_plan(&self, plan: Arc<Plan>) {
        self.kept.limit(plan.transport.baseline_store_bytes);
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Notes an address that a lane stands to or from.
    pub fn know_address(&self, address: IpAddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_MAX {
            known.insert(address.to_canonical());
        }
    }

    /// Addresses of peers: those that lanes have stood to or from, and those that the plan names by number.
    #[must_use]
    pub fn known_addresses(&self) -> BTreeSet<IpAddr> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let plan = self.plan();
        let numbers = plan.peers.iter().filter_map(|peer| peer.address.parse::<SocketAddr>().ok());
        known.extend(numbers.map(|address| address.ip().to_canonical()));
        known
    }

    /// The number of a peer; the same for as long as the process lives.
    #[must_use]
    pub fn peer_id(&self, name: &PeerName) -> PeerId {
        let known = |peers: &[PeerName]| {
            peers.iter().position(|known| known == name).map(|index| PeerId(index as u16))
        };
        if let Some(id) = known(&self.peers.read().unwrap_or_else(PoisonError::into_inner)) {
            return id;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        known(&peers).unwrap_or_else(|| {
            peers.push(name.clone());
            PeerId((peers.len() - 1) as u16)
        })
    }

    /// The name of a peer.
    #[must_use]
    pub fn peer_name(&self, id: PeerId) -> PeerName {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(usize::from(id.0)).cloned().unwrap_or_else(|| PeerName(Arc::from(&b""[..])))
    }

    /// Adds the next worker's way in.
    pub fn add_worker(&self, inbox: Sender<Inbox>, waker: Waker) {
        self.workers.write().unwrap_or_else(PoisonError::into_inner).push((inbox, waker));
    }

    /// No more workers come.
    pub fn close_workers(&self) {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner).clone();
        // The first to say so has said it.
        drop(self.all_workers.set(workers));
    }

    /// Says something to a worker, and wakes it if it sleeps.
    pub fn post(&self, worker: u16, message: Inbox) {
        if let Some(workers) = self.all_workers.get() {
            return post_to(workers, worker, message);
        }
        post_to(&self.workers.read().unwrap_or_else(PoisonError::into_inner), worker, message);
    }

    /// Workers that can be spoken to.
    #[must_use]
    pub fn worker_count(&self) -> u16 {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).len() as u16
    }

    /// Names the temporary files of a job: the same for each attempt, so that what a crash left is used or removed.
    #[must_use]
    pub fn job_tag(&self, job: JobKey) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.peer_name(job.peer).0);
        hasher.update(&[u8::from(job.owner == Owner::Local)]);
        hasher.update(&job.id.to_le_bytes());
        let mut tag = [0; 8];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }
}

fn post_to(workers: &[(Sender<Inbox>, Waker)], worker: u16, message: Inbox) {
    let Some((inbox, waker)) = workers.get(usize::from(worker)) else { return };
    // A worker that is gone needs to hear nothing.
    if inbox.send(message).is_ok() {
        waker.wake();
    }
}

/// Lanes that came up go to the workers in turn, per peer.
#[derive(Debug, Default)]
pub struct Turns {
    next: HashMap<PeerName, u16>,
}

impl Turns {
    /// The worker of a peer's next lane.
    pub fn take(&mut self, peer: &PeerName, workers: u16) -> u16 {
        let next = self.next.entry(peer.clone()).or_default();
        let worker = *next % workers.max(1);
        *next = next.wrapping_add(1);
        worker
    }
}

/// Addresses that are remembered: peers that move about are authenticated each time, but not kept for ever.
const KNOWN_MAX: usize = 2048;
