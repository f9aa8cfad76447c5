//! Targets that peers asked for, until they are connected: allowed or not, their names looked up, their addresses tried
//! one after the other. Used by [`super::turn`].
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwcp_abi::wire::Code;
use dwcp_engine::ConnectionKey;

use crate::door::{PeerName, SocketOptions, socket};
use crate::plan::Plan;

/// A target on its way.
pub(super) struct Target {
    pub(super) peer: PeerName,
    pub(super) key: ConnectionKey,
    pub(super) text: String,
    addresses: Arc<[SocketAddr]>,
    next: usize,
    deadline: Instant,
    /// This address may take until then.
    until: Instant,
    pub(super) stream: Option<TcpStream>,
    /// What the socket is known by.
    pub(super) number: u64,
    last_error: Option<String>,
}

/// Why a target is not connected: the code and the text that its opener gets.
pub(super) type Refusal = (Code, String);

/// What a target is, by its text.
pub(super) enum Asked {
    /// An address.
    Address(SocketAddr),
    /// A name to look up: `host:port`.
    Name(String),
}

/// Judges what a peer asks for.
///
/// # Errors
/// What to tell the peer.
pub(super) fn judge(plan: &Plan, peer: &PeerName, target: &[u8]) -> Result<Asked, Refusal> {
    let shown = String::from_utf8_lossy(target).into_owned();
    let malformed = || (Code::Protocol, format!("{shown}: expected host:port such as db.example:5432"));
    let text = std::str::from_utf8(target).map_err(|_| malformed())?;
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().ok().filter(|&port| port != 0).ok_or_else(malformed)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.len() > HOST_BYTES_MAX || host.chars().any(|c| c.is_control() || c == ' ') {
        return Err(malformed());
    }
    if !plan.allows_tunnel(peer, host, port) {
        let text = format!(
            "{shown}: not a target for {peer}: add \"{peer}:{shown}\" to `tunnels.allow` in the configuration of the node that connects it"
        );
        return Err((Code::Forbidden, text));
    }
    Ok(match host.parse() {
        Ok(address) => Asked::Address(SocketAddr::new(address, port)),
        Err(_) => Asked::Name(format!("{host}:{port}")),
    })
}

impl Target {
    pub(super) fn new(peer: PeerName, key: ConnectionKey, target: &[u8], now: Instant) -> Self {
        let deadline = now + CONNECT_TIMEOUT;
        Self {
            peer,
            key,
            text: String::from_utf8_lossy(target).into_owned(),
            addresses: Arc::new([]),
            next: 0,
            deadline,
            until: deadline,
            stream: None,
            number: 0,
            last_error: None,
        }
    }

    /// The addresses are known.
    pub(super) fn handle_resolved(&mut self, resolved: io::Result<Arc<[SocketAddr]>>) -> Result<(), Refusal> {
        match resolved {
            Ok(addresses) => {
                self.addresses = addresses;
                Ok(())
            }
            Err(error) => {
                Err((Code::NotFound, format!("{}: the name cannot be looked up: {error}", self.text)))
            }
        }
    }

    /// Starts with the next address; the socket becomes writable when it stands or has failed.
    pub(super) fn connect_next(&mut self, now: Instant) -> Result<&TcpStream, Refusal> {
        loop {
            let left = self.addresses.len() - self.next;
            let Some(&address) = self.addresses.get(self.next) else {
                let why = self.last_error.take().unwrap_or_else(|| "it has no address".to_owned());
                return Err((Code::Io, format!("{}: cannot be connected: {why}", self.text)));
            };
            self.next += 1;
            // One that does not answer must not take the time of those behind it.
            let share = self.deadline.saturating_duration_since(now) / left.max(1) as u32;
            self.until = now + share;
            match socket::start_connect(address, &SocketOptions::default()) {
                Ok(stream) => return Ok(self.stream.insert(stream)),
                Err(error) => self.note(address, &error),
            }
        }
    }

    /// The socket is writable: the connection, or nothing yet where the next address has to be tried.
    pub(super) fn finish(&mut self) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        match socket::connected(&stream) {
            Ok(()) => Some(stream),
            Err(error) => {
                self.last_error = Some(error.to_string());
                None
            }
        }
    }

    /// Its present address has taken too long.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.until
    }

    pub(super) fn note_late(&mut self) {
        self.stream = None;
        self.last_error = Some(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    }

    fn note(&mut self, address: SocketAddr, error: &io::Error) {
        self.last_error = Some(format!("{address}: {error}"));
    }
}

/// RFC 1035 §2.3.4.
const HOST_BYTES_MAX: usize = 253;
/// The opener waits longer than this for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::TunnelAllow;

    #[test]
    fn what_a_peer_asks_for_is_judged_before_anything_is_connected() {
        let allow = TunnelAllow { peer: Vec::new(), host: "::1".into(), ports: 80..=80 };
        let named = TunnelAllow { peer: b"west".to_vec(), host: "db".into(), ports: 1..=9 };
        let plan = Plan { tunnel_allow: vec![allow, named], ..Plan::default() };
        let west = PeerName::from("west");
        assert!(
            matches!(judge(&plan, &west, b"[::1]:80"), Ok(Asked::Address(address)) if address.port() == 80)
        );
        assert!(matches!(judge(&plan, &west, b"db:7"), Ok(Asked::Name(name)) if name == "db:7"));
        for (target, code) in [
            (&b"db:70"[..], Code::Forbidden),
            (b"127.0.0.1:22", Code::Forbidden),
            (b"db", Code::Protocol),
            (b"db:0", Code::Protocol),
            (b"db:99999", Code::Protocol),
            (b":7", Code::Protocol),
            (b"d\nb:7", Code::Protocol),
            (b"\xff:7", Code::Protocol),
        ] {
            let refusal = judge(&plan, &west, target).err().map(|(code, _)| code);
            assert_eq!(refusal, Some(code), "{}", String::from_utf8_lossy(target));
        }
        let Err((_, text)) = judge(&plan, &west, b"127.0.0.1:22") else { panic!("forbidden") };
        assert!(text.contains("tunnels.allow") && text.contains("west:127.0.0.1:22"), "{text}");
    }
}
