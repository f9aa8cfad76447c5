//! The flow table: one connection is a [`FlowKey`], what is known of it a [`Flow`]. The kernel programs write, the
//! dataplane reads. Both cross the border as arrays of integers with the same layout, so that nothing here is `unsafe`.

/// A connection as this host sees it. Addresses are those of IPv6 in the order of the wire; IPv4 ones are mapped
/// (`::ffff:a.b.c.d`, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// Address of this host, four words as they lie in memory.
    pub local: [u32; 4],
    /// Address of the other.
    pub remote: [u32; 4],
    /// Both ports: this host's in the low half, the other's in the high half.
    pub ports: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// A [`FlowKey`] as user space reads it out of the map.
pub type FlowKeyWords = [u32; 10];

const _: () = assert!(size_of::<FlowKey>() == size_of::<FlowKeyWords>());
const _: () = assert!(align_of::<FlowKey>() == align_of::<FlowKeyWords>());

impl FlowKey {
    /// Puts two ports together.
    #[inline(always)]
    #[must_use]
    pub const fn join_ports(local: u16, remote: u16) -> u32 {
        local as u32 | (remote as u32) << 16
    }

    /// Port of this host.
    #[must_use]
    pub const fn local_port(&self) -> u16 {
        self.ports as u16
    }

    /// Port of the other.
    #[must_use]
    pub const fn remote_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// As it lies in the map.
    #[must_use]
    pub const fn words(&self) -> FlowKeyWords {
        let (l, r) = (self.local, self.remote);
        [l[0], l[1], l[2], l[3], r[0], r[1], r[2], r[3], self.ports, self.protocol]
    }
}

impl From<FlowKeyWords> for FlowKey {
    fn from(words: FlowKeyWords) -> Self {
        let [l0, l1, l2, l3, r0, r1, r2, r3, ports, protocol] = words;
        Self { local: [l0, l1, l2, l3], remote: [r0, r1, r2, r3], ports, protocol }
    }
}

/// An IPv4 address (as it lies in memory) as one of IPv6.
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// The sixteen bytes of an address as the four words of the tables.
#[must_use]
pub const fn address_words(bytes: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The inverse of [`address_words`].
#[must_use]
pub fn address_bytes(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flow {
    /// Number of its class.
    pub class: u64,
    /// Of [`FlowState`]; 0 for what has no states.
    pub state: u64,
    /// Bytes that the other end has acknowledged; for protocols without acknowledgements, bytes sent.
    pub bytes_sent: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Segments or packets sent.
    pub packets_sent: u64,
    /// Segments or packets received.
    pub packets_received: u64,
    /// Smoothed round-trip time in microseconds; 0 = unknown.
    pub rtt_us: u64,
    /// Least round-trip time seen lately, in microseconds; 0 = unknown.
    pub rtt_min_us: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// When it was last heard of, in nanoseconds of the monotonic clock.
    pub last_ns: u64,
    /// The rate that the policy holds it to, in bytes per second; 0 = none.
    pub rate_bytes_per_s: u64,
    /// What its owner had set before the policy did, in bytes per second; 0 = not looked at yet.
    pub own_bytes_per_s: u64,
    /// Generation of the tables by which it was classed.
    pub generation: u64,
}

/// A [`Flow`] as user space reads it out of the map.
pub type FlowWords = [u64; 13];

impl Flow {
    /// As it lies in the map.
    #[must_use]
    pub const fn words(&self) -> FlowWords {
        [
            self.class,
            self.state,
            self.bytes_sent,
            self.bytes_received,
            self.packets_sent,
            self.packets_received,
            self.rtt_us,
            self.rtt_min_us,
            self.retransmits,
            self.last_ns,
            self.rate_bytes_per_s,
            self.own_bytes_per_s,
            self.generation,
        ]
    }
}

const _: () = assert!(size_of::<Flow>() == size_of::<FlowWords>());

impl From<FlowWords> for Flow {
    fn from(words: FlowWords) -> Self {
        let [
            class,
            state,
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
            rtt_us,
            rtt_min_us,
            retransmits,
            last_ns,
            rate_bytes_per_s,
            own_bytes_per_s,
            generation,
        ] = words;
        Self {
            class,
            state,
            bytes_sent,
            bytes_received,
            packets_sent,
            packets_received,
            rtt_us,
            rtt_min_us,
            retransmits,
            last_ns,
            rate_bytes_per_s,
            own_bytes_per_s,
            generation,
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum FlowState {
    /// Counted packet by packet: the protocol has no connections.
    Counted = 0,
    /// It stands.
    Open = 1,
    /// It has ended.
    Closed = 2,
}

impl FlowState {
    /// The state with this number; what is unknown counts as ended.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Counted,
            1 => Self::Open,
            _ => Self::Closed,
        }
    }
}

/// LRU hash from [`FlowKey`] to [`Flow`].
pub const FLOWS_MAP: &str = "DWCP_FLOWS";
/// Most entries of [`FLOWS_MAP`]; the kernel drops what was not seen for longest.
pub const FLOWS_LENGTH_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_words_agree() {
        let key = FlowKey {
            local: mapped(u32::from_ne_bytes([10, 0, 0, 1])),
            remote: address_words([7; 16]),
            ports: FlowKey::join_ports(5000, 65_535),
            protocol: 6,
        };
        assert_eq!(FlowKey::from(key.words()), key);
        assert_eq!((key.local_port(), key.remote_port()), (5000, 65_535));
        assert_eq!(address_bytes(key.local), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    }

    #[test]
    fn words_are_the_fields_in_order() {
        let flow = Flow::from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert_eq!(Flow::from(flow.words()), flow);
        assert_eq!((flow.class, flow.bytes_received, flow.last_ns, flow.generation), (1, 4, 10, 13));
    }
}
