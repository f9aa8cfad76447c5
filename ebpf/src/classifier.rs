//! The tc programs and their maps. Runs per packet with bottom halves disabled, so a core's slots have one writer.
use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    macros::{classifier, map},
    maps::{Array, HashMap, PerCpuArray},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use dwcp_abi::bpf::{
    COUNTERS_LENGTH, Class, Counter, DSCP_LENGTH, Direction, ODD_LOG_INTERVAL, PORTS_LENGTH_MAX,
    counter_index,
};
use dwcp_ebpf::{
    class::{Tables, class_of},
    parse::{self, Oddity, Packet, Reading},
};

#[map]
static DWCP_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_LENGTH, 0);

#[map]
static DWCP_PORTS: HashMap<u16, u32> = HashMap::with_max_entries(PORTS_LENGTH_MAX, 0);

#[map]
static DWCP_DSCP: Array<u32> = Array::with_max_entries(DSCP_LENGTH, 0);

#[map]
static DWCP_ODD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What the kernel is told about the licence; no helper that is used here asks for a particular one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// Counts what arrives.
#[classifier]
fn dwcp_ingress(context: TcContext) -> i32 {
    account(&context, Direction::Ingress)
}

/// Counts what leaves.
#[classifier]
fn dwcp_egress(context: TcContext) -> i32 {
    account(&context, Direction::Egress)
}

/// Passes every packet on: with `TC_ACT_OK` no filter behind this one would see it.
#[inline(always)]
fn account(context: &TcContext, direction: Direction) -> i32 {
    let reading = parse::read(&Frame(context));
    let class = class_of(&reading, &Maps);
    count(context, direction, class);
    if let Reading::Odd(oddity) = reading {
        note_odd(context, direction, oddity);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn count(context: &TcContext, direction: Direction, class: Class) {
    let Some(slot) = DWCP_COUNTERS.get_ptr_mut(counter_index(direction, class)) else {
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

#[inline(always)]
fn note_odd(context: &TcContext, direction: Direction, oddity: Oddity) {
    let Some(slot) = DWCP_ODD.get_ptr_mut(0) else {
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

struct Frame<'a>(&'a TcContext);

impl Packet for Frame<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load(offset).ok()
    }
}

struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn port(&self, port: u16) -> Option<u32> {
        // SAFETY: the entry is four plain bytes; a change by user space meanwhile gives the old or the new number.
        let number = unsafe { DWCP_PORTS.get(&port) };
        number.copied()
    }

    #[inline(always)]
    fn dscp(&self, dscp: u8) -> Option<u32> {
        DWCP_DSCP.get(u32::from(dscp)).copied().filter(|&number| number != Class::Other.number())
    }
}
