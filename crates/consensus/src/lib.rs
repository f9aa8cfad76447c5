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
mod config;
mod core;
mod crypto;
mod ed25519;
#[cfg(feature = "mutations")]
mod hostile;
mod io;
mod ledger;
mod mempool;
#[cfg(feature = "mutations")]
mod mutation;
mod node;
mod pbft;
mod start;
mod types;
mod votes;
mod wire;

pub use batch::{Batch, BatchName, BatchRef};
pub use config::{Config, MILLISECOND};
pub use crypto::{Certificate, Check, Crypto, RandomProof, Signature, Signed};
pub use ed25519::{BadKey, Ed25519, PublicKeys};
#[cfg(feature = "mutations")]
pub use hostile::{Lies, reencoded, start_hostile};
pub use io::{
    Apply, Corrupt, Evidence, Figures, Finality, Input, Key, Output, Refusal, Replica, Stable, Start,
};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
#[cfg(feature = "mutations")]
pub use start::start_mutant;
pub use start::{Parts, ProtocolKind, start};
pub use types::{Committee, Digest, REPLICAS_MAX, ReplicaId, Time, TransactionId};
pub use wire::{BLOB_BYTES_MAX, Reader, Wire, WireError};
