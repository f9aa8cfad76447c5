//! The configuration as the plan that the dataplane works by. Sent whole at every attach and after every reload.
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dwcp_abi::link::{
    Access, Attach, CONGESTION_AUTO, Export, LINK_VERSION, Peer, PlanEnd, Rdma, Setup, Transport, Tunnel,
    TunnelAllow,
};
use dwcp_config::{
    Algorithm, Backend, Config, Congestion, Cores, ExportPeers, Hugepages, LaneCongestion, Workers,
};
use dwcp_sys::link::{LinkError, send_message};

use super::limits::Limits;

/// Sends transport, peers, exports, tunnels, the kernel's part, RDMA and the plan's end. `tunnels` are those of the configuration and those that
/// operators added.
pub(super) fn send(
    socket: &UnixStream,
    config: &Config,
    tunnels: &[dwcp_config::Tunnel],
    limits: &Limits,
    generation: u64,
) -> Result<(), LinkError> {
    send_message(socket, &Setup::Transport(transport(config, limits.total)))?;
    for (peer, &pacing_bytes_per_s) in config.peers.iter().zip(&limits.peers) {
        let (name, address) = (peer.name.as_bytes(), peer.address.as_bytes());
        let fingerprint = peer.identity.0;
        send_message(socket, &Setup::Peer(Peer { name, fingerprint, address, pacing_bytes_per_s }))?;
    }
    for export in &config.exports {
        let Some(peers) = allowed(export) else { continue };
        send_message(
            socket,
            &Setup::Export(Export {
                name: export.name.as_bytes(),
                path: export.path.as_os_str().as_bytes(),
                access: access(export.access),
                peers: &peers,
                privileged: export.privileged,
            }),
        )?;
    }
    for tunnel in tunnels {
        let listen = tunnel.listen.to_string();
        let (peer, target) = (tunnel.peer.as_bytes(), tunnel.target.as_bytes());
        send_message(socket, &Setup::Tunnel(Tunnel { listen: listen.as_bytes(), peer, target }))?;
    }
    // A node that is switched off connects nobody.
    for allow in config.tunnels.allow.iter().filter(|_| config.enabled) {
        // Empty means all there.
        let (peer, host) = (allow.peer.as_deref().unwrap_or(""), allow.host.as_deref().unwrap_or(""));
        send_message(
            socket,
            &Setup::TunnelAllow(TunnelAllow {
                peer: peer.as_bytes(),
                host: host.as_bytes(),
                port_first: *allow.ports.start(),
                port_last: *allow.ports.end(),
            }),
        )?;
    }
    super::kernel::send(socket, config)?;
    let transport = &config.transport;
    send_message(
        socket,
        &Setup::Rdma(Rdma {
            wanted: transport.enable_rdma,
            device: transport.rdma_device.as_bytes(),
            // The key table holds it below 256.
            port: u8::try_from(transport.rdma_port).unwrap_or(1),
        }),
    )?;
    send_message(socket, &Setup::PlanEnd(PlanEnd { generation }))
}

/// What the dataplane is made of; `cores` and `listen` in the form of the link.
pub(super) fn attach<'a>(config: &Config, cores: &'a [u8], listen: &'a str) -> Attach<'a> {
    Attach {
        version: LINK_VERSION,
        workers: match config.dataplane.workers {
            Workers::Auto => 0,
            Workers::Count(count) => count,
        },
        cores,
        backend: match config.dataplane.backend {
            Backend::Auto => 0,
            Backend::IoUring => 1,
            Backend::Epoll => 2,
        },
        hugepages: config.dataplane.hugepages == Hugepages::Auto,
        buffer_bytes: config.dataplane.buffer_memory.0,
        listen: listen.as_bytes(),
    }
}

/// The configured cores, each `u16`; empty = chosen from the topology.
pub(super) fn cores(config: &Config) -> Vec<u8> {
    match &config.dataplane.cores {
        Cores::Auto => Vec::new(),
        Cores::List(cores) => cores.iter().flat_map(|core| core.to_le_bytes()).collect(),
    }
}

fn transport(config: &Config, pacing_bytes_per_s: u64) -> Transport {
    let transport = &config.transport;
    let compression = &config.compression;
    Transport {
        min_streams: transport.min_streams,
        initial_streams: transport.initial_streams,
        max_streams: transport.max_streams,
        encrypt: config.security.enable_tls,
        congestion: lane_congestion(transport.congestion_algorithm),
        send_buffer_size: u32::try_from(transport.send_buffer_size.0).unwrap_or(u32::MAX),
        recv_buffer_size: u32::try_from(transport.recv_buffer_size.0).unwrap_or(u32::MAX),
        pacing_bytes_per_s,
        connect_timeout_ms: milliseconds(transport.connect_timeout),
        read_timeout_ms: milliseconds(transport.read_timeout),
        write_timeout_ms: milliseconds(transport.write_timeout),
        codec: match compression.algorithm {
            _ if !compression.enabled => 0,
            Algorithm::None => 0,
            Algorithm::Lz4 => 1,
            Algorithm::Snappy => 2,
            Algorithm::Zstd => 3,
        },
        codec_level: compression.level.0,
        codec_adaptive: compression.enable_adaptive,
        codec_ratio_min_thousandths: (compression.min_compression_ratio * 1000.0).clamp(1000.0, 65_535.0)
            as u16,
        deltas: compression.enabled && compression.enable_delta_encoding,
        baseline_store_bytes: compression.baseline_store_size.0,
    }
}

/// Names of the peers that may use the export, as the link lists them; none where nobody may, because an empty list
/// means everybody there.
fn allowed(export: &dwcp_config::Export) -> Option<Vec<u8>> {
    let names = match &export.peers {
        ExportPeers::All => return Some(Vec::new()),
        ExportPeers::Only(names) if names.is_empty() => return None,
        ExportPeers::Only(names) => names,
    };
    let mut list = Vec::new();
    for name in names {
        // Names are at most 64 bytes long.
        list.extend_from_slice(&(name.len() as u16).to_le_bytes());
        list.extend_from_slice(name.as_bytes());
    }
    Some(list)
}

fn lane_congestion(wanted: LaneCongestion) -> u8 {
    match wanted {
        LaneCongestion::Auto => CONGESTION_AUTO,
        LaneCongestion::Bbr => congestion(Congestion::Bbr),
        LaneCongestion::Cubic => congestion(Congestion::Cubic),
        LaneCongestion::Reno => congestion(Congestion::Reno),
        LaneCongestion::Host => congestion(Congestion::Host),
    }
}

pub(super) fn congestion(congestion: Congestion) -> u8 {
    match congestion {
        Congestion::Host => 0,
        Congestion::Bbr => 1,
        Congestion::Cubic => 2,
        Congestion::Reno => 3,
    }
}

fn access(access: dwcp_config::Access) -> Access {
    match access {
        dwcp_config::Access::Read => Access::Read,
        dwcp_config::Access::Write => Access::Write,
        dwcp_config::Access::ReadWrite => Access::ReadWrite,
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
