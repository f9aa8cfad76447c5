//! A lane's queue pair, between greeting and lane: what each end says of its own, and what becomes of it. Used by
//! [`super::handshake`]; whether RDMA is tried at all is decided in [`crate::rdma`].
//!
//! The acceptor's pair is connected before the dialler hears of it. So nothing that the dialler writes is too early; and
//! a dialler that cannot connect has no lane, because the acceptor is no more at the socket.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dwcp_abi::wire::hello::Greeting;
use dwcp_abi::wire::rdma::{PairEnd, UNPAIRED_TEXT_MAX, Unpaired};
use dwcp_sys::rdma::{Prepared, QueuePair, RdmaError};

use super::plan::PeerName;
use crate::rdma::Rdma;

/// What one end needs for it.
#[derive(Debug)]
pub(super) struct Pairing {
    rdma: Arc<Rdma>,
    /// This node's address of the TCP connection.
    near: IpAddr,
}

/// What an end says.
#[derive(Debug)]
pub(super) enum Said {
    Pair(PairEnd),
    None(String),
}

/// A dialler that has said its queue pair.
#[derive(Debug)]
pub(super) struct Dialler(Prepared);

impl Pairing {
    pub(super) fn new(rdma: &Arc<Rdma>, near: IpAddr) -> Self {
        Self { rdma: Arc::clone(rdma), near }
    }

    /// Whether this end tries RDMA with that peer.
    pub(super) fn offers(&self, peer: &PeerName) -> bool {
        self.rdma.offers(peer, Instant::now())
    }

    /// The dialler begins. Without a pair of its own the lane is the socket, and no answer comes.
    pub(super) fn offer(&self) -> (Said, Option<Dialler>) {
        match self.rdma.prepare(self.near, None) {
            Ok(prepared) => (Said::Pair(*prepared.end()), Some(Dialler(prepared))),
            Err(error) => (Said::none(&error), None),
        }
    }

    /// The acceptor's answer, if one is due, and its pair, if there is one.
    pub(super) fn accept(&self, greeting: Greeting<'_>) -> (Option<Said>, Option<QueuePair>) {
        let theirs = match greeting {
            Greeting::Pair(theirs) => theirs,
            other => {
                hear_none(&other);
                return (None, None);
            }
        };
        let connected = theirs.check().map_err(|error| RdmaError::End(error.to_string())).and_then(|()| {
            let prepared = self.rdma.prepare(self.near, Some(&theirs))?;
            let own = *prepared.end();
            Ok((own, prepared.connect(&theirs)?))
        });
        match connected {
            Ok((own, pair)) => (Some(Said::Pair(own)), Some(pair)),
            Err(error) => (Some(Said::none(&error)), None),
        }
    }
}

impl Dialler {
    /// Hears the acceptor's answer; none where the lane is the socket.
    ///
    /// # Errors
    /// The pairs cannot be connected: then there is no lane.
    pub(super) fn connect(self, greeting: Greeting<'_>) -> Result<Option<QueuePair>, RdmaError> {
        match greeting {
            Greeting::Pair(theirs) => self.0.connect(&theirs).map(Some),
            other => {
                hear_none(&other);
                Ok(None)
            }
        }
    }
}

impl Said {
    fn none(error: &RdmaError) -> Self {
        tracing::warn!(%error, "no queue pair: a lane is a TCP connection");
        Self::None(error.to_string())
    }

    /// As it travels.
    pub(super) fn greeting(&self) -> Greeting<'_> {
        match self {
            Self::Pair(end) => Greeting::Pair(*end),
            Self::None(text) => {
                let end = text.floor_char_boundary(UNPAIRED_TEXT_MAX);
                Greeting::Unpaired(Unpaired { text: &text.as_bytes()[..end] })
            }
        }
    }
}

fn hear_none(greeting: &Greeting<'_>) {
    if let Greeting::Unpaired(unpaired) = greeting {
        let why = String::from_utf8_lossy(unpaired.text);
        tracing::info!(%why, "the peer has no queue pair: a lane is a TCP connection");
    }
}
