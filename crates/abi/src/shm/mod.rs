//! Shared memory between control and dataplane: its layout, and the algorithms over its words. `sys` creates, seals,
//! maps and hands over the regions; nothing here allocates, maps or waits, and nothing here is unsafe: shared memory
//! is a slice of atomic words. Everything read from it is hostile.
//!
//! ```text
//! region of a worker, 425,984 bytes           region of the node, 61,440 bytes
//!       0  header                                   0  header
//!    4096  statistics page   worker → control    4096  statistics page   dataplane → control
//!    8192  command ring      control → worker   16384  feature texts     dataplane → control
//!  143360  event ring        worker → control   28672  kernel texts      dataplane → control
//!  409600  timed chunks      worker → control   40960  busiest flows     dataplane → control
//!
//! header, words: 0 magic · 1 version · 2 kind (1 worker, 2 node) · 3 worker's index · 4 instance of the dataplane
//!                5 size in bytes · 6 number of sections · 7 zero · 8… offset and length in bytes of each section
//! ```
mod atomic;
mod counters;
mod flows;
mod node;
mod page;
mod region;
mod ring;
mod stats;
mod traces;

pub use atomic::{AtomicU64, Memory, Ordering};
pub use counters::CounterKind;
pub use flows::{FLOWS_PAGE_BYTES, FLOWS_SHOWN_MAX, FlowRecord, Flows, FlowsWriter};
pub use node::{
    FEATURES_BYTES_MAX, FEATURES_PAGE_BYTES, FLOW_CORES_MAX, Feature, Features, FeaturesWriter,
    NODE_COUNTERS_MAX, NODE_PAGE_BYTES, NodeCounter, NodeFigures, NodeStatsWriter, ProgramFlag,
};
pub use page::{PAGE_HEADER_BYTES, PageError, PageReader, PageWriter};
pub use region::{
    COMMAND_RING, COMMAND_RING_BYTES, EVENT_RING, EVENT_RING_BYTES, NODE_FEATURES, NODE_FLOWS, NODE_KERNEL,
    NODE_STATS, REGION_MAGIC, REGION_PAGE_BYTES, RegionError, RegionKind, SHM_VERSION, Section, WORKER_STATS,
    WORKER_TRACES, WORKERS_MAX, check_header, write_header,
};
pub use ring::{
    Consumer, HEAD as RING_HEAD_WORD, Producer, PushError, RECORD_BYTES_MAX, RING_HEADER_BYTES, RingError,
    SLEEPING as RING_SLEEPING_WORD, TAIL as RING_TAIL_WORD,
};
pub use stats::{
    LATENCY_BOUNDS_US, LATENCY_BUCKETS, Latency, WORKER_COUNTERS_MAX, WORKER_PAGE_BYTES, WorkerCounter,
    WorkerFigures, WorkerSnapshot, WorkerStatsWriter,
};
pub use traces::{
    RECEIVED_STAGES, SENT_STAGES, TRACE_STAGES_MAX, TRACES_MAX, TRACES_PAGE_BYTES, TraceFigures, TraceRecord,
    Traces, TracesWriter,
};
