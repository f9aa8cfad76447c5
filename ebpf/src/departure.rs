//! When a packet of an aggregate may leave: the earliest departure time of Carousel (Saeed et al., SIGCOMM 2017), as
//! Cilium's bandwidth manager stamps it (bpf/lib/edt.h). Called per packet by the egress program.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Leaves as it would; the aggregate's clock is set to this, in nanoseconds.
    Now {
        /// When the next packet may leave.
        next_ns: u64,
    },
    /// The aggregate is busy: this packet leaves when its clock says.
    Wait {
        /// When, in nanoseconds.
        at_ns: u64,
        /// When the next packet may leave.
        next_ns: u64,
    },
    /// It would leave after the horizon.
    Drop,
}

/// Decides for a packet of `length` bytes, which wants to leave at `wanted_ns`, of an aggregate whose clock says
/// `clock_ns`.
#[inline(always)]
#[must_use]
pub fn departure(now_ns: u64, wanted_ns: u64, clock_ns: u64, length: u32, bytes_per_s: u64) -> Departure {
    // TCP stamps what it paces itself; that is kept where it is later.
    let wanted_ns = if wanted_ns > now_ns { wanted_ns } else { now_ns };
    // The largest packet, 512 KiB (BIG TCP), times 10⁹ stays below 2⁶⁴; a rate of zero never gets here.
    let cost_ns = u64::from(length) * NS_PER_S / if bytes_per_s == 0 { 1 } else { bytes_per_s };
    if clock_ns <= wanted_ns {
        return Departure::Now { next_ns: wanted_ns + cost_ns };
    }
    if clock_ns - now_ns > HORIZON_NS {
        return Departure::Drop;
    }
    Departure::Wait { at_ns: clock_ns, next_ns: clock_ns + cost_ns }
}

/// Packets that would wait longer are dropped: what sends them does not listen. Cilium's value.
pub const HORIZON_NS: u64 = 2 * NS_PER_S;
const NS_PER_S: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten packets at once through 1 MB/s: when each leaves.
    #[test]
    fn a_burst_is_spread_at_the_rate() {
        let (now, mut clock, mut times) = (5_000, 0, Vec::new());
        for _ in 0..10 {
            match departure(now, 0, clock, 1000, 1_000_000) {
                Departure::Now { next_ns } => {
                    times.push(now);
                    clock = next_ns;
                }
                Departure::Wait { at_ns, next_ns } => {
                    times.push(at_ns);
                    clock = next_ns;
                }
                Departure::Drop => panic!("within the horizon"),
            }
        }
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps, [1_000_000; 9]);
    }

    #[test]
    fn an_idle_aggregate_saves_nothing_up() {
        let idle = departure(9_000_000_000, 0, 1_000, 1500, 1_500_000);
        assert_eq!(idle, Departure::Now { next_ns: 9_001_000_000 });
    }

    const WAIT_AT_6_000: Departure = Departure::Wait { at_ns: 6_000, next_ns: 6_001 };

    #[test]
    fn a_later_wish_of_the_sender_is_kept() {
        assert_eq!(departure(1_000, 5_000, 4_000, 1, 1_000_000_000), Departure::Now { next_ns: 5_001 });
        assert_eq!(departure(1_000, 5_000, 6_000, 1, 1_000_000_000), WAIT_AT_6_000);
    }

    #[test]
    fn beyond_the_horizon_packets_go() {
        let last = departure(7, 0, 7 + HORIZON_NS, 1, 1_000_000_000);
        assert_eq!(last, Departure::Wait { at_ns: 7 + HORIZON_NS, next_ns: 8 + HORIZON_NS });
        assert_eq!(departure(7, 0, 8 + HORIZON_NS, 1, 1_000_000_000), Departure::Drop);
    }

    #[test]
    fn the_largest_packet_at_the_lowest_rate_does_not_overflow() {
        assert!(matches!(departure(0, 0, 1, 512 << 10, 1), Departure::Wait { next_ns, .. } if next_ns > 1));
    }
}
