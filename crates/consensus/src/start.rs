//! The one place where a protocol is chosen: the driver names it, and holds a [`Replica`] from then on.
use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::bullshark::Bullshark;
use crate::config::Config;
use crate::core::Core;
use crate::crypto::Crypto;
use crate::io::{Corrupt, Replica, Start};
use crate::node::Node;
use crate::pbft::Pbft;
use crate::plan::ProtocolKind;
use crate::probft::ProBft;
use crate::raft::Raft;
use crate::types::Time;

/// What a replica is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its settings.
    pub config: Config,
    /// Its keys.
    pub crypto: Box<dyn Crypto>,
    /// What it finds on its disk.
    pub start: Start,
    /// The last snapshot of the epoch before, which this one begins with. `None` in a cluster's first epoch.
    pub origin: Option<Arc<[u8]>>,
}

/// A replica of a protocol.
///
/// # Errors
/// [`Corrupt`] where a record is not what was written: start it again as [`Start::Lost`].
pub fn start(kind: ProtocolKind, parts: Parts, now: Time) -> Result<Box<dyn Replica>, Corrupt> {
    start_core(kind, Core::new(parts.config, parts.crypto, parts.origin), parts.start, now)
}

/// A replica with a deliberate bug.
///
/// # Errors
/// As [`start`].
#[cfg(feature = "mutations")]
pub fn start_mutant(
    kind: ProtocolKind,
    parts: Parts,
    now: Time,
    mutation: Option<crate::mutation::Mutation>,
) -> Result<Box<dyn Replica>, Corrupt> {
    let mut core = Core::new(parts.config, parts.crypto, parts.origin);
    core.mutate(mutation);
    start_core(kind, core, parts.start, now)
}

fn start_core(kind: ProtocolKind, core: Core, start: Start, now: Time) -> Result<Box<dyn Replica>, Corrupt> {
    Ok(match kind {
        ProtocolKind::Pbft | ProtocolKind::TPbft => Box::new(Node::<Pbft>::start(core, now, start)?),
        ProtocolKind::Raft => Box::new(Node::<Raft>::start(core, now, start)?),
        ProtocolKind::ProBft => Box::new(Node::<ProBft>::start(core, now, start)?),
        ProtocolKind::Bullshark => Box::new(Node::<Bullshark>::start(core, now, start)?),
    })
}
