//! Sets a link up and takes it down: two namespaces, a device in each, addresses, the relay between them.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

pub use dwcp_sys::tun::Offload;
use dwcp_sys::tun::Tun;
use thiserror::Error;

use crate::counters::Snapshot;
use crate::direction::Direction;
use crate::namespace::Namespace;
use crate::relay::{Relay, Shared, Way};
use crate::spec::{Spec, SpecError};

/// A link between two ends.
#[derive(Debug, Clone)]
pub struct Link {
    /// From the first end to the second.
    pub there: Spec,
    /// From the second end to the first.
    pub back: Spec,
    /// Of all chance: the same seed and the same segments in the same order give the same losses.
    pub seed: u64,
    /// Largest IP packet on the wire in bytes.
    pub mtu_bytes: u16,
    /// Whether the ends may leave segmentation to the link. Off is slower and changes nothing else.
    pub offload: Offload,
}

impl Link {
    /// Alike in both directions.
    ///
    /// # Errors
    /// The text describes no link.
    pub fn both_ways(spec: &str) -> Result<Self, SpecError> {
        let spec: Spec = spec.parse()?;
        Ok(Self { there: spec.clone(), back: spec, seed: 1, mtu_bytes: 1_500, offload: Offload::On })
    }

    /// Delay there and back, in nanoseconds.
    #[must_use]
    pub fn round_trip_ns(&self) -> u64 {
        self.there.delay_ns + self.back.delay_ns
    }
}

/// Why a link cannot be made.
#[derive(Debug, Error)]
pub enum StartError {
    /// No network namespace, which needs CAP_SYS_ADMIN.
    #[error("no network namespace: {0}")]
    Namespace(io::Error),
    /// No TUN device, which needs `/dev/net/tun` and CAP_NET_ADMIN.
    #[error("no TUN device: {0}")]
    Device(io::Error),
    /// The device cannot be configured.
    #[error("set-up: {0}")]
    Configuration(io::Error),
}

/// Why no link can be made on this machine by this user; `None` = it can.
#[must_use]
pub fn unavailable() -> Option<String> {
    let probe = Link::both_ways("").map(|link| Emulator::start(&link).map(drop));
    probe.ok()?.err().map(|error| error.to_string())
}

/// A running link. Ends with the value, and everything in its namespaces with it.
#[derive(Debug)]
pub struct Emulator {
    ends: [Namespace; 2],
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<Snapshot>>>,
}

impl Emulator {
    /// Addresses of the first end and of the second.
    pub const ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2))];
    /// The same by IPv6.
    pub const ADDRESSES_6: [IpAddr; 2] = [
        IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2)),
    ];

    /// Makes the link.
    ///
    /// # Errors
    /// The system refuses a part of it.
    pub fn start(link: &Link) -> Result<Self, StartError> {
        let ends = [
            Namespace::new().map_err(StartError::Namespace)?,
            Namespace::new().map_err(StartError::Namespace)?,
        ];
        let open = |end: &Namespace| end.run(|| Tun::open(DEVICE, link.offload)).map_err(StartError::Device);
        let tuns = [open(&ends[0])?, open(&ends[1])?];
        for (number, end) in ends.iter().enumerate() {
            configure(end, number, link.mtu_bytes).map_err(StartError::Configuration)?;
        }
        let way = |spec: &Spec, seed: u64| {
            let direction = Direction::new(spec.clone(), link.round_trip_ns(), seed);
            Way::new(direction, arena_bytes(spec, link.round_trip_ns()))
        };
        // Losses there and back have nothing to do with each other.
        let ways = [way(&link.there, link.seed), way(&link.back, !link.seed)];
        let shared = Arc::new(Shared::default());
        let relay = Relay::new(tuns, ways, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("wan".to_owned()).spawn(move || relay.run());
        Ok(Self { ends, shared, thread: Some(thread.map_err(StartError::Configuration)?) })
    }

    /// The first end.
    #[must_use]
    pub fn first(&self) -> &Namespace {
        &self.ends[0]
    }

    /// The second end.
    #[must_use]
    pub fn second(&self) -> &Namespace {
        &self.ends[1]
    }

    /// What was counted up to a few milliseconds ago.
    ///
    /// # Panics
    /// When the relay has panicked.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.latest.lock().expect("the relay lives").clone()
    }

    /// Ends the link; what was counted in all.
    ///
    /// # Errors
    /// The relay ended before, by an error of the system.
    ///
    /// # Panics
    /// When the relay has panicked.
    pub fn stop(mut self) -> io::Result<Snapshot> {
        let mut drops = 0;
        for end in &self.ends {
            drops += end.device_drops(DEVICE)?;
        }
        self.shared.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut snapshot = thread.join().expect("the relay does not panic")?;
        // What a device dropped was never seen by the link; it makes the run as void as what the link refused.
        snapshot.there.refused += drops;
        Ok(snapshot)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its figures are not wanted any more.
            drop(thread.join());
        }
    }
}

fn configure(end: &Namespace, number: usize, mtu_bytes: u16) -> io::Result<()> {
    let (own, peer) = (number + 1, 2 - number);
    end.ip(&format!("link set dev {DEVICE} mtu {mtu_bytes} txqueuelen {DEVICE_PACKETS} up"))?;
    end.ip(&format!("address add 10.78.0.{own} peer 10.78.0.{peer}/32 dev {DEVICE}"))?;
    // A kernel without IPv6 still makes a link.
    if std::path::Path::new("/proc/sys/net/ipv6").exists() && mtu_bytes >= IPV6_MTU_BYTES_MIN {
        end.ip(&format!("address add fd78::{own} peer fd78::{peer}/128 dev {DEVICE} nodad"))?;
    }
    Ok(())
}

/// Room for what is on the way and in the buffer, headers of small packets included.
fn arena_bytes(spec: &Spec, round_trip_ns: u64) -> usize {
    let Some(rate_bits_per_s) = spec.rate_bits_per_s else { return ARENA_BYTES_UNLIMITED };
    let held_ns = spec.reorder.map_or(0, |reorder| reorder.delay_ns);
    let on_the_way = (spec.delay_ns + spec.jitter_ns + held_ns) as f64 / 1e9 * rate_bits_per_s as f64 / 8.0;
    let buffered = spec.buffer_bytes(round_trip_ns).unwrap_or(0) as f64;
    ((on_the_way + buffered) * 1.5) as usize + ARENA_BYTES_SPARE
}

const DEVICE: &str = "wan0";
/// Packets that a device holds until the relay reads them, every tenth of a millisecond.
const DEVICE_PACKETS: u32 = 10_000;
const IPV6_MTU_BYTES_MIN: u16 = 1_280;
const ARENA_BYTES_SPARE: usize = 4 << 20;
const ARENA_BYTES_UNLIMITED: usize = 256 << 20;
