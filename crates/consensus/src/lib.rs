//! Replicas that agree on one order of transactions: the protocols, and what they share.
//!
//! Sans-io: no clock, socket, file, thread or random source. The driver (or the simulator in `tests/`) feeds [`Input`]s
//! and carries out [`Output`]s; [`Replica`] says which rule it must keep. All protocols order batches that a quorum
//! keeps, so payload is sent once and the order never waits for it.
#![no_std]

extern crate alloc;

mod batch;
mod bullshark;
mod checkpoint;
mod commands;
mod config;
mod core;
mod crypto;
mod ed25519;
mod epochs;
#[cfg(feature = "mutations")]
mod hostile;
mod io;
mod ledger;
mod mempool;
#[cfg(feature = "mutations")]
mod mutation;
mod node;
mod pbft;
mod plan;
mod probft;
mod raft;
mod start;
mod trust;
mod types;
mod votes;
mod wire;

pub use batch::{Batch, BatchName, BatchRef};
pub use commands::REPLICA_CLIENTS_FIRST;
pub use config::{Config, MILLISECOND};
pub use crypto::{Certificate, Check, Crypto, RandomProof, Signature, Signed};
pub use ed25519::{BadKey, Ed25519, PublicKeys};
#[cfg(feature = "mutations")]
pub use epochs::falsify_origin;
pub use epochs::{Anchor, EpochParts, Epochs, Maker};
#[cfg(feature = "mutations")]
pub use hostile::{Lies, reencoded, start_hostile};
pub use io::{
    Apply, Began, Corrupt, Ended, Evidence, Figures, Input, Key, Output, Probable, Reached, Refusal, Replica,
    Stable, Stage, Start,
};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use plan::{ABOUT_BYTES_MAX, Member, Plan, ProtocolKind, Rotation};
#[cfg(feature = "mutations")]
pub use probft::is_probable;
pub use probft::{Sampling, SamplingRule};
#[cfg(feature = "mutations")]
pub use start::start_mutant;
pub use start::{Parts, start};
pub use types::{Committee, Digest, REPLICAS_MAX, ReplicaId, Time, TransactionId};
pub use wire::{BLOB_BYTES_MAX, Reader, Wire, WireError};
