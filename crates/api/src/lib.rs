//! The HTTP interface of `dwcp-control` as types: documents, paths and a client.
//!
//! `dwcp-control` renders these types, `dwcp` reads them; neither builds JSON by hand. Nothing here decides
//! anything, opens a file or knows the other halves of the appliance.
mod access;
mod backup;
mod base64;
mod breaker;
mod certificate;
pub mod client;
mod cluster;
mod config;
mod health;
mod latency;
mod node;
mod path_text;
pub mod paths;
mod peers;
mod ping;
mod problem;
mod schema;
mod stats;
mod status;
mod timestamp;
mod transfer;
mod tunnel;

pub use access::{
    AuditEntry, AuditList, AuditQuery, KeyCreated, KeyFigures, KeyList, KeyRequest, Role, TokenIssued,
    TokenKey, TokenKeyList, TokenRequest,
};
pub use backup::BackupVerdict;
pub use breaker::{BreakerFigures, BreakerReset, BreakerResetQuery, CircuitBreakers, PeerBreaker};
pub use certificate::{
    CERTIFICATE_WARNING_DAYS, CertificateFigures, CertificateFinding, CertificateList, CertificateVerdict,
};
pub use cluster::{
    ClusterJoinRequest, ClusterLeaveQuery, ClusterMember, ClusterMembers, ClusterNode, ClusterPut,
    ClusterToken, ClusterValue, ConsensusChange, ConsensusMessages, ConsensusStatus, ConsensusSuspects,
};
pub use config::{
    ConfigChange, ConfigChangeQuery, ConfigDocument, ConfigQuery, ConfigSection, ConfigText, ConfigVerdict,
    KeyChange,
};
pub use health::{
    BreakerState, ComponentHealth, ComponentState, Components, ConfigurationStatus, Health, HealthStatus,
    LatencyMs, Live, PartHealth, Performance, Ready, RecentError,
};
pub use latency::{ChunkTimes, LatencyBreakdown, LatencyQuery, LatencyReport, StageTimes};
pub use node::{
    ComponentFigures, ComponentList, CompressionStats, DrainStatus, EventList, EventQuery, LogLines,
    ModeDocument, NodeEvent,
};
pub use path_text::{PATH_BYTES_MAX, PathText, PathTextError};
pub use peers::{PathLimit, PathMode, PeerFigures, PeerList, PeerPath, PeerState};
pub use ping::PingAnswer;
pub use problem::Problem;
pub use schema::{Document, SchemaName};
pub use stats::{
    BpfClass, BpfStats, CoreStats, FlowFigures, FlowList, KernelEntry, KernelReport, Stats, TransportMode,
    TransportReport,
};
pub use status::{CoreFigures, DataplaneStatus, Feature, FeatureState, Mode, PeersTotal, Status};
pub use timestamp::{Timestamp, TimestampError};
pub use transfer::{
    Change, ChangedName, Changes, Counts, Direction, EVENT_FINISHED, EVENT_PROGRESS, FAILURES_MAX, Filter,
    PatternRefused, SOURCES_MAX, Transfer, TransferFailure, TransferId, TransferList, TransferOptions,
    TransferQuery, TransferRequest, TransferState,
};
pub use tunnel::{
    TunnelAnswer, TunnelFigures, TunnelList, TunnelOrigin, TunnelPeer, TunnelQuery, TunnelRequest,
    TunnelState,
};
