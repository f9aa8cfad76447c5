//! What to say of a connection that came to nothing: a verdict for the counters, a kind for the program, and for a
//! person a text that names the peer, its address and the way out. Pure; used by [`super::turn`].
use std::net::SocketAddr;

use dwcp_abi::wire::hello::REFUSE_VERSION;
use rustls::{AlertDescription, Error as TlsError};

use super::counters::Verdict;
use super::exact::ExactError;
use super::handshake::HandshakeError;
use super::plan::PlanPeer;
use super::{DialFailure, PeerName};
use crate::identity::Fingerprint;

/// Whose connection it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled<'a> {
    pub(super) peer: &'a PlanPeer,
    pub(super) remote: SocketAddr,
    pub(super) own: Fingerprint,
}

/// How an unfinished greeting counts.
pub(super) fn verdict(error: &HandshakeError) -> Verdict {
    match kind(error) {
        DialFailure::WrongIdentity | DialFailure::NotAccepted | DialFailure::Version => Verdict::Refused,
        DialFailure::TimedOut => Verdict::TimedOut,
        DialFailure::NoPeer
        | DialFailure::Unresolved
        | DialFailure::Unreachable
        | DialFailure::Broken
        | DialFailure::Busy => Verdict::Failed,
    }
}

/// Kind and text of a dial that failed in its handshake.
pub(super) fn handshake_failed(dialled: Dialled<'_>, error: &HandshakeError) -> (DialFailure, String) {
    let Dialled { peer, remote, own } = dialled;
    let name = &peer.name;
    let failure = kind(error);
    let reason = match failure {
        DialFailure::WrongIdentity => format!(
            "{remote} is not the peer `{name}`: {error}, the configuration expects {}. Correct the peer's address, \
             or its identity if the node was set up anew",
            peer.fingerprint
        ),
        DialFailure::NotAccepted => format!(
            "the peer `{name}` at {remote} does not know this node: list this node's identity {own} among the \
             peers there"
        ),
        DialFailure::Version => format!("the peer `{name}` at {remote} speaks another protocol: {error}"),
        DialFailure::NoPeer
        | DialFailure::Unresolved
        | DialFailure::Unreachable
        | DialFailure::TimedOut
        | DialFailure::Broken
        | DialFailure::Busy => format!(
            "no lane to the peer `{name}` at {remote}: {error}. Check that this is the address of its dwcp-dataplane, \
             and its log"
        ),
    };
    (failure, reason)
}

/// Text of a dial whose connection or greeting took too long.
pub(super) fn timed_out(name: &PeerName, tried: &str, seconds: f32) -> String {
    format!(
        "no lane to the peer `{name}` at {tried} within {seconds} s. Check its address, the network and its \
         firewall, or raise transport.connect_timeout"
    )
}

/// Text of a dial whose addresses all failed.
pub(super) fn unreachable(name: &PeerName, failures: &str) -> String {
    format!(
        "the peer `{name}` cannot be reached: {failures}. Check that dwcp-dataplane runs there and listens at this \
         address, and the network between"
    )
}

/// Text of a dial whose host name has no address.
pub(super) fn unresolved(peer: &PlanPeer, why: &str) -> String {
    format!(
        "the address `{}` of the peer `{}` cannot be resolved: {why}. It must be host:port; check the name and this \
         host's resolver",
        peer.address, peer.name
    )
}

/// Text of a dial that the plan knows nothing about.
pub(super) fn no_peer(name: &PeerName) -> String {
    format!("the peer `{name}` is not in the configuration: add it below `peers`")
}

/// Text of a dial to a peer without an address.
pub(super) fn no_address(name: &PeerName) -> String {
    format!("the peer `{name}` has no address: add one below `peers`, or let it connect to this node")
}

fn kind(error: &HandshakeError) -> DialFailure {
    match error {
        HandshakeError::Identity { .. } => DialFailure::WrongIdentity,
        HandshakeError::Version { .. } | HandshakeError::NoTunnels => DialFailure::Version,
        HandshakeError::Refused { code, .. } if *code == REFUSE_VERSION => DialFailure::Version,
        HandshakeError::Tls(TlsError::AlertReceived(alert)) if REFUSALS.contains(alert) => {
            DialFailure::NotAccepted
        }
        HandshakeError::Io(_)
        | HandshakeError::Stream(
            ExactError::Io(_) | ExactError::Closed | ExactError::NotTls | ExactError::TooMuch,
        )
        | HandshakeError::Tls(_)
        | HandshakeError::Alpn
        | HandshakeError::Greeting(_)
        | HandshakeError::Order(_)
        | HandshakeError::Refused { .. }
        | HandshakeError::Secrets(_)
        | HandshakeError::Rdma(_) => DialFailure::Broken,
    }
}

/// Alerts about this node's certificate (RFC 8446 §6.2); a DWCP node sends the first.
const REFUSALS: [AlertDescription; 4] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
];
