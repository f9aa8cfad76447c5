//! The dataplane: moves bytes. One pinned thread per core ([`worker`]), each with its own ring, engine and buffers;
//! helper threads for what blocks ([`jobs`] with their [`tree`]s, the [`door`] for new lanes); [`baselines`] that differences
//! are sent to; one thread for [`tunnel`]s; [`link`] to control; [`listeners`] that outlive the process;
//! [`bpf`] programs in the kernel. [`node`] is what the threads share.
pub mod baselines;
pub mod bpf;
pub mod door;
pub mod features;
pub use dwcp_sys::identity;
pub mod jobs;
pub mod keeper;
pub mod link;
pub mod listeners;
pub mod node;
pub mod packs;
pub mod paths;
pub mod plan;
pub mod rdma;
pub mod record;
pub mod tree;
pub mod tunnel;
pub mod worker;
