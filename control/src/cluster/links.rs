//! Connections between members. Each dials every other and only sends on that connection; what comes in on the
//! connections of others goes to the driver. Nothing waits for anybody: a queue that is full loses its newest message,
//! which consensus says again.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{ClusterAbout, ClusterFrameKind, cluster_frame_header};
use dwcp_consensus::{Plan, ReplicaId};
use dwcp_sys::identity::Fingerprint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::tls::Tls;

/// All connections of a member.
#[derive(Debug)]
pub(super) struct Links {
    tls: Tls,
    runtime: tokio::runtime::Handle,
    outgoing: Mutex<BTreeMap<ReplicaId, Outgoing>>,
    /// Members by the fingerprint of their certificate.
    known: RwLock<BTreeMap<[u8; 32], ReplicaId>>,
    pub(super) counters: Arc<Counters>,
}

/// Messages, counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Connections to other members that stand.
    pub(super) connected: AtomicUsize,
}

#[derive(Debug)]
struct Outgoing {
    fingerprint: [u8; 32],
    address: String,
    queue: mpsc::Sender<Arc<[u8]>>,
    queued_bytes: Arc<AtomicUsize>,
    is_up: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    pub(super) fn new(tls: Tls, runtime: tokio::runtime::Handle) -> Self {
        Self { tls, runtime, outgoing: Mutex::default(), known: RwLock::default(), counters: Arc::default() }
    }

    /// Whose number a certificate is.
    pub(super) fn member(&self, fingerprint: &Fingerprint) -> Option<ReplicaId> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&fingerprint.0).copied()
    }

    /// Speaks with the members of a plan from now on, and with nobody else.
    pub(super) fn use_plan(&self, me: ReplicaId, plan: &Plan) {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        for member in &plan.members {
            let Ok(about) = ClusterAbout::decode(&member.about) else { continue };
            known.insert(about.fingerprint, member.replica);
            let Ok(address) = std::str::from_utf8(about.address) else { continue };
            if member.replica != me {
                wanted.insert(member.replica, (about.fingerprint, address.to_owned()));
            }
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        outgoing.retain(|replica, link| {
            wanted.get(replica).is_some_and(|(fingerprint, address)| {
                *fingerprint == link.fingerprint && *address == link.address
            })
        });
        for (replica, (fingerprint, address)) in wanted {
            outgoing.entry(replica).or_insert_with(|| self.dial(fingerprint, address));
        }
    }

    /// Members to whom a connection stands.
    pub(super) fn reached(&self) -> Vec<ReplicaId> {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let up = outgoing.iter().filter(|(_, link)| link.is_up.load(Ordering::Relaxed));
        up.map(|(replica, _)| *replica).collect()
    }

    /// Ends all connections.
    pub(super) fn close(&self) {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Sends a message, or loses it.
    pub(super) fn send(&self, to: ReplicaId, bytes: Arc<[u8]>) {
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(link) = outgoing.get(&to) else { return };
        let length = bytes.len();
        let fits = link.queued_bytes.fetch_add(length, Ordering::Relaxed) + length <= QUEUED_BYTES_MAX;
        if !fits || link.queue.try_send(bytes).is_err() {
            link.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dial(&self, fingerprint: [u8; 32], address: String) -> Outgoing {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let is_up = Arc::new(AtomicBool::new(false));
        let dialler = Dialler {
            tls: self.tls.clone(),
            fingerprint: Fingerprint(fingerprint),
            address: address.clone(),
            queued_bytes: Arc::clone(&queued_bytes),
            counters: Arc::clone(&self.counters),
            is_up: Arc::clone(&is_up),
        };
        let task = self.runtime.spawn(dialler.run(inbox));
        Outgoing { fingerprint, address, queue, queued_bytes, is_up, task }
    }
}

/// Keeps one connection up.
struct Dialler {
    tls: Tls,
    fingerprint: Fingerprint,
    address: String,
    queued_bytes: Arc<AtomicUsize>,
    counters: Arc<Counters>,
    is_up: Arc<AtomicBool>,
}

impl Dialler {
    async fn run(self, mut inbox: mpsc::Receiver<Arc<[u8]>>) {
        let mut pause = PAUSE_MIN;
        let mut trouble = String::new();
        loop {
            match connect(&self.tls, self.fingerprint, &self.address).await {
                Ok(stream) => {
                    pause = PAUSE_MIN;
                    trouble.clear();
                    tracing::info!(component = "acp", address = self.address, "member reached");
                    let _up = Up::new(&self);
                    match self.carry(stream, &mut inbox).await {
                        Ok(()) => return,
                        Err(error) => {
                            tracing::warn!(component = "acp", address = self.address, %error, "member lost");
                        }
                    }
                }
                Err(error) => {
                    // Said once, not at every attempt.
                    let text = error.to_string();
                    if text != trouble {
                        tracing::warn!(
                            component = "acp",
                            address = self.address,
                            error = text,
                            "member not reached"
                        );
                        trouble = text;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Ends well when nobody wants to send any more.
    async fn carry(
        &self,
        stream: TlsStream<TcpStream>,
        inbox: &mut mpsc::Receiver<Arc<[u8]>>,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut nothing = [0; 1];
        loop {
            let first = tokio::select! {
                message = inbox.recv() => message,
                // The other end never speaks here: whatever comes is its end.
                _ = reader.read(&mut nothing) => return Err(std::io::ErrorKind::ConnectionReset.into()),
            };
            let Some(first) = first else { return Ok(()) };
            self.write(&mut writer, &first).await?;
            while let Ok(next) = inbox.try_recv() {
                self.write(&mut writer, &next).await?;
            }
            writer.flush().await?;
        }
    }

    async fn write(&self, writer: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
        self.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        let header = cluster_frame_header(ClusterFrameKind::Message, bytes.len());
        let header = header.map_err(|_| std::io::ErrorKind::InvalidData)?;
        writer.write_all(&header).await?;
        writer.write_all(bytes).await?;
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// As long as a connection stands.
struct Up<'a>(&'a Dialler);

impl<'a> Up<'a> {
    fn new(dialler: &'a Dialler) -> Self {
        dialler.counters.connected.fetch_add(1, Ordering::Relaxed);
        dialler.is_up.store(true, Ordering::Relaxed);
        Self(dialler)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.counters.connected.fetch_sub(1, Ordering::Relaxed);
        self.0.is_up.store(false, Ordering::Relaxed);
    }
}

/// A connection to the node with this certificate.
pub(super) async fn connect(
    tls: &Tls,
    fingerprint: Fingerprint,
    address: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let attempt = async {
        let stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        let connector = tls.connector(fingerprint).map_err(std::io::Error::other)?;
        let name = rustls::pki_types::ServerName::IpAddress(stream.peer_addr()?.ip().into());
        connector.connect(name, stream).await
    };
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.map_err(late)?
}

/// Small messages at once, and the end of a connection whose other end takes nothing for long.
pub(super) fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::TcpUserTimeout, &USER_TIMEOUT_MS)?;
    Ok(())
}

const QUEUE_MAX: usize = 4096;
const QUEUED_BYTES_MAX: usize = 32 << 20;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
const USER_TIMEOUT_MS: u32 = 10_000;
