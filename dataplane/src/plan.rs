//! The plan: what control allows and wants. Built from the messages of the set-up socket, replaced as a whole.
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use dwcp_abi::link::{Access, Transport, strings};
use dwcp_abi::wire::Code;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::door::PeerName;
use crate::identity::Fingerprint;
use crate::jobs::Refusal;
use crate::tree::{Base, Root, Source};

/// Peers, exports and settings.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Grows with every plan.
    pub generation: u64,
    /// Settings.
    pub transport: Transport,
    /// Peers that may connect or be connected to.
    pub peers: Vec<Peer>,
    /// Directories that peers may use.
    pub exports: Vec<Export>,
    /// Listeners whose connections go to peers.
    pub tunnels: Vec<Tunnel>,
    /// Where peers' tunnels may be connected to here.
    pub tunnel_allow: Vec<TunnelAllow>,
    /// What the kernel programs are to do.
    pub kernel: crate::bpf::Policy,
    /// Whether lanes may go over RDMA.
    pub rdma: crate::rdma::Wanted,
}

/// A listener whose connections go to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `address:port`.
    pub listen: String,
    /// The peer.
    pub peer: PeerName,
    /// `host:port`, as seen from the peer.
    pub target: String,
}

/// Targets that a peer's tunnels may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelAllow {
    /// Name of the peer; empty = every peer of the plan.
    pub peer: Vec<u8>,
    /// The host, as tunnels have to name it; empty = every host.
    pub host: String,
    /// The ports.
    pub ports: std::ops::RangeInclusive<u16>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Name.
    pub name: PeerName,
    /// What its certificate must hash to.
    pub fingerprint: Fingerprint,
    /// `host:port`; empty = it only dials us.
    pub address: String,
    /// Ceiling of all lanes to it together; 0 = none.
    pub pacing_bytes_per_s: u64,
}

/// A directory that peers may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Name.
    pub name: Vec<u8>,
    /// Absolute path.
    pub path: Vec<u8>,
    /// What peers may do.
    pub access: Access,
    /// Who; empty = every peer of the plan.
    pub peers: Vec<Vec<u8>>,
    /// They may also decide owners, set-user-ID bits and devices.
    pub privileged: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let transport = Transport {
            min_streams: 16,
            initial_streams: 32,
            max_streams: 256,
            encrypt: true,
            congestion: 0,
            send_buffer_size: 0,
            recv_buffer_size: 0,
            pacing_bytes_per_s: 0,
            connect_timeout_ms: 30_000,
            read_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            codec: 0,
            codec_level: 0,
            codec_adaptive: true,
            codec_ratio_min_thousandths: 1100,
            deltas: false,
            baseline_store_bytes: 0,
        };
        Self {
            generation: 0,
            transport,
            peers: Vec::new(),
            exports: Vec::new(),
            tunnels: Vec::new(),
            tunnel_allow: Vec::new(),
            kernel: crate::bpf::Policy::default(),
            rdma: crate::rdma::Wanted::not(crate::rdma::NOT_WANTED),
        }
    }
}

impl Export {
    /// From a message.
    ///
    /// # Errors
    /// When its list of peers is malformed.
    pub fn from_message(message: &dwcp_abi::link::Export<'_>) -> Result<Self, dwcp_abi::codec::CodecError> {
        let peers = strings(message.peers).map(|peer| peer.map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        let (name, path) = (message.name.to_vec(), message.path.to_vec());
        Ok(Self { name, path, access: message.access, peers, privileged: message.privileged })
    }

    fn admits(&self, peer: &PeerName, wanted: Access) -> bool {
        let named = self.peers.is_empty() || self.peers.iter().any(|name| name[..] == peer.0[..]);
        named && (self.access == wanted || self.access == Access::ReadWrite)
    }

    /// What of `path` lies below this export: `/absolute/path` or `name/below`.
    fn below<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let prefix = if path.starts_with(b"/") { trim_slashes(&self.path) } else { &self.name };
        let rest = path.strip_prefix(prefix)?;
        match rest.first() {
            None => Some(rest),
            Some(b'/') => Some(&rest[1..]),
            // `/srv/database` is not below `/srv/data`.
            Some(_) if prefix.is_empty() => Some(rest),
            Some(_) => None,
        }
    }
}

impl Plan {
    /// Ceiling of all lanes to a peer together; 0 = none.
    #[must_use]
    pub fn peer_bytes_per_s(&self, name: &PeerName) -> u64 {
        self.peers.iter().find(|peer| peer.name == *name).map_or(0, |peer| peer.pacing_bytes_per_s)
    }

    /// A peer's destination as a place below an export that it may write, and whether it is privileged there.
    ///
    /// # Errors
    /// What to tell the peer.
    pub fn destination(&self, peer: &PeerName, path: &[u8]) -> Result<(Root, bool), Refusal> {
        let (export, directory, below) = self.resolve(peer, path, Access::Write)?;
        Ok((Root::Export { directory, destination: below.to_vec() }, export.privileged))
    }

    /// A peer's source below an export that it may read.
    ///
    /// # Errors
    /// What to tell the peer.
    pub fn source(&self, peer: &PeerName, path: &[u8]) -> Result<Source, Refusal> {
        let (_, directory, below) = self.resolve(peer, path, Access::Read)?;
        Ok(Source { base: Base::Export(Arc::new(directory)), path: below.to_vec() })
    }

    /// Whether a peer's tunnels may be connected to `host` (without brackets) and `port`.
    #[must_use]
    pub fn allows_tunnel(&self, peer: &PeerName, host: &str, port: u16) -> bool {
        self.tunnel_allow.iter().any(|allow| {
            (allow.peer.is_empty() || allow.peer[..] == peer.0[..])
                && (allow.host.is_empty() || allow.host.eq_ignore_ascii_case(host))
                && allow.ports.contains(&port)
        })
    }

    fn resolve<'a>(
        &self,
        peer: &PeerName,
        path: &'a [u8],
        access: Access,
    ) -> Result<(&Export, OwnedFd, &'a [u8]), Refusal> {
        let shown = String::from_utf8_lossy(path);
        let covering = self.exports.iter().filter_map(|export| Some((export, export.below(path)?)));
        // The most specific export decides.
        let Some((export, below)) = covering.min_by_key(|(_, below)| below.len()) else {
            let text = format!(
                "{shown}: no export covers it; add one to `exports:` at the peer, or name one as NAME/path"
            );
            return Err((Code::Forbidden, text));
        };
        if !export.admits(peer, access) {
            let verb = if access == Access::Read { "read" } else { "write" };
            let (name, peer) = (String::from_utf8_lossy(&export.name), String::from_utf8_lossy(&peer.0));
            let text =
                format!("{shown}: {peer} may not {verb} the export {name}: see `access` and `peers` there");
            return Err((Code::Forbidden, text));
        }
        let directory = Path::new(std::ffi::OsStr::new(
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&export.path),
        ));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(directory, flags, Mode::empty()).map_err(|errno| {
            (Code::NotFound, format!("{shown}: the export's directory cannot be opened at the peer: {errno}"))
        })?;
        Ok((export, directory, below))
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(exports: &[(&str, &str, Access, &[&str])]) -> Plan {
        let exports = exports.iter().map(|(name, path, access, peers)| Export {
            name: name.as_bytes().to_vec(),
            path: path.as_bytes().to_vec(),
            access: *access,
            peers: peers.iter().map(|peer| peer.as_bytes().to_vec()).collect(),
            privileged: false,
        });
        Plan { exports: exports.collect(), ..Plan::default() }
    }

    fn peer(name: &str) -> PeerName {
        PeerName(Arc::from(name.as_bytes()))
    }

    #[test]
    fn paths_are_covered_by_name_or_by_prefix_and_only_at_a_border() {
        let plan = plan(&[("tmp", "/tmp/", Access::ReadWrite, &[])]);
        let below =
            |path: &'static [u8]| plan.resolve(&peer("b"), path, Access::Write).map(|(_, _, below)| below);
        assert_eq!(below(b"/tmp/x/y").unwrap(), b"x/y");
        assert_eq!(below(b"/tmp").unwrap(), b"");
        assert_eq!(below(b"tmp/x").unwrap(), b"x");
        assert_eq!(below(b"tmp").unwrap(), b"");
        assert_eq!(below(b"/tmpfoo/x").unwrap_err().0, Code::Forbidden);
        assert_eq!(below(b"other/x").unwrap_err().0, Code::Forbidden);
        assert_eq!(below(b"/etc/passwd").unwrap_err().0, Code::Forbidden);
    }

    #[test]
    fn tunnels_go_where_somebody_allowed_it_and_nowhere_else() {
        let allow =
            |peer: &str, host: &str, ports| TunnelAllow { peer: peer.into(), host: host.into(), ports };
        let plan = Plan {
            tunnel_allow: vec![
                allow("a", "127.0.0.1", 5432..=5433),
                allow("", "db", 80..=80),
                allow("root", "", 1..=9),
            ],
            ..Plan::default()
        };
        for (name, host, port, expected) in [
            ("a", "127.0.0.1", 5432, true),
            ("a", "127.0.0.1", 5434, false),
            ("b", "127.0.0.1", 5432, false),
            ("b", "DB", 80, true),
            ("b", "db.example", 80, false),
            ("root", "anything", 9, true),
            ("root", "anything", 10, false),
        ] {
            assert_eq!(plan.allows_tunnel(&peer(name), host, port), expected, "{name} {host}:{port}");
        }
        assert!(
            !Plan::default().allows_tunnel(&peer("a"), "127.0.0.1", 22),
            "nothing unless somebody says so"
        );
    }

    #[test]
    fn the_most_specific_export_decides_for_named_peers_only() {
        let plan = plan(&[("all", "/", Access::Read, &[]), ("in", "/tmp", Access::Write, &["b"])]);
        assert!(plan.resolve(&peer("b"), b"/tmp/x", Access::Write).is_ok());
        assert_eq!(plan.resolve(&peer("c"), b"/tmp/x", Access::Write).unwrap_err().0, Code::Forbidden);
        assert_eq!(plan.resolve(&peer("b"), b"/tmp/x", Access::Read).unwrap_err().0, Code::Forbidden);
        assert!(plan.resolve(&peer("c"), b"/usr/lib", Access::Read).is_ok());
        assert_eq!(plan.resolve(&peer("c"), b"/usr/lib", Access::Write).unwrap_err().0, Code::Forbidden);
    }
}
