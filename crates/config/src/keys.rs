//! The one table of keys: name, type, range, meaning and what a change needs. The loader reads by it, the reference
//! and the API print by it; a key that is not here does not exist.
use crate::model::{Config, Export, Peer};
use crate::value::Value;
use crate::yaml::{Complaint, Node};

/// When a changed value is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At the next reload (SIGHUP).
    Reload,
    /// After control was started again.
    Restart,
    /// After the dataplane was started again.
    DataplaneRestart,
}

impl Applies {
    /// For the reference.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "no",
            Self::Restart => "control",
            Self::DataplaneRestart => "dataplane",
        }
    }
}

/// One key of a section with the type `T`.
pub struct Key<T: 'static> {
    /// Canonical name, with dots.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// When a change is used.
    pub applies: Applies,
    pub(crate) range: Range,
    pub(crate) kind: fn(&T) -> String,
    pub(crate) show: fn(&T) -> String,
    pub(crate) json: fn(&T) -> serde_json::Value,
    pub(crate) read: fn(&mut T, &Node, Range) -> Result<(), Complaint>,
}

impl<T> Key<T> {
    /// The key's value as canonical text.
    #[must_use]
    pub fn text(&self, target: &T) -> String {
        (self.show)(target)
    }
}

/// Smallest and largest magnitude (bytes, milliseconds, bits per second), and whether zero means "off".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    Any,
    Within(u64, u64),
    ZeroOr(u64, u64),
}
use Range::{Any, Within, ZeroOr};

macro_rules! keys {
    ($target:ty; $($name:literal => $($field:ident).+, $range:expr, $applies:ident, $meaning:literal;)*) => {
        &[$(Key {
            name: $name,
            meaning: $meaning,
            applies: Applies::$applies,
            range: $range,
            kind: |target: &$target| kind_of(&target.$($field).+),
            show: |target| Value::show(&target.$($field).+),
            json: |target| Value::json(&target.$($field).+),
            read: |target, node, range| {
                target.$($field).+ = read_within(node, range)?;
                Ok(())
            },
        },)*]
    };
}

/// Keys of the file, but `peers` and `exports`.
pub const KEYS: &[Key<Config>] = keys! { Config;
    "enabled" => enabled, Any, Reload, "Off: the node stays up and moves nothing.";
    "version" => version, Any, Reload, "Version of this configuration, echoed by `/health`.";
    "environment" => environment, Any, Restart, "What the node is used for; decides the default of `monitoring.health_check_interval`.";
    "mode" => mode, Any, Reload, "What the links are like; `hybrid` decides for each peer.";
    "node.name" => node_name, Any, Restart, "Name of this node in answers and logs. Empty: the host's name.";
    "transport.min_streams" => transport.min_streams, Within(1, 256), Reload, "Fewest lanes of a busy session with large objects.";
    "transport.max_streams" => transport.max_streams, Within(1, 1024), Reload, "Most lanes of a session.";
    "transport.initial_streams" => transport.initial_streams, Within(1, 1024), Reload, "Lanes that a session begins with; on a long path as many as it can use.";
    "transport.congestion_algorithm" => transport.congestion_algorithm, Any, Reload, "Congestion control of lanes; `auto`: bbr, and cubic while nothing gets lost; `host` leaves the host's default.";
    "transport.send_buffer_size" => transport.send_buffer_size, ZeroOr(64 << 10, 256 << 20), Reload, "SO_SNDBUF of a lane. 0: the kernel's autotuning, which a fixed size switches off; 16 MiB on each of 256 lanes would pin 4 GiB.";
    "transport.recv_buffer_size" => transport.recv_buffer_size, ZeroOr(64 << 10, 256 << 20), Reload, "SO_RCVBUF of a lane. 0: the kernel's autotuning.";
    "transport.connect_timeout" => transport.connect_timeout, Within(100, 600_000), Reload, "Until a lane and its handshake must stand.";
    "transport.read_timeout" => transport.read_timeout, Within(100, 600_000), Reload, "A lane that owes bytes and brings none for so long is closed.";
    "transport.write_timeout" => transport.write_timeout, Within(100, 600_000), Reload, "A lane that takes no bytes for so long is closed.";
    "transport.enable_pacing" => transport.enable_pacing, Any, Reload, "Off: `transport.pacing_rate` and the limits of bandwidth are ignored.";
    "transport.pacing_rate" => transport.pacing_rate, ZeroOr(64_000, 10_000_000_000_000), Reload, "Ceiling of all lanes together, in bits/s. 0: none but what is measured: lanes of a long path are paced together just under what it carries.";
    "transport.bandwidth_limit" => transport.bandwidth_limit, Any, Reload, "Ceiling of all lanes together by the node's local time: a rate, `off`, or entries such as `08:00,10Mbps 18:00,off` or `mon-fri@08:00,10Mbps sat@00:00,off`, each in force until the next. The lower of it and `transport.pacing_rate` counts.";
    "transport.enable_rdma" => transport.enable_rdma, Any, Reload, "Carry lanes over RDMA queue pairs where both ends say so and have an active port, and over TCP elsewhere or when a queue pair breaks. Queue pairs keep no rate: with `transport.pacing_rate`, `classes.bulk.flow_rate` or a limit of bandwidth in force lanes stay on TCP.";
    "transport.rdma_device" => transport.rdma_device, Any, Reload, "Name of the RDMA device, as `rdma link` shows it. Empty: the first with an active port.";
    "transport.rdma_port" => transport.rdma_port, Within(1, 255), Reload, "Its port.";
    "compression.enabled" => compression.enabled, Any, Reload, "Off: everything travels as it is.";
    "compression.algorithm" => compression.algorithm, Any, Reload, "Codec. `none`: nothing is compressed, but differences may be sent. `zstd` with `enable_adaptive` stands for all of them.";
    "compression.level" => compression.level, Any, Reload, "Level of zstd; `fast` = 1, `balanced` = 3, `high` = 9, `max` = 19.";
    "compression.enable_adaptive" => compression.enable_adaptive, Any, Reload, "What a chunk is coded with follows what the path carries, what the data promise and what a core can do; on fast paths nothing is. Off: always `algorithm` at `level`.";
    "compression.min_compression_ratio" => compression.min_compression_ratio, Within(1, 1000), Reload, "Blocks that gain less travel as they are.";
    "compression.enable_delta_encoding" => compression.enable_delta_encoding, Any, Reload, "Send only what differs from the file that is replaced at the receiver, on paths where that is faster.";
    "compression.baseline_store_size" => compression.baseline_store_size, Any, Reload, "Most bytes of files that were sent and are kept in the state directory, so that the next version is sent as its differences. 0: none.";
    "monitoring.prometheus_enabled" => monitoring.prometheus_enabled, Any, Restart, "Serve `/metrics`.";
    "monitoring.metrics_port" => monitoring.metrics_port, Any, Restart, "Second listener, for metrics only, on the address of `api.listen`. 0: none. A taken port is a warning.";
    "monitoring.metrics_path" => monitoring.metrics_path, Any, Restart, "Path of the metrics on the second listener.";
    "monitoring.log_level" => monitoring.log_level, Any, Reload, "Least severe line that is logged.";
    "monitoring.health_check_interval" => monitoring.health_check_interval, Within(1000, 600_000), Reload, "How often what was given up is tried again, and the store is written to; failures are noticed at once. 10s in production, 30s in staging, 1m in development.";
    "security.enable_tls" => security.enable_tls, Any, Reload, "Encrypt what crosses the lanes (TLS 1.3). Off is for links that are trusted: both ends stay authenticated, the payload goes in clear. On from the first day, unlike in the original table of defaults.";
    "security.trust_loopback" => security.trust_loopback, Any, Reload, "Requests from this host may do everything.";
    "security.rate_limit" => security.rate_limit, Within(0, 1_000_000), Reload, "Requests that each client of another host may make in a minute; probes and metrics are not counted. 0: no limit.";
    "security.tls.cert_file" => security.certificate_file, Any, Restart, "Certificate chain of the HTTPS interface, PEM. It is read again when it changes; without the file there is no HTTPS.";
    "security.tls.key_file" => security.key_file, Any, Restart, "Its private key, PEM.";
    "security.tls.ca_file" => security.ca_file, Any, Restart, "Certificates of those whose signature makes a client's certificate count, PEM; read again when it changes. Used with `security.enable_mtls`.";
    "security.tls.min_version" => security.tls_min_version, Any, Restart, "Oldest version of TLS that the HTTPS interface speaks; there is only one.";
    "security.tls.cipher_suites" => security.cipher_suites, Any, Restart, "Cipher suites of the HTTPS interface.";
    "security.enable_mtls" => security.enable_mtls, Any, Restart, "Ask clients of the HTTPS interface for certificates that `security.tls.ca_file` vouches for.";
    "security.authentication.client_cert_required" => security.client_cert_required, Any, Restart, "With `security.enable_mtls`: no connection without such a certificate. Off: API keys and tokens do without.";
    "security.authentication.mechanism" => security.mechanisms, Any, Reload, "How clients of the HTTPS interface may say who they are: by certificate (`security.enable_mtls`), by token (`dwcp auth token`), by API key (`dwcp auth key create`).";
    "security.authentication.allowed_subjects" => security.allowed_subjects, Any, Reload, "Whose certificates stand for which role: `CN=node-*.example` may look, `operate:CN=…` and `admin:CN=…` may more; `*` takes no dot. A certificate with DNS names needs one that fits too; `DNS=…` looks at those alone. Empty: no certificate stands for a role.";
    "security.jwt_ttl" => security.jwt_ttl, Within(60_000, 86_400_000), Reload, "Until a token expires, at most.";
    "circuit_breaker.failure_threshold" => circuit_breaker.failure_threshold, Within(1, 1000), Reload, "Failures in a row that open a breaker: of the dataplane for the node's, of attempts for a peer's.";
    "circuit_breaker.timeout" => circuit_breaker.timeout, Within(1000, 3_600_000), Reload, "Until an open breaker lets one attempt through as a probe.";
    "circuit_breaker.success_threshold" => circuit_breaker.success_threshold, Within(1, 1000), Reload, "Probes in a row that have to work before it closes again.";
    "recovery.max_retries" => recovery.max_retries, Within(0, 100), Reload, "Attempts to get a failed component back before it counts as unhealthy; each health check tries once more after that. `dwcp server` starts a half that died as often before it waits for the health check.";
    "recovery.backoff" => recovery.backoff, Any, Reload, "Pauses before those attempts; the last one repeats.";
    "state.backend" => state.backend, Any, Restart, "Where transfers, API keys, the audit log and tunnels are kept: a file in the state directory, or a PostgreSQL server. Without the server control does not start; where it goes away later, transfers go on, new ones are refused until it is back, and health says so.";
    "state.postgres_url" => state.postgres_url, Any, Restart, "`postgres://USER@HOST:PORT/DATABASE`, without a password. The database belongs to this node alone.";
    "state.postgres_password_file" => state.postgres_password_file, Any, Restart, "File with the password, read at every connection. Empty: none.";
    "state.postgres_ca_file" => state.postgres_ca_file, Any, Restart, "Certificates of the authorities that sign the server's, PEM: the connection is encrypted, and the server has to be the one of the address. Empty: no TLS.";
    "state.keep_transfers" => state.keep_transfers, Within(60_000, 315_360_000_000), Reload, "For how long transfers that have ended are remembered; of more than 100000 the oldest are forgotten sooner.";
    "api.listen" => api.listen, Any, Restart, "Address of the HTTP interface. To other hosts it serves health and metrics only; for everything else there is `api.tls_listen`.";
    "api.tls_listen" => api.tls_listen, Any, Restart, "Address of the HTTPS interface: TLS 1.3, API keys (`dwcp auth key create`).";
    "api.socket" => api.socket, Any, Restart, "Unix socket of the HTTP interface. Empty: `control.sock` in the run-time directory.";
    "peer.listen" => peer_listen, Any, DataplaneRestart, "Address that peers connect to.";
    "tunnels.listen" => tunnels.listen, Any, Reload, "Addresses that programs connect to, each with the peer that carries the connection and the target there; `dwcp tunnel add` makes more of them.";
    "tunnels.allow" => tunnels.allow, Any, Reload, "Where this node connects tunnels of its peers to; `*` stands for every peer, host or port. Empty: nowhere.";
    "tunnels.listen_beyond_loopback" => tunnels.listen_beyond_loopback, Any, Reload, "Whether tunnels may listen at addresses that other hosts reach. Whoever reaches a listener reaches its target.";
    "consensus.listen" => consensus.listen, Any, Restart, "Address that the other members of a cluster connect to. It is listened on only while this node is a member.";
    "consensus.address" => consensus.address, Any, Restart, "`host:port` under which the others reach it. Empty: `consensus.listen`, where that is an address of this host.";
    "consensus.algorithm" => consensus.algorithm, Any, Reload, "How the members agree, where this node begins a cluster or takes part in choosing (`consensus.adaptive_mode`). `pbft`: few nodes, short delays; `bullshark`: much to order; `tpbft`: many nodes, of whom the most trusted decide; `probft`: 25 nodes and more, all of whom vote before samples of the others; `raft`: nodes that stop and never lie, as in one datacenter.";
    "consensus.adaptive_mode" => consensus.adaptive_mode, Any, Reload, "Let members change the protocol by size and load of the cluster, at most every few minutes.";
    "consensus.committee_size" => consensus.committee_size, Within(4, 100), Reload, "Seats of a `tpbft` committee; it bears a third of them being faulty, less one.";
    "consensus.epoch_positions" => consensus.epoch_positions, Within(100, 1_000_000), Reload, "Positions of the order after which a `tpbft` committee is chosen anew.";
    "dataplane.workers" => dataplane.workers, Any, DataplaneRestart, "Worker threads.";
    "dataplane.cores" => dataplane.cores, Any, DataplaneRestart, "Cores of the workers, one each.";
    "dataplane.backend" => dataplane.backend, Any, DataplaneRestart, "How the workers talk to the kernel; `auto` takes epoll where io_uring is forbidden.";
    "dataplane.buffer_memory" => dataplane.buffer_memory, Within(4 << 20, 64 << 30), DataplaneRestart, "Payload buffers of all workers together.";
    "dataplane.hugepages" => dataplane.hugepages, Any, DataplaneRestart, "Whether the buffers may lie on hugepages.";
    "ebpf.enabled" => ebpf.enabled, Any, Reload, "Use programs in the kernel where rights and kernel allow: counters per class, `dwcp flows`, `classes` and `guard`. Off: nothing is loaded, and what was pinned goes.";
    "ebpf.cgroup" => ebpf.cgroup, Any, Reload, "Control group whose connections are followed and paced, by its path below the mount point of cgroup2. Empty: the slice or group that the node runs in.";
    "classes.bulk.match" => classes.bulk.selectors, Any, Reload, "What belongs to the class bulk, beside the lanes themselves: `tcp/5001`, `udp/4789`, one connection `tcp/10.0.0.1:5000-10.0.0.2:80`, `mark/0x10`, `cgroup/system.slice/x.service`, `dscp/46`. The most particular one decides, in the order connection, mark, cgroup, port, dscp.";
    "classes.bulk.flow_rate" => classes.bulk.flow_rate, ZeroOr(64_000, 34_000_000_000), Reload, "Ceiling of each TCP connection of the class in the node's control group, in bits/s; followed by connections that stand, within a quarter of a second. The lanes keep to it themselves, with and without kernel programs. 0: none.";
    "classes.bulk.peer_rate" => classes.bulk.peer_rate, ZeroOr(64_000, 10_000_000_000_000), Reload, "Ceiling of all packets of the class to one address together, in bits/s on the wire; where the interface has `fq` (`dwcp tune`). 0: none.";
    "classes.bulk.congestion" => classes.bulk.congestion, Any, Reload, "Congestion control of new connections of the class; `host` leaves them as they are.";
    "classes.bulk.priority" => classes.bulk.priority, Within(0, 15), Reload, "Priority of its packets for queueing disciplines (`skb->priority`). 0: as they are.";
    "classes.tunnel.match" => classes.tunnel.selectors, Any, Reload, "What belongs to the class tunnel: `tcp/5001`, `udp/4789`, one connection `tcp/10.0.0.1:5000-10.0.0.2:80`, `mark/0x10`, `cgroup/system.slice/x.service`, `dscp/46`. The most particular one decides, in the order connection, mark, cgroup, port, dscp.";
    "classes.tunnel.flow_rate" => classes.tunnel.flow_rate, ZeroOr(64_000, 34_000_000_000), Reload, "Ceiling of each TCP connection of the class in the node's control group, in bits/s; followed by connections that stand, within a quarter of a second. 0: none.";
    "classes.tunnel.peer_rate" => classes.tunnel.peer_rate, ZeroOr(64_000, 10_000_000_000_000), Reload, "Ceiling of all packets of the class to one address together, in bits/s on the wire; where the interface has `fq` (`dwcp tune`). 0: none.";
    "classes.tunnel.congestion" => classes.tunnel.congestion, Any, Reload, "Congestion control of new connections of the class; `host` leaves them as they are.";
    "classes.tunnel.priority" => classes.tunnel.priority, Within(0, 15), Reload, "Priority of its packets for queueing disciplines (`skb->priority`). 0: as they are.";
    "classes.control.match" => classes.control.selectors, Any, Reload, "What belongs to the class control: `tcp/5001`, `udp/4789`, one connection `tcp/10.0.0.1:5000-10.0.0.2:80`, `mark/0x10`, `cgroup/system.slice/x.service`, `dscp/46`. The most particular one decides, in the order connection, mark, cgroup, port, dscp.";
    "classes.control.flow_rate" => classes.control.flow_rate, ZeroOr(64_000, 34_000_000_000), Reload, "Ceiling of each TCP connection of the class in the node's control group, in bits/s; followed by connections that stand, within a quarter of a second. 0: none.";
    "classes.control.peer_rate" => classes.control.peer_rate, ZeroOr(64_000, 10_000_000_000_000), Reload, "Ceiling of all packets of the class to one address together, in bits/s on the wire; where the interface has `fq` (`dwcp tune`). 0: none.";
    "classes.control.congestion" => classes.control.congestion, Any, Reload, "Congestion control of new connections of the class; `host` leaves them as they are.";
    "classes.control.priority" => classes.control.priority, Within(0, 15), Reload, "Priority of its packets for queueing disciplines (`skb->priority`). 0: as they are.";
    "classes.consensus.match" => classes.consensus.selectors, Any, Reload, "What belongs to the class consensus: `tcp/5001`, `udp/4789`, one connection `tcp/10.0.0.1:5000-10.0.0.2:80`, `mark/0x10`, `cgroup/system.slice/x.service`, `dscp/46`. The most particular one decides, in the order connection, mark, cgroup, port, dscp.";
    "classes.consensus.flow_rate" => classes.consensus.flow_rate, ZeroOr(64_000, 34_000_000_000), Reload, "Ceiling of each TCP connection of the class in the node's control group, in bits/s; followed by connections that stand, within a quarter of a second. 0: none.";
    "classes.consensus.peer_rate" => classes.consensus.peer_rate, ZeroOr(64_000, 10_000_000_000_000), Reload, "Ceiling of all packets of the class to one address together, in bits/s on the wire; where the interface has `fq` (`dwcp tune`). 0: none.";
    "classes.consensus.congestion" => classes.consensus.congestion, Any, Reload, "Congestion control of new connections of the class; `host` leaves them as they are.";
    "classes.consensus.priority" => classes.consensus.priority, Within(0, 15), Reload, "Priority of its packets for queueing disciplines (`skb->priority`). 0: as they are.";
    "guard.mode" => guard.mode, Any, Reload, "Hold back what unknown addresses send to the port of `peer.listen` above the rates below, before it costs the node anything. `on` does not attach where another process answers at that port, nor at 22; `force` does.";
    "guard.source_rate" => guard.source_rate, Within(1, 1_000_000), Reload, "Packets per second that one unknown address may send there. An address is known once a lane to it stands, or where a peer is configured by it.";
    "guard.total_rate" => guard.total_rate, Within(1, 100_000_000), Reload, "Packets per second of all unknown addresses together.";
};

/// Keys of one of `peers:`.
pub const PEER_KEYS: &[Key<Peer>] = keys! { Peer;
    "name" => name, Any, Reload, "Unique name: letters, digits, `.`, `_`, `-`. Used as `NAME:PATH`.";
    "address" => address, Any, Reload, "`host:port` to dial. Absent: the peer only dials us.";
    "identity" => identity, Any, Reload, "SHA-256 of the peer's certificate.";
    "bandwidth_limit" => bandwidth_limit, Any, Reload, "Ceiling of all lanes to the peer together, as in `transport.bandwidth_limit`.";
};

/// Keys of one of `exports:`.
pub const EXPORT_KEYS: &[Key<Export>] = keys! { Export;
    "name" => name, Any, Reload, "Unique name, first part of a path at this node.";
    "path" => path, Any, Reload, "Absolute path of the directory.";
    "access" => access, Any, Reload, "What peers may do: fetch, send, both.";
    "peers" => peers, Any, Reload, "Which peers may.";
    "privileged" => privileged, Any, Reload, "Whether peers may also decide owners, set-user-ID bits and device nodes here.";
};

/// The lists of sections, beside [`KEYS`].
pub(crate) const LISTS: [&str; 2] = ["peers", "exports"];

fn kind_of<V: Value>(_: &V) -> String {
    V::kind()
}

fn read_within<V: Value>(node: &Node, range: Range) -> Result<V, Complaint> {
    let value = V::read(node)?;
    let magnitude = value.magnitude().unwrap_or(0);
    let (low, high, hint) = match range {
        Any => return Ok(value),
        Within(low, high) => (low, high, ""),
        ZeroOr(..) if magnitude == 0 => return Ok(value),
        ZeroOr(low, high) => (low, high, "0 or "),
    };
    if (low..=high).contains(&magnitude) {
        return Ok(value);
    }
    let unit = match V::kind().as_str() {
        "duration" => " ms",
        "size" => " bytes",
        "rate" => " bits/s",
        _ => "",
    };
    Err(Complaint::new(node.at, format!("must be {hint}from {low} to {high}{unit}, found {}", value.show())))
}
