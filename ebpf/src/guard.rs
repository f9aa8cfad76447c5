//! The guard of the peer port, first on the way in. It looks at TCP to that port only. What a known address sends
//! passes; of all others so many packets a second. It runs behind the network card's reassembly and before every other
//! filter, and asks nothing of the driver: attaching it never resets a link, as attaching XDP does on many cards.
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_coarse_ns,
    macros::classifier,
    programs::TcContext,
};
use dwcp_abi::bpf::{Bucket, GuardRules, Guarded};
use dwcp_ebpf::{
    bucket,
    parse::{Kind, PROTOCOL_TCP, Reading},
};

use crate::{classifier::read, maps};

/// Drops what strangers send too fast to the peer port.
#[classifier]
fn dwcp_guard(context: TcContext) -> i32 {
    let Some(rules) = maps::DWCP_GUARD.get(0) else { return TC_ACT_UNSPEC };
    // Damaged packets have no port that could be trusted; they are the kernel's to drop.
    let Reading { kind, segment } = read(&context);
    if kind != Kind::Segment
        || segment.protocol != PROTOCOL_TCP
        || u64::from(segment.destination_port) != rules.port
    {
        return TC_ACT_UNSPEC;
    }
    let decided = judge(&segment.source, rules);
    maps::count(&maps::DWCP_GUARDED, decided as u32);
    match decided {
        Guarded::Known | Guarded::Stranger => TC_ACT_UNSPEC,
        Guarded::SourceRate | Guarded::TotalRate => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn judge(source: &[u32; 4], rules: &GuardRules) -> Guarded {
    if maps::is_known(source, rules) {
        return Guarded::Known;
    }
    // Good to a tick, and a fifth of the exact one's cost.
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if let Some(entry) = maps::DWCP_SOURCES.get_ptr_mut(source) {
        // SAFETY: entries of this map are preallocated: the pointer stays valid for the run. Two cores that take from
        // the same bucket at once may both get its last token.
        if !bucket::take(unsafe { &mut *entry }, now, rules.source_per_s) {
            return Guarded::SourceRate;
        }
    } else {
        let full = Bucket { filled_ns: now, thousandths: rules.source_per_s * 1000 };
        // A table that takes no more leaves it to the rate of all.
        let _full = maps::DWCP_SOURCES.insert(source, full, 0);
    }
    let Some(slot) = maps::DWCP_TOTAL.get_ptr_mut(0) else { return Guarded::Stranger };
    // SAFETY: this core's slot, valid for the whole run, with no other writer meanwhile.
    if bucket::take(unsafe { &mut *slot }, now, rules.total_per_s) {
        Guarded::Stranger
    } else {
        Guarded::TotalRate
    }
}
