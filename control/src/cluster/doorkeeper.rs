//! The listener for other members: takes their messages, and admits nodes that bring a token.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    CLUSTER_FRAME_HEADER_BYTES, CLUSTER_REASON_BYTES_MAX, ClusterAbout, ClusterAdmitted, ClusterFrameKind,
    ClusterJoin, ReplicatedCommand, ReplicatedNode, cluster_frame_header, read_cluster_frame_header,
};
use dwcp_consensus::{ReplicaId, Wire};
use dwcp_sys::identity::Fingerprint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::driver::Request;
use super::links::{CONNECT_TIMEOUT, prepare};
use super::state::Outcome;
use super::{Answer, Running};

/// Secrets that admit a node, each once and for an hour.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// By the secret's digest: nobody who reads this memory gets in.
    valid: Mutex<BTreeMap<[u8; 32], Instant>>,
}

impl Tokens {
    pub(super) fn add(&self, secret: &[u8; 16]) {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        valid.retain(|_, made| made.elapsed() < TOKEN_LIFE);
        while valid.len() >= TOKENS_MAX {
            valid.pop_first();
        }
        valid.insert(*blake3::hash(secret).as_bytes(), Instant::now());
    }

    fn take(&self, secret: &[u8; 16]) -> bool {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        let made = valid.remove(blake3::hash(secret).as_bytes());
        made.is_some_and(|made| made.elapsed() < TOKEN_LIFE)
    }
}

/// Serves until the task is ended.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, running: Arc<Running>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: they come back when connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (acceptor, running) = (acceptor.clone(), Arc::clone(&running));
        tokio::spawn(async move {
            if let Err(error) = one(stream, acceptor, &running).await {
                tracing::debug!(component = "acp", %error, "connection of a member ended");
            }
            drop(place);
        });
    }
}

async fn one(stream: TcpStream, acceptor: TlsAcceptor, running: &Running) -> std::io::Result<()> {
    prepare(&stream)?;
    let accepted = tokio::time::timeout(CONNECT_TIMEOUT, acceptor.accept(stream)).await;
    let mut stream = accepted.map_err(|_| std::io::ErrorKind::TimedOut)??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let Some(fingerprint) = shown.map(|shown| Fingerprint::of_certificate(shown)) else { return Ok(()) };
    loop {
        let is_member = running.links.member(&fingerprint).is_some();
        // A stranger has little time and little to say.
        let (kind, body) = if is_member {
            read_frame(&mut stream, usize::MAX).await?
        } else {
            let read = tokio::time::timeout(CONNECT_TIMEOUT, read_frame(&mut stream, JOIN_BYTES_MAX)).await;
            read.map_err(|_| std::io::ErrorKind::TimedOut)??
        };
        match (kind, running.links.member(&fingerprint)) {
            (ClusterFrameKind::Message, Some(from)) => hear(running, from, body).await,
            (ClusterFrameKind::Join, _) => return admit(&mut stream, running, fingerprint, &body).await,
            (ClusterFrameKind::Message | ClusterFrameKind::Admitted | ClusterFrameKind::Refused, _) => {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
        }
    }
}

/// Hands a message to the driver. Where that is behind, its sender waits: TCP holds it back.
async fn hear(running: &Running, from: ReplicaId, bytes: Vec<u8>) {
    running.links.counters.received.fetch_add(1, Ordering::Relaxed);
    let mut request = Request::Message { from, bytes };
    for _ in 0..HELD_BACK_MAX {
        match running.inbox.try_send(request) {
            Ok(()) | Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return,
            Err(std::sync::mpsc::TrySendError::Full(back)) => request = back,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    running.links.counters.dropped.fetch_add(1, Ordering::Relaxed);
}

/// One frame of at most so many bytes.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> std::io::Result<(ClusterFrameKind, Vec<u8>)> {
    let mut header = [0; CLUSTER_FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidData);
    let (kind, length) = read_cluster_frame_header(&header).map_err(invalid)?;
    if length > bytes_max {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    // Grown as it comes: a length alone allocates nothing.
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok((kind, body)) }
}

async fn admit(
    stream: &mut TlsStream<TcpStream>,
    running: &Running,
    fingerprint: Fingerprint,
    body: &[u8],
) -> std::io::Result<()> {
    let (kind, body) = match judge(running, fingerprint, body).await {
        Ok(body) => (ClusterFrameKind::Admitted, body),
        Err(reason) => {
            tracing::warn!(component = "acp", %fingerprint, reason, "node not admitted");
            (ClusterFrameKind::Refused, reason.into_bytes())
        }
    };
    let body = &body[..body.len().min(if kind == ClusterFrameKind::Refused {
        CLUSTER_REASON_BYTES_MAX
    } else {
        usize::MAX
    })];
    let header = cluster_frame_header(kind, body.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
    stream.write_all(&header).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}

/// Has the node admitted by all, and waits for the epoch that it is a member of.
async fn judge(running: &Running, fingerprint: Fingerprint, body: &[u8]) -> Result<Vec<u8>, String> {
    let join = ClusterJoin::decode(body).map_err(|error| format!("this is no request to join: {error}"))?;
    if !running.tokens.take(&join.secret) {
        return Err(
            "the token is unknown, used or older than an hour: make one (`dwcp cluster token`)".into()
        );
    }
    let about = ClusterAbout::decode(join.about).map_err(|error| error.to_string())?;
    if about.fingerprint != fingerprint.0 {
        return Err("the node says another fingerprint than its certificate has".into());
    }
    let node = ReplicatedNode { signing: join.signing, random: join.random, about: join.about };
    let replica = match running.submit(&ReplicatedCommand::Admit(node), None).await {
        Ok(Answer::Outcome(Outcome::Admitted(replica))) => replica,
        Ok(Answer::Outcome(Outcome::Impossible(why))) => return Err(why.into()),
        Ok(_) => return Err("the cluster answered something else".into()),
        Err(error) => return Err(error.to_string()),
    };
    let keys = (join.signing, join.random);
    let anchor = running
        .epoch_with(replica, keys)
        .await
        .ok_or("the cluster admitted the node, but began no epoch with it in time")?;
    let mut answer = vec![0; 64];
    let admitted = ClusterAdmitted { cluster: running.cluster, replica: replica.0 };
    let length = admitted.encode(&mut answer).map_err(|error| error.to_string())?;
    answer.truncate(length);
    answer.extend(anchor.encoded());
    let name = String::from_utf8_lossy(about.name).into_owned();
    tracing::info!(component = "acp", name, replica = replica.0, "node admitted");
    Ok(answer)
}

const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const TOKENS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 512;
const JOIN_BYTES_MAX: usize = 4096;
/// Pauses of 2 ms after which a message is given up.
const HELD_BACK_MAX: usize = 1000;
