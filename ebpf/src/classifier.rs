//! The tc programs of each interface: they count every packet in its class, give it the class's priority and, where
//! the interface keeps departure times, the aggregate's. Runs per packet with bottom halves disabled, so a core's slots
//! have one writer.
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_skb_cgroup_id},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use core::ptr::{read_unaligned, read_volatile, write_volatile};
use dwcp_abi::bpf::{
    AggregateKey, ClassPolicy, DepartureCounter, Direction, Flow, FlowState, ODD_LOG_INTERVAL, USES_CGROUPS,
    USES_DEPARTURE, counter_index,
};
use dwcp_ebpf::{
    class::{Verdict, class_of, flow_key},
    departure::{Departure, departure},
    parse::{self, Kind, Oddity, PROTOCOL_UDP, Packet, Reading, Segment},
};

use crate::maps::{self, Kernel};

/// Counts what arrives.
#[classifier]
fn dwcp_ingress(context: TcContext) -> i32 {
    account(&context, Direction::Ingress);
    TC_ACT_UNSPEC
}

/// Counts what leaves, and says when.
#[classifier]
fn dwcp_egress(context: TcContext) -> i32 {
    let (reading, verdict, uses) = account(&context, Direction::Egress);
    let Some(policy) = maps::policy(verdict.class.number()) else { return TC_ACT_UNSPEC };
    if policy.priority != 0 {
        // SAFETY: the context pointer is the program's argument; the verifier allows this field to be written.
        unsafe { (*context.skb.skb).priority = policy.priority as u32 };
    }
    if uses & USES_DEPARTURE == 0 || policy.peer_bytes_per_s == 0 {
        return TC_ACT_UNSPEC;
    }
    if reading.kind != Kind::Segment {
        return TC_ACT_UNSPEC;
    }
    schedule(&context, &reading.segment, verdict, policy)
}

/// What both directions do. Packets are always passed on with `TC_ACT_UNSPEC`: with `TC_ACT_OK` no filter behind this
/// one would see them.
#[inline(always)]
fn account(context: &TcContext, direction: Direction) -> (Reading, Verdict, u64) {
    let reading = read(context);
    let uses = maps::switch().uses;
    let skb = context.skb.skb;
    // SAFETY: the context pointer is the program's argument, valid for the whole run; the verifier checks the field.
    let mark = unsafe { (*skb).mark };
    let cgroup = if uses & USES_CGROUPS != 0 && direction as u32 == Direction::Egress as u32 {
        // SAFETY: as above; the helper answers 0 where the packet has no socket.
        unsafe { bpf_skb_cgroup_id(skb) }
    } else {
        0
    };
    let verdict = class_of(&reading, direction, &Kernel { uses, mark, cgroup });
    count(context, direction, verdict);
    match reading.kind {
        Kind::Odd(oddity) => note_odd(context, direction, oddity),
        // Connections are followed at their socket.
        Kind::Segment if reading.segment.protocol == PROTOCOL_UDP && verdict.class.number() != 0 => {
            note_flow(context, direction, &reading.segment, verdict);
        }
        Kind::Segment | Kind::Ip | Kind::Fragment | Kind::NotIp => {}
    }
    (reading, verdict, uses)
}

#[inline(always)]
fn count(context: &TcContext, direction: Direction, verdict: Verdict) {
    let Some(slot) = maps::DWCP_COUNTERS.get_ptr_mut(counter_index(direction, verdict.class)) else {
        return;
    };
    // SAFETY: the kernel gave this core's slot, which is valid for the whole run and has no other writer meanwhile.
    let counter = unsafe { &mut *slot };
    counter.packets = counter.packets.wrapping_add(segments(context));
    counter.bytes = counter.bytes.wrapping_add(u64::from(context.len()));
}

/// Packets that this one is on the wire.
#[inline(always)]
fn segments(context: &TcContext) -> u64 {
    // SAFETY: the context pointer is the program's argument, valid for the whole run; the verifier checks the field.
    let segments = unsafe { (*context.skb.skb).gso_segs };
    u64::from(segments.max(1))
}

/// Writes a classed datagram into the flow table.
#[inline(always)]
fn note_flow(context: &TcContext, direction: Direction, segment: &Segment, verdict: Verdict) {
    let key = flow_key(segment, direction);
    let (packets, bytes) = (segments(context), u64::from(context.len()));
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(entry) = maps::DWCP_FLOWS.get_ptr_mut(key) else {
        let mut flow = Flow {
            class: u64::from(verdict.class.number()),
            state: FlowState::Counted as u64,
            last_ns: now,
            ..Flow::default()
        };
        match direction {
            Direction::Egress => (flow.packets_sent, flow.bytes_sent) = (packets, bytes),
            Direction::Ingress => (flow.packets_received, flow.bytes_received) = (packets, bytes),
        }
        // A table that takes no more shows fewer flows.
        let _full = maps::DWCP_FLOWS.insert(key, flow, 0);
        return;
    };
    // SAFETY: entries of this map are preallocated: the pointer stays valid for the run. Two cores that write the same
    // flow at once may lose a packet of its count; nothing is decided by it.
    let flow = unsafe { &mut *entry };
    flow.last_ns = now;
    flow.class = u64::from(verdict.class.number());
    match direction {
        Direction::Egress => {
            flow.packets_sent = flow.packets_sent.wrapping_add(packets);
            flow.bytes_sent = flow.bytes_sent.wrapping_add(bytes);
        }
        Direction::Ingress => {
            flow.packets_received = flow.packets_received.wrapping_add(packets);
            flow.bytes_received = flow.bytes_received.wrapping_add(bytes);
        }
    }
}

/// Stamps the departure time that the aggregate allows.
#[inline(always)]
fn schedule(context: &TcContext, segment: &Segment, verdict: Verdict, policy: &ClassPolicy) -> i32 {
    let skb = context.skb.skb;
    // SAFETY: the context pointer is the program's argument, valid for the whole run; the verifier checks the field.
    let interface = unsafe { (*skb).ifindex };
    if !maps::has_fq(interface) {
        return TC_ACT_UNSPEC;
    }
    let key = AggregateKey { remote: segment.destination, class: verdict.class.number() };
    let Some(clock) = maps::DWCP_DEPARTURES.get_ptr_mut(key) else {
        // The first packet leaves at once; a full table holds nobody back.
        let _full = maps::DWCP_DEPARTURES.insert(key, 0, 0);
        return TC_ACT_UNSPEC;
    };
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as for `ifindex`.
    let (wanted, length) = unsafe { ((*skb).tstamp, (*skb).wire_len) };
    // SAFETY: entries of this map are preallocated and eight bytes aligned: the pointer stays valid for the run. Two
    // cores that come at the same instant share a place, as in Cilium; this target has no atomics.
    let clock_ns = unsafe { read_volatile(clock) };
    match departure(now, wanted, clock_ns, length, policy.peer_bytes_per_s) {
        Departure::Now { next_ns } => {
            // SAFETY: as above.
            unsafe { write_volatile(clock, next_ns) };
            TC_ACT_UNSPEC
        }
        Departure::Wait { at_ns, next_ns } => {
            // SAFETY: as above.
            unsafe { write_volatile(clock, next_ns) };
            // SAFETY: as for `ifindex`; the field may be written.
            unsafe { (*skb).tstamp = at_ns };
            maps::count(&maps::DWCP_DEPARTED, DepartureCounter::Delayed as u32);
            TC_ACT_UNSPEC
        }
        Departure::Drop => {
            maps::count(&maps::DWCP_DEPARTED, DepartureCounter::Dropped as u32);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn note_odd(context: &TcContext, direction: Direction, oddity: Oddity) {
    let Some(slot) = maps::DWCP_ODD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as in `count`.
    let odd = unsafe { &mut *slot };
    if *odd % ODD_LOG_INTERVAL == 0 {
        debug!(
            context,
            "odd packet: oddity={} direction={} length={}",
            oddity as u8,
            direction as u32,
            context.len()
        );
    }
    *odd = odd.wrapping_add(1);
}

/// Reads the headers where they lie: a helper call for each would cost as much as everything else together.
#[inline(always)]
pub(crate) fn read(context: &TcContext) -> Reading {
    let reading = parse::read(&Frame::of(context));
    if reading.kind != Kind::Odd(Oddity::Truncated) {
        return reading;
    }
    // Some drivers leave headers in fragments. They are brought together, and the pointers are asked for anew.
    if context.pull_data(PULLED_BYTES.min(context.len())).is_err() {
        return reading;
    }
    parse::read(&Frame::of(context))
}

/// The linear part of a packet.
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn of(context: &TcContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the bytes end before the packet's linear part does; the verifier proves it again.
        Some(unsafe { read_unaligned(at as *const [u8; N]) })
    }
}

/// Every header that is followed: Ethernet, two tags, IPv6, four extensions of the largest size, TCP.
const PULLED_BYTES: u32 = 14 + 2 * 4 + 40 + 4 * 2048 + 20;
