//! A plan, put together from the messages of the set-up socket.
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::bpf::Class;
use dwcp_abi::codec::CodecError;
use dwcp_abi::link::{CONGESTION_AUTO, Setup};

use crate::door::{Payload, PeerName, PlanPeer, SocketOptions};
use crate::identity::Fingerprint;
use crate::plan::{Export, Peer, Plan, Tunnel, TunnelAllow};
use crate::rdma::Wanted;

/// Entries that each list of a plan may have.
const PEERS_MAX: usize = 4096;

/// Takes messages until `PlanEnd`.
#[derive(Debug, Default)]
pub(super) struct Builder {
    plan: Plan,
}

impl Builder {
    /// Takes one message; a whole plan at its end.
    ///
    /// # Errors
    /// When a list inside it is malformed or there are too many peers or exports.
    pub(super) fn take(&mut self, message: &Setup<'_>) -> Result<Option<Plan>, CodecError> {
        match message {
            Setup::Attach(_) => return Err(CodecError::Unknown { field: "second attach", value: 0 }),
            Setup::Transport(transport) => self.plan.transport = *transport,
            Setup::Peer(peer) => {
                check("peers", self.plan.peers.len())?;
                self.plan.peers.push(Peer {
                    name: PeerName(Arc::from(peer.name)),
                    fingerprint: Fingerprint(peer.fingerprint),
                    address: String::from_utf8_lossy(peer.address).into_owned(),
                    pacing_bytes_per_s: peer.pacing_bytes_per_s,
                });
            }
            Setup::Export(export) => {
                check("exports", self.plan.exports.len())?;
                self.plan.exports.push(Export::from_message(export)?);
            }
            Setup::Tunnel(tunnel) => {
                check("tunnels", self.plan.tunnels.len())?;
                self.plan.tunnels.push(Tunnel {
                    listen: String::from_utf8_lossy(tunnel.listen).into_owned(),
                    peer: PeerName(Arc::from(tunnel.peer)),
                    target: String::from_utf8_lossy(tunnel.target).into_owned(),
                });
            }
            Setup::TunnelAllow(allow) => {
                check("tunnels that are allowed", self.plan.tunnel_allow.len())?;
                self.plan.tunnel_allow.push(TunnelAllow {
                    peer: allow.peer.to_vec(),
                    host: String::from_utf8_lossy(allow.host).into_owned(),
                    ports: allow.port_first..=allow.port_last,
                });
            }
            Setup::Kernel(kernel) => self.plan.kernel.begin(kernel),
            Setup::Class(class) => self.plan.kernel.set_class(class)?,
            Setup::Selector(selector) => {
                check("selectors", self.plan.kernel.selectors.len())?;
                self.plan.kernel.add_selector(selector)?;
            }
            Setup::Rdma(rdma) => self.plan.rdma = Wanted::from_message(rdma),
            Setup::PlanEnd(end) => {
                let mut plan = std::mem::take(&mut self.plan);
                plan.generation = end.generation;
                if plan.transport.pacing_bytes_per_s > 0
                    || plan.peers.iter().any(|peer| peer.pacing_bytes_per_s > 0)
                    || plan.kernel.classes[Class::Bulk as usize].flow_bytes_per_s > 0
                {
                    plan.rdma.refuse_paced();
                }
                return Ok(Some(plan));
            }
        }
        Ok(None)
    }
}

fn check(field: &'static str, count: usize) -> Result<(), CodecError> {
    if count < PEERS_MAX {
        return Ok(());
    }
    Err(CodecError::TooLarge { field, value: count as u64, max: PEERS_MAX as u64 })
}

/// What the door needs of a plan.
pub(super) fn for_door(plan: &Plan) -> crate::door::Plan {
    let transport = &plan.transport;
    let peers = plan.peers.iter().map(|peer| PlanPeer {
        name: peer.name.clone(),
        fingerprint: peer.fingerprint,
        address: peer.address.clone(),
    });
    crate::door::Plan {
        peers: peers.collect(),
        payload: if transport.encrypt { Payload::Encrypted } else { Payload::ClearIfBoth },
        connect_timeout: Duration::from_millis(u64::from(transport.connect_timeout_ms.clamp(100, 600_000))),
        socket: SocketOptions {
            congestion: match transport.congestion {
                1 | CONGESTION_AUTO => Some("bbr"),
                2 => Some("cubic"),
                3 => Some("reno"),
                _ => None,
            },
            send_buffer_bytes: transport.send_buffer_size,
            receive_buffer_bytes: transport.recv_buffer_size,
        },
    }
}
