//! A cluster: nodes that agree on members, protocol and a map of values. This node may be a member of one; without it
//! everything else works the same.
//!
//! [`Cluster`] begins, joins and leaves, and hands commands to the [`driver`]'s thread. HTTP is the only caller.
pub(crate) mod adapt;
mod doorkeeper;
mod driver;
mod links;
mod state;
mod store;
mod tls;
mod token;
mod view;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    CLUSTER_TEXT_BYTES_MAX, ClusterAbout, ClusterAdmitted, ClusterFrameKind, ClusterJoin, ReplicatedCommand,
    cluster_frame_header,
};
use dwcp_consensus::{
    Anchor, Digest, Ed25519, Member, Plan, ProtocolKind, ReplicaId, Rotation, TransactionId,
};
use dwcp_sys::identity::{Fingerprint, Identity, IdentityError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use driver::{Driver, Request, Submission};
use links::Links;
pub(crate) use state::{Outcome, Value, is_key};
pub(crate) use store::StoreError;
use tls::Tls;
pub(crate) use token::Token;
pub(crate) use view::{LATENCY_BOUNDS_S, Latency, View};

/// This node's part in a cluster, if it has any.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: PathBuf,
    running: Mutex<Option<Arc<Running>>>,
    /// One of begin, join and leave at a time.
    changing: tokio::sync::Mutex<()>,
}

/// How this node presents itself to a cluster.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) name: String,
    /// Where other members reach it.
    pub(crate) address: String,
    pub(crate) region: String,
}

/// Whether the members agree, as health wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// The last probe came through.
    Decides,
    /// None had the time to.
    Starts,
    /// Why not.
    Fails(String),
}

/// Why something about the cluster was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("this node is a member of a cluster already: `dwcp cluster leave` first")]
    Member,
    #[error("this node is in no cluster: `dwcp cluster init` begins one, `dwcp cluster join` joins one")]
    Alone,
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("members cannot be heard on {address}: {error}; set consensus.listen")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("{peer} cannot be asked: {error}. The token names the member that made it: is it that one?")]
    Peer { peer: String, error: std::io::Error },
    #[error("not admitted: {0}")]
    Refused(String),
    #[error("{0}")]
    Submit(#[from] SubmitError),
    #[error("{0}")]
    Impossible(String),
    #[error("no random bytes: {0}")]
    Random(std::io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the member has as much to do as it may; try again")]
    Busy,
    #[error("the command is longer than any may be")]
    TooLarge,
    #[error(
        "the cluster did not decide in time: more than a third of it may be away. Whether the command will be applied is open"
    )]
    Late,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Outcome(Outcome),
    /// The value after everything that was applied before.
    Value(Option<Value>),
    /// It was applied before, and what it came to then is forgotten.
    Repeated,
}

/// A member at work.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) me: ReplicaId,
    cluster: [u8; 32],
    inbox: SyncSender<Request>,
    links: Arc<Links>,
    view: Arc<Mutex<View>>,
    anchor: watch::Receiver<Anchor>,
    tokens: doorkeeper::Tokens,
    doorkeeper: Mutex<Option<JoinHandle<()>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Cluster {
    /// A node that keeps its records in a directory, and has begun nothing yet.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("cluster.db")
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member, where this node is one.
    pub(crate) fn member(&self) -> Result<Arc<Running>, ClusterError> {
        self.slot().clone().ok_or(ClusterError::Alone)
    }

    /// Goes on where this node is a member.
    pub(crate) async fn resume(&self, listen: SocketAddr) -> Result<(), ClusterError> {
        let _one_at_a_time = self.changing.lock().await;
        match store::Store::open(&self.file())? {
            None => Ok(()),
            Some((store, identity)) => {
                drop(store);
                self.run(identity, listen).await
            }
        }
    }

    /// Begins a cluster of one.
    pub(crate) async fn init(
        &self,
        about: &About,
        listen: SocketAddr,
        protocol: ProtocolKind,
        rotation: Option<Rotation>,
    ) -> Result<(), ClusterError> {
        let _one_at_a_time = self.changing.lock().await;
        self.is_alone()?;
        let node = Identity::load_or_create(&self.directory)?;
        let [signing, random, cluster] = [secret()?, vrf_secret()?, secret()?];
        let keys = Ed25519::public_keys(&signing, &random).ok_or_else(no_keys)?;
        let about = about.encoded(node.fingerprint())?;
        let member = Member { replica: ReplicaId(0), keys, about: about.into() };
        let plan = Plan::composed(0, protocol, vec![member], rotation);
        let plan = plan.ok_or_else(|| ClusterError::Impossible("this makes no plan of an epoch".into()))?;
        let anchor = Anchor { plan, position: 0, origin: Digest::default() };
        let identity = store::Identity { replica: 0, cluster, signing, random, anchor };
        store::Store::create(&self.file(), &identity)?;
        self.run(identity, listen).await
    }

    /// Asks a member that made a token to be admitted.
    pub(crate) async fn join(
        &self,
        about: &About,
        listen: SocketAddr,
        peer: &str,
        token: &Token,
    ) -> Result<(), ClusterError> {
        let _one_at_a_time = self.changing.lock().await;
        self.is_alone()?;
        let node = Identity::load_or_create(&self.directory)?;
        let [signing, random] = [secret()?, vrf_secret()?];
        let keys = Ed25519::public_keys(&signing, &random).ok_or_else(no_keys)?;
        let about = about.encoded(node.fingerprint())?;
        let join = ClusterJoin { secret: token.secret, signing: keys.0, random: keys.1, about: &about };
        let tls = Tls::new(&node);
        let answer = ask(&tls, token.fingerprint, peer, &join)
            .await
            .map_err(|error| ClusterError::Peer { peer: peer.to_owned(), error })?;
        let (admitted, anchor) = match answer {
            (ClusterFrameKind::Admitted, body) => read_admitted(&body)?,
            (_, reason) => return Err(ClusterError::Refused(String::from_utf8_lossy(&reason).into_owned())),
        };
        let mine = anchor.plan.members.iter().find(|member| member.replica.0 == admitted.replica);
        if mine.is_none_or(|mine| mine.keys != keys) {
            return Err(ClusterError::Refused("the epoch that was answered does not know this node".into()));
        }
        let ClusterAdmitted { cluster, replica } = admitted;
        let identity = store::Identity { replica, cluster, signing, random, anchor };
        store::Store::create(&self.file(), &identity)?;
        self.run(identity, listen).await
    }

    /// Has the others let this node go; then it is alone. The last member just ends the cluster.
    pub(crate) async fn leave(&self) -> Result<(), ClusterError> {
        let _one_at_a_time = self.changing.lock().await;
        let running = self.member()?;
        let members = running.view().plan.map_or(0, |plan| plan.members.len());
        if members > 1 {
            let answer = running.submit(&ReplicatedCommand::Remove(running.me.0), None).await?;
            if let Answer::Outcome(Outcome::Impossible(why)) = answer {
                return Err(ClusterError::Impossible(why.into()));
            }
            if !running.epoch_without(running.me).await {
                return Err(ClusterError::Submit(SubmitError::Late));
            }
            // The others may still need to hear how the epoch ended.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.slot().take();
        running.stop();
        store::remove(&self.file())?;
        Ok(())
    }

    /// Ends the threads; the node stays a member.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.slot().take() {
            running.stop();
        }
    }

    /// Whether the members agree; `None` where this node is alone.
    pub(crate) fn agreement(&self) -> Option<Agreement> {
        let view = self.member().ok()?.view();
        Some(match (view.trouble, view.is_deciding, view.failures) {
            (Some(trouble), ..) => Agreement::Fails(trouble),
            (None, true, _) => Agreement::Decides,
            (None, false, 0) => Agreement::Starts,
            (None, false, _) => {
                Agreement::Fails("a probe was not decided within 15 s: too many members are away".into())
            }
        })
    }

    fn is_alone(&self) -> Result<(), ClusterError> {
        if self.slot().is_some() { Err(ClusterError::Member) } else { Ok(()) }
    }

    async fn run(&self, identity: store::Identity, listen: SocketAddr) -> Result<(), ClusterError> {
        let node = Identity::load_or_create(&self.directory)?;
        let tls = Tls::new(&node);
        let acceptor = tls.acceptor()?;
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| ClusterError::Listen { address: listen, error })?;
        let links = Arc::new(Links::new(tls, tokio::runtime::Handle::current()));
        let (inbox, requests) = std::sync::mpsc::sync_channel(INBOX_MAX);
        let (anchor_sender, anchor) = watch::channel(identity.anchor.clone());
        let plan = Some(identity.anchor.plan.clone());
        let view = Arc::new(Mutex::new(View { plan, ..View::default() }));
        // A client number of its own for each life; those at the end are replicas.
        let [a, b, c, d, e, f, g, h, ..] = secret()?;
        let client = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 1;
        let (me, cluster) = (ReplicaId(identity.replica), identity.cluster);
        let driver = Driver {
            file: self.file(),
            identity,
            inbox: requests,
            links: Arc::clone(&links),
            view: Arc::clone(&view),
            anchor: anchor_sender,
            client,
        };
        let thread = std::thread::Builder::new().name("cluster".into()).spawn(move || driver.run());
        let thread = thread.map_err(|error| ClusterError::Impossible(format!("no thread: {error}")))?;
        let running = Arc::new(Running {
            me,
            cluster,
            inbox,
            links,
            view,
            anchor,
            tokens: doorkeeper::Tokens::default(),
            doorkeeper: Mutex::default(),
            thread: Mutex::new(Some(thread)),
        });
        let task = tokio::spawn(doorkeeper::serve(listener, acceptor, Arc::clone(&running)));
        *running.doorkeeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        *self.slot() = Some(running);
        let (replica, address) = (me.0, listen.to_string());
        tracing::info!(component = "acp", replica, address, "member of a cluster");
        Ok(())
    }
}

impl Running {
    /// What is to be seen of it.
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cluster's name.
    pub(crate) fn cluster(&self) -> &[u8; 32] {
        &self.cluster
    }

    /// Other members that are reached.
    pub(crate) fn reached(&self) -> Vec<ReplicaId> {
        self.links.reached()
    }

    /// Messages sent, received and lost, and members that are reached.
    pub(crate) fn messages(&self) -> [u64; 4] {
        use std::sync::atomic::Ordering::Relaxed;
        let counters = &self.links.counters;
        let connected = counters.connected.load(Relaxed) as u64;
        [
            counters.sent.load(Relaxed),
            counters.received.load(Relaxed),
            counters.dropped.load(Relaxed),
            connected,
        ]
    }

    /// A token that admits one node at this member, for an hour.
    pub(crate) fn token(&self, directory: &Cluster) -> Result<Token, ClusterError> {
        let node = Identity::load_or_create(&directory.directory)?;
        let mut secret_half = [0; 16];
        secret_half.copy_from_slice(&secret()?[..16]);
        self.tokens.add(&secret_half);
        Ok(Token { secret: secret_half, fingerprint: node.fingerprint() })
    }

    /// Puts a command into the common order; the answer comes when it was applied here. A name of the caller's makes it
    /// apply once however often it is submitted.
    pub(crate) async fn submit(
        &self,
        command: &ReplicatedCommand<'_>,
        name: Option<TransactionId>,
    ) -> Result<Answer, SubmitError> {
        let mut bytes = vec![0; COMMAND_BYTES_MAX];
        let length = command.encode(&mut bytes).map_err(|_| SubmitError::TooLarge)?;
        bytes.truncate(length);
        self.ask(bytes, name, None).await
    }

    /// A value as it is after everything that any member had answered before this was asked: the question takes its
    /// place in the order.
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Value>, SubmitError> {
        match self.ask(vec![0, 0], None, Some(key.to_owned())).await? {
            Answer::Value(value) => Ok(value),
            Answer::Outcome(_) | Answer::Repeated => Err(SubmitError::Late),
        }
    }

    async fn ask(
        &self,
        command: Vec<u8>,
        name: Option<TransactionId>,
        then: Option<String>,
    ) -> Result<Answer, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Submit(Submission { command, name, then, reply });
        self.inbox.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => SubmitError::Busy,
        })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(SubmitError::Busy),
            Err(_) => Err(SubmitError::Late),
        }
    }

    /// Where the first epoch begins that has a member with these keys.
    async fn epoch_with(&self, replica: ReplicaId, keys: ([u8; 32], [u8; 32])) -> Option<Anchor> {
        let has = |anchor: &Anchor| {
            anchor.plan.members.iter().any(|member| member.replica == replica && member.keys == keys)
        };
        self.epoch(has).await
    }

    async fn epoch_without(&self, replica: ReplicaId) -> bool {
        self.epoch(|anchor| !anchor.plan.contains(replica)).await.is_some()
    }

    async fn epoch(&self, wanted: impl Fn(&Anchor) -> bool) -> Option<Anchor> {
        let mut anchor = self.anchor.clone();
        let found = tokio::time::timeout(EPOCH_TIMEOUT, anchor.wait_for(|anchor| wanted(anchor))).await;
        Some(found.ok()?.ok()?.clone())
    }

    fn stop(&self) {
        if let Some(task) = self.doorkeeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.links.close();
        // Where the queue is full the thread is at work: wait for a place.
        if self.inbox.send(Request::Stop).is_ok()
            && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            tracing::error!(component = "acp", "the replica's thread panicked");
        }
    }
}

impl About {
    fn encoded(&self, fingerprint: Fingerprint) -> Result<Vec<u8>, ClusterError> {
        for (what, text) in [("name", &self.name), ("address", &self.address), ("region", &self.region)] {
            let printable = text.chars().all(|c| !c.is_control());
            if text.len() > CLUSTER_TEXT_BYTES_MAX || !printable || (text.is_empty() && what != "region") {
                let detail = format!("the {what} must be printable and 1 to {CLUSTER_TEXT_BYTES_MAX} bytes");
                return Err(ClusterError::Impossible(detail));
            }
        }
        let about = ClusterAbout {
            fingerprint: fingerprint.0,
            name: self.name.as_bytes(),
            address: self.address.as_bytes(),
            region: self.region.as_bytes(),
        };
        let mut bytes = vec![0; 512];
        let length = about.encode(&mut bytes);
        bytes.truncate(length.map_err(|error| ClusterError::Impossible(error.to_string()))?);
        Ok(bytes)
    }
}

/// Asks a member, and returns its answer.
async fn ask(
    tls: &Tls,
    fingerprint: Fingerprint,
    peer: &str,
    join: &ClusterJoin<'_>,
) -> std::io::Result<(ClusterFrameKind, Vec<u8>)> {
    let mut stream = links::connect(tls, fingerprint, peer).await?;
    let mut body = vec![0; 4096];
    let length = join.encode(&mut body).map_err(std::io::Error::other)?;
    let header = cluster_frame_header(ClusterFrameKind::Join, length).map_err(std::io::Error::other)?;
    stream.write_all(&header).await?;
    stream.write_all(&body[..length]).await?;
    stream.flush().await?;
    let answer =
        tokio::time::timeout(JOIN_TIMEOUT, doorkeeper::read_frame(&mut stream, JOIN_ANSWER_BYTES_MAX));
    answer.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

fn read_admitted(body: &[u8]) -> Result<(ClusterAdmitted, Anchor), ClusterError> {
    let unclear = || ClusterError::Refused("the member answered something that is no admission".into());
    let (head, rest) = body.split_at_checked(ADMITTED_BYTES).ok_or_else(unclear)?;
    let admitted = ClusterAdmitted::decode(head).map_err(|_| unclear())?;
    Ok((admitted, store::read_anchor(rest).ok_or_else(unclear)?))
}

fn no_keys() -> ClusterError {
    ClusterError::Impossible("random bytes make no key".into())
}

fn secret() -> Result<[u8; 32], ClusterError> {
    use std::io::Read;
    let mut bytes = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(ClusterError::Random)
}

/// A scalar below the group's order: its highest byte is small enough (RFC 9496).
fn vrf_secret() -> Result<[u8; 32], ClusterError> {
    let mut bytes = secret()?;
    bytes[31] &= 0x0f;
    Ok(bytes)
}

const INBOX_MAX: usize = 4096;
const COMMAND_BYTES_MAX: usize = 16 << 10;
const ADMITTED_BYTES: usize = 34;
const JOIN_ANSWER_BYTES_MAX: usize = 1 << 20;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
const EPOCH_TIMEOUT: Duration = Duration::from_secs(20);
const JOIN_TIMEOUT: Duration = Duration::from_secs(45);
