//! YAML into the canonical configuration of a node, with every mistake named by file, line and column.
//!
//! Used by control, by the dataplane's command line and by `dwcp config`. It reads files and the environment that
//! it is given; it opens no socket, resolves no name and changes nothing.
mod access;
mod aliases;
mod check;
mod keys;
mod list;
mod load;
mod migrate;
mod model;
mod nearest;
mod overrides;
mod presets;
mod reference;
mod selector;
mod timetable;
mod tunnels;
mod units;
mod value;
mod yaml;

pub use access::{
    CipherSuite, CipherSuites, Mechanism, Mechanisms, SubjectField, SubjectRole, SubjectRule, Subjects,
    TlsVersion, subject_role,
};
pub use aliases::canonical;
pub use keys::{Applies, EXPORT_KEYS, KEYS, Key, PEER_KEYS};
pub use list::List;
pub use load::{Finding, Findings, Loaded, Origin, load, load_with, locate, parse};
pub use migrate::{Migrated, migrate};
pub use model::{
    Access, Algorithm, Api, Backend, CircuitBreaker, Class, Classes, Compression, Config, Congestion,
    Consensus, ConsensusAlgorithm, Cores, Dataplane, Ebpf, Environment, Export, ExportPeers, Guard,
    GuardMode, Hugepages, Identity, LaneCongestion, Level, LogLevel, Mode, Monitoring, Peer, Recovery,
    Security, State, StateBackend, Transport, Workers,
};
pub use nearest::nearest;
pub use overrides::{Changes, Overrides};
pub use presets::{PRESETS, Preset};
pub use reference::{changed, effective, explain, reference};
pub use selector::{Protocol, Selector, Selectors};
pub use timetable::{Timetable, WeekTime};
pub use tunnels::{Tunnel, TunnelAllow, Tunnels};
pub use units::{ByteSize, Rate, parse_duration, parse_rate, parse_size, show_duration};
pub use yaml::Position;
