//! The configuration as types, and its defaults. Read by control (which turns it into a plan), by the dataplane's
//! command line and by the command's `config` family. Where a value came from is the loader's business.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::{CipherSuite, CipherSuites, Mechanism, Mechanisms, Subjects, TlsVersion};
use crate::list::List;
use crate::selector::Selectors;
use crate::timetable::Timetable;
use crate::tunnels::Tunnels;
use crate::units::{ByteSize, Rate};
use crate::value::choices;

/// Everything that one node can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Off = the node stays up and moves nothing.
    pub enabled: bool,
    /// Version of the configuration, echoed by `/health`.
    pub version: String,
    /// What the node is used for; decides a few defaults.
    pub environment: Environment,
    /// What the links are like.
    pub mode: Mode,
    /// `node.name`; empty = the host's name.
    pub node_name: String,
    /// Lanes.
    pub transport: Transport,
    /// Compression.
    pub compression: Compression,
    /// Figures and logs.
    pub monitoring: Monitoring,
    /// Trust.
    pub security: Security,
    /// When to stop trying.
    pub circuit_breaker: CircuitBreaker,
    /// How to try again.
    pub recovery: Recovery,
    /// What is kept, where, and for how long.
    pub state: State,
    /// HTTP.
    pub api: Api,
    /// Address of the peer port.
    pub peer_listen: SocketAddr,
    /// Agreement with other nodes.
    pub consensus: Consensus,
    /// Threads and memory of the dataplane.
    pub dataplane: Dataplane,
    /// Connections of programs, carried by peers.
    pub tunnels: Tunnels,
    /// Programs in the kernel.
    pub ebpf: Ebpf,
    /// What the kernel does with each class of traffic.
    pub classes: Classes,
    /// What holds strangers back from the peer port.
    pub guard: Guard,
    /// Nodes that may connect and be connected to.
    pub peers: Vec<Peer>,
    /// Directories that peers may use.
    pub exports: Vec<Export>,
}

/// `transport.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Transport {
    pub min_streams: u16,
    pub max_streams: u16,
    pub initial_streams: u16,
    pub congestion_algorithm: LaneCongestion,
    pub send_buffer_size: ByteSize,
    pub recv_buffer_size: ByteSize,
    pub connect_timeout: Duration,
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub enable_pacing: bool,
    pub pacing_rate: Rate,
    pub bandwidth_limit: Timetable,
    pub enable_rdma: bool,
    pub rdma_device: String,
    pub rdma_port: u16,
}

/// `compression.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Compression {
    pub enabled: bool,
    pub algorithm: Algorithm,
    pub level: Level,
    pub enable_adaptive: bool,
    pub min_compression_ratio: f64,
    pub enable_delta_encoding: bool,
    pub baseline_store_size: ByteSize,
}

/// `monitoring.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Monitoring {
    pub prometheus_enabled: bool,
    pub metrics_port: u16,
    pub metrics_path: String,
    pub log_level: LogLevel,
    pub health_check_interval: Duration,
}

/// `security.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Security {
    pub enable_tls: bool,
    pub trust_loopback: bool,
    /// Requests a minute for each client; 0 = no limit.
    pub rate_limit: u32,
    /// Of the HTTPS interface.
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    pub tls_min_version: TlsVersion,
    pub cipher_suites: CipherSuites,
    /// Ask clients of the HTTPS interface for certificates.
    pub enable_mtls: bool,
    /// Whose certificates count.
    pub ca_file: PathBuf,
    pub client_cert_required: bool,
    pub mechanisms: Mechanisms,
    pub allowed_subjects: Subjects,
    /// Of tokens.
    pub jwt_ttl: Duration,
}

/// `circuit_breaker.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct CircuitBreaker {
    pub failure_threshold: u32,
    pub timeout: Duration,
    pub success_threshold: u32,
}

/// `recovery.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Recovery {
    pub max_retries: u32,
    pub backoff: Vec<Duration>,
}

/// `state.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct State {
    pub backend: StateBackend,
    pub postgres_url: String,
    /// Empty = no password.
    pub postgres_password_file: PathBuf,
    /// Empty = no TLS.
    pub postgres_ca_file: PathBuf,
    pub keep_transfers: Duration,
}

/// `api.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Api {
    pub listen: SocketAddr,
    pub tls_listen: SocketAddr,
    /// Empty = `control.sock` in the run-time directory.
    pub socket: PathBuf,
}

/// `consensus.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Consensus {
    pub listen: SocketAddr,
    /// Empty = the address of `listen`, where that is one.
    pub address: String,
    pub algorithm: ConsensusAlgorithm,
    pub adaptive_mode: bool,
    pub committee_size: u16,
    pub epoch_positions: u32,
}

/// `dataplane.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Dataplane {
    pub workers: Workers,
    pub cores: Cores,
    pub backend: Backend,
    pub buffer_memory: ByteSize,
    pub hugepages: Hugepages,
}

/// `ebpf.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Ebpf {
    pub enabled: bool,
    /// Empty = the node's own.
    pub cgroup: PathBuf,
}

/// `classes.*`
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Classes {
    pub bulk: Class,
    pub tunnel: Class,
    pub control: Class,
    pub consensus: Class,
}

impl Classes {
    /// All of them with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Class); 4] {
        [
            ("bulk", &self.bulk),
            ("tunnel", &self.tunnel),
            ("control", &self.control),
            ("consensus", &self.consensus),
        ]
    }
}

/// One of `classes.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Class {
    pub selectors: Selectors,
    pub flow_rate: Rate,
    pub peer_rate: Rate,
    pub congestion: Congestion,
    pub priority: u16,
}

impl Default for Class {
    fn default() -> Self {
        let none = Rate { bits_per_s: 0 };
        Self {
            selectors: Selectors::default(),
            flow_rate: none,
            peer_rate: none,
            congestion: Congestion::Host,
            priority: 0,
        }
    }
}

/// `guard.*`
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Guard {
    pub mode: GuardMode,
    pub source_rate: u32,
    pub total_rate: u32,
}

/// One of `peers:`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Unique name, used as `NAME:PATH`.
    pub name: String,
    /// `host:port` to dial; empty = it only dials us.
    pub address: String,
    /// SHA-256 of its certificate.
    pub identity: Identity,
    /// What may be sent to it.
    pub bandwidth_limit: Timetable,
}

/// One of `exports:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Unique name.
    pub name: String,
    /// Absolute path of the directory.
    pub path: PathBuf,
    /// What peers may do.
    pub access: Access,
    /// Which peers may.
    pub peers: ExportPeers,
    /// Whether they may also decide owners, set-user-ID bits and devices.
    pub privileged: bool,
}

/// Who may use an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportPeers {
    /// Every configured peer.
    All,
    /// Those with these names.
    Only(Vec<String>),
}

/// SHA-256 of a node's certificate, written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Identity(pub [u8; 32]);

/// `compression.level`, 1 to 22; also `fast` (1), `balanced` (3), `high` (9), `max` (19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub u8);

/// `dataplane.workers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per core that is left to the dataplane.
    Auto,
    /// So many.
    Count(u16),
}

/// `dataplane.cores`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// Chosen from the topology.
    Auto,
    /// These, one worker each.
    List(Vec<u16>),
}

choices! {
    /// What the node is used for.
    pub enum Environment { Production = "production", Staging = "staging", Development = "development", }
    /// What the links are like.
    pub enum Mode { Hybrid = "hybrid", Datacenter = "datacenter", Internet = "internet", }
    /// How the members of a cluster agree.
    pub enum ConsensusAlgorithm { Pbft = "pbft", Bullshark = "bullshark", TPbft = "tpbft", ProBft = "probft", Raft = "raft", }
    /// Congestion control of the lanes.
    pub enum LaneCongestion { Auto = "auto", Bbr = "bbr", Cubic = "cubic", Reno = "reno", Host = "host", }
    /// Congestion control of a class's connections.
    pub enum Congestion { Bbr = "bbr", Cubic = "cubic", Reno = "reno", Host = "host", }
    /// Codec.
    pub enum Algorithm { None = "none", Lz4 = "lz4", Snappy = "snappy", Zstd = "zstd", }
    /// Least severe line that is logged.
    pub enum LogLevel { Trace = "trace", Debug = "debug", Info = "info", Warn = "warn", Error = "error", }
    /// What peers may do below an export.
    pub enum Access { Read = "read", Write = "write", ReadWrite = "read-write", }
    /// How the dataplane talks to the kernel.
    pub enum Backend { Auto = "auto", IoUring = "io_uring", Epoll = "epoll", }
    /// Where state is kept.
    pub enum StateBackend { Embedded = "embedded", Postgres = "postgres", }
    /// Whether the buffer pool may lie on hugepages.
    pub enum Hugepages { Auto = "auto", Never = "never", }
    /// Whether the peer port is guarded.
    pub enum GuardMode { Off = "off", On = "on", Force = "force", }
}

impl Environment {
    /// Default of `monitoring.health_check_interval`.
    #[must_use]
    pub fn health_check_interval(self) -> Duration {
        Duration::from_secs(match self {
            Self::Production => 10,
            Self::Staging => 30,
            Self::Development => 60,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            enabled: true,
            version: "1.0.0".into(),
            environment: Environment::Production,
            mode: Mode::Hybrid,
            node_name: String::new(),
            transport: Transport::default(),
            compression: Compression {
                enabled: true,
                algorithm: Algorithm::Zstd,
                level: Level(3),
                enable_adaptive: true,
                min_compression_ratio: 1.1,
                enable_delta_encoding: true,
                baseline_store_size: ByteSize(4 << 30),
            },
            monitoring: Monitoring {
                prometheus_enabled: true,
                metrics_port: 9090,
                metrics_path: "/metrics".into(),
                log_level: LogLevel::Info,
                health_check_interval: Environment::Production.health_check_interval(),
            },
            security: Security {
                enable_tls: true,
                trust_loopback: true,
                rate_limit: 1000,
                certificate_file: "/etc/dwcp/certs/server.crt".into(),
                key_file: "/etc/dwcp/certs/server.key".into(),
                tls_min_version: TlsVersion::Tls13,
                cipher_suites: List(vec![CipherSuite::Aes256Gcm, CipherSuite::Aes128Gcm]),
                enable_mtls: false,
                ca_file: "/etc/dwcp/certs/ca.crt".into(),
                client_cert_required: true,
                mechanisms: List(vec![Mechanism::MutualTls, Mechanism::Jwt, Mechanism::ApiKey]),
                allowed_subjects: List(Vec::new()),
                jwt_ttl: Duration::from_secs(3600),
            },
            circuit_breaker: CircuitBreaker {
                failure_threshold: 5,
                timeout: Duration::from_secs(30),
                success_threshold: 2,
            },
            recovery: Recovery { max_retries: 3, backoff: [1, 2, 4].map(Duration::from_secs).to_vec() },
            state: State::default(),
            api: Api { listen: any(8080), tls_listen: any(8443), socket: PathBuf::new() },
            peer_listen: any(9000),
            consensus: Consensus {
                listen: any(6000),
                address: String::new(),
                algorithm: ConsensusAlgorithm::Pbft,
                adaptive_mode: false,
                committee_size: 10,
                epoch_positions: 1000,
            },
            dataplane: Dataplane {
                workers: Workers::Auto,
                cores: Cores::Auto,
                backend: Backend::Auto,
                buffer_memory: ByteSize(64 << 20),
                hugepages: Hugepages::Auto,
            },
            tunnels: Tunnels::default(),
            ebpf: Ebpf { enabled: true, cgroup: PathBuf::new() },
            classes: Classes::default(),
            guard: Guard { mode: GuardMode::Off, source_rate: 200, total_rate: 5000 },
            peers: Vec::new(),
            exports: Vec::new(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            backend: StateBackend::Embedded,
            postgres_url: String::new(),
            postgres_password_file: PathBuf::new(),
            postgres_ca_file: PathBuf::new(),
            keep_transfers: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            min_streams: 16,
            max_streams: 256,
            initial_streams: 32,
            congestion_algorithm: LaneCongestion::Auto,
            // A fixed size switches the kernel's autotuning off and pins megabytes for each of 256 lanes.
            send_buffer_size: ByteSize(0),
            recv_buffer_size: ByteSize(0),
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            enable_pacing: true,
            // A fixed ceiling would hold every faster link back; long paths are paced by what they carry.
            pacing_rate: Rate { bits_per_s: 0 },
            bandwidth_limit: Timetable::default(),
            enable_rdma: false,
            rdma_device: String::new(),
            rdma_port: 1,
        }
    }
}

impl Default for Export {
    fn default() -> Self {
        let (name, path, access) = (String::new(), PathBuf::new(), Access::Read);
        Self { name, path, access, peers: ExportPeers::All, privileged: false }
    }
}
