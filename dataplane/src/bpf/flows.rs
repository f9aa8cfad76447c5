//! Reads the flow table and works out rates from two readings.
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use aya::maps;
use dwcp_abi::bpf::{FLOWS_MAP, Flow, FlowKey, FlowState, FlowWords, address_bytes};

use super::{Unavailable, tables::open};

/// One connection, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowReading {
    /// Its ends.
    pub key: FlowKey,
    /// What the kernel knows of it.
    pub flow: Flow,
    /// Bytes per second sent and received since the reading before; 0 at the first.
    pub bytes_per_s: u64,
}

impl FlowReading {
    /// Address of this host.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        IpAddr::from(address_bytes(self.key.local)).to_canonical()
    }

    /// Address of the other.
    #[must_use]
    pub fn remote(&self) -> IpAddr {
        IpAddr::from(address_bytes(self.key.remote)).to_canonical()
    }
}

/// What the last reading found, for rates.
#[derive(Debug, Default)]
pub(super) struct Meter {
    before: HashMap<FlowKey, u64>,
    at: Option<Instant>,
}

impl Meter {
    /// Reads the table, busiest first. A table of [`ENTRIES_MAX`] and more is read in part.
    ///
    /// # Errors
    /// [`Unavailable::Map`].
    pub(super) fn read(
        &mut self,
        map: Option<&maps::Map>,
        now: Instant,
    ) -> Result<Vec<FlowReading>, Unavailable> {
        let table: maps::HashMap<_, [u32; 10], FlowWords> = open(FLOWS_MAP, map)?;
        // Entries that the kernel replaces while they are read are left out.
        let found = table.iter().take(ENTRIES_MAX).filter_map(Result::ok);
        Ok(self.observe(found.map(|(key, flow)| (FlowKey::from(key), Flow::from(flow))), now))
    }

    fn observe(&mut self, found: impl Iterator<Item = (FlowKey, Flow)>, now: Instant) -> Vec<FlowReading> {
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let mut after = HashMap::new();
        let mut readings: Vec<FlowReading> = found
            .map(|(key, flow)| {
                let bytes = flow.bytes_sent.wrapping_add(flow.bytes_received);
                let before = self.before.get(&key).copied().unwrap_or(bytes);
                after.insert(key, bytes);
                let moved = bytes.saturating_sub(before) as f64;
                let bytes_per_s = if seconds > 0.0 { (moved / seconds) as u64 } else { 0 };
                FlowReading { key, flow, bytes_per_s }
            })
            .collect();
        (self.before, self.at) = (after, Some(now));
        let is_closed =
            |reading: &FlowReading| FlowState::from_number(reading.flow.state) == FlowState::Closed;
        readings.sort_by_key(|reading| {
            (is_closed(reading), std::cmp::Reverse((reading.bytes_per_s, reading.flow.last_ns)))
        });
        readings
    }
}

/// Entries that one reading looks at: each costs two system calls.
const ENTRIES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn flow(bytes_sent: u64, state: FlowState) -> Flow {
        Flow { bytes_sent, state: state as u64, ..Flow::default() }
    }

    fn key(port: u16) -> FlowKey {
        FlowKey { ports: FlowKey::join_ports(port, 9000), protocol: 6, ..FlowKey::default() }
    }

    #[test]
    fn rates_come_from_two_readings_and_the_busiest_is_first() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let first = [(key(1), flow(100, FlowState::Open)), (key(2), flow(0, FlowState::Open))];
        assert!(meter.observe(first.into_iter(), start).iter().all(|reading| reading.bytes_per_s == 0));
        let second = [
            (key(1), flow(300, FlowState::Open)),
            (key(2), flow(5000, FlowState::Open)),
            (key(3), flow(90_000, FlowState::Open)),
            (key(4), flow(0, FlowState::Closed)),
        ];
        let read = meter.observe(second.into_iter(), start + Duration::from_secs(2));
        let told: Vec<_> =
            read.iter().map(|reading| (reading.key.local_port(), reading.bytes_per_s)).collect();
        assert_eq!(told, [(2, 2500), (1, 100), (3, 0), (4, 0)]);
    }

    #[test]
    fn a_port_that_is_used_again_counts_from_nothing() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.observe([(key(1), flow(1 << 40, FlowState::Open))].into_iter(), start);
        let read =
            meter.observe([(key(1), flow(10, FlowState::Open))].into_iter(), start + Duration::from_secs(1));
        assert_eq!(read[0].bytes_per_s, 0);
    }
}
