//! A long link inside this machine: two network namespaces joined by a pair of TUN devices, and one thread between them
//! that is the link. For tests and benches, which see rate, delay, loss and queues as on a real path, on kernels that
//! have no netem; it ships nowhere.
//!
//! What happens to a packet is decided per segment of the wire, also inside the super-packets that the kernel hands
//! over, by a core without clock or device: [`direction`] (bottleneck, buffer, delays) with [`loss`]; [`packet`] knows
//! the headers. Around it: [`relay`] moves the bytes, [`namespace`] holds the ends, [`emulator`] sets all of it up.
//!
//! What it is not: a network. There is no competing traffic but what the user starts, and a path has one bottleneck a
//! direction.
mod arena;
mod chance;
pub mod counters;
pub mod direction;
pub mod emulator;
pub mod loss;
pub mod namespace;
pub mod packet;
mod quantity;
mod relay;
pub mod spec;

pub use counters::{Counters, Snapshot};
pub use emulator::{Emulator, Link, StartError, unavailable};
pub use namespace::Namespace;
pub use spec::{Spec, SpecError};
