//! RDMA: devices, and reliably connected queue pairs that carry a lane's bytes.
//!
//! The door opens a [`Device`], [prepares](Device::prepare) a queue pair, exchanges what the ends must know and
//! [connects](Prepared::connect) it; a worker's proactor takes the [`QueuePair`] in and moves bytes over it as over a
//! socket (`proactor/paired.rs`). libibverbs is opened when it is first wanted ([`library`]); where it, the kernel's part or
//! a device is missing, [`Device::open`] says which.
//!
//! Our own declarations instead of a crate: the existing ones need cmake and libclang wherever this is built, for twenty
//! functions.

mod device;
mod ffi;
mod library;
mod pair;
mod raw;
pub(crate) mod slots;
mod sysfs;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dwcp_abi::wire::rdma::PairEnd;
use nix::errno::Errno;

pub use device::{Device, Prepared};
pub use sysfs::{Gid, PortFacts, ports};

use crate::buffers::Mapping;

/// Why there is no RDMA, or no queue pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdmaError {
    /// Something is missing on this host; the text says what and the way out.
    #[error("{0}")]
    Unavailable(String),
    /// A call of the library failed.
    #[error("{call}: {}{}", .errno.desc(), hint(*.errno))]
    Call {
        /// The call, in words.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// The other end's description is impossible, or of another kind of network.
    #[error("the other end's queue pair cannot be reached: {0}")]
    End(String),
}

/// What refused memory usually means.
fn hint(errno: Errno) -> &'static str {
    if errno == Errno::ENOMEM { " (raise the limit of locked memory, or give CAP_IPC_LOCK)" } else { "" }
}

/// A connected queue pair, for a proactor.
pub struct QueuePair(pub(crate) Box<dyn Verbs>);

impl fmt::Debug for QueuePair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("QueuePair").field(&self.0.shape()).finish()
    }
}

/// The slots of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) own_slots: u16,
    pub(crate) own_slot_bytes: u32,
    pub(crate) their_slots: u16,
    pub(crate) their_slot_bytes: u32,
    /// Writes that may be under way at once.
    pub(crate) writes_max: u32,
}

/// Something has happened at a queue pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// The oldest write is over: the other end's device has it.
    Written,
    /// The other end has written.
    Received { immediate: u32, bytes: u32 },
    /// The queue pair is of no use any more, and why.
    Broken(String),
}

/// What a stream needs of a queue pair. The devices' is in [`pair`]; tests have one in memory. Dropping it ends all
/// writes: from then on no device touches the memory that was lent.
pub(crate) trait Verbs: Send {
    fn shape(&self) -> Shape;

    /// Lets writes come out of a proactor's memory, which outlives this pair. `lent` is the proactor's book of what it
    /// has lent to devices so far.
    fn lend(&mut self, memory: &Mapping, lent: &mut Vec<Lent>) -> Result<(), Errno>;

    /// Starts a write of the lent memory's bytes `offset..offset + length` into a slot of the other end. With no bytes
    /// only the immediate value travels. Panics where that is not lent. Ends with one [`Done::Written`], in order.
    fn write(&mut self, offset: usize, length: u32, slot: u16, immediate: u32) -> Result<(), Errno>;

    /// Copies bytes out of one of our slots. The other end may change them meanwhile: they are checked afterwards, as
    /// everything that comes from a lane. Panics where the slot has no such bytes.
    fn copy_out(&self, slot: u16, start: u32, to: &mut [u8]);

    /// Appends what has happened.
    fn poll(&mut self, out: &mut Vec<Done>);

    /// From now on the next event makes the descriptor readable. What has happened before does not: poll once more.
    fn arm(&mut self) -> Result<(), Errno>;

    /// The descriptor was readable: takes the events off.
    fn take_events(&mut self);

    /// A descriptor that becomes readable when something happened after [`Verbs::arm`], for a proactor's doorbell.
    fn events(&self) -> Result<OwnedFd, Errno>;

    /// A descriptor that becomes readable when something is the matter with the device.
    fn alarms(&self) -> Result<OwnedFd, Errno>;

    /// It was readable: why the pair is of no use any more, if so.
    fn alarmed(&mut self) -> Option<String>;
}

/// A proactor's memory, lent to a device; taken back when dropped.
pub(crate) struct Lent(Arc<raw::Registration>);

/// Bytes of a packet size of `enum ibv_mtu`.
pub(crate) const fn mtu_bytes(code: i32) -> Option<u16> {
    match code {
        1 => Some(256),
        2 => Some(512),
        3 => Some(1024),
        4 => Some(2048),
        5 => Some(4096),
        _ => None,
    }
}

/// The packet size of an end in `enum ibv_mtu`.
pub(crate) fn mtu_code(end: &PairEnd) -> i32 {
    1 + dwcp_abi::wire::rdma::MTUS.iter().position(|&mtu| mtu == end.mtu).unwrap_or(0) as i32
}
