//! Every map of the kernel programs, and the tables that classes are chosen by. Names and meanings: `dwcp_abi::bpf`.
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use dwcp_abi::bpf::{
    AggregateKey, Bucket, COUNTERS_LENGTH, Class, ClassPolicy, Counter, DEPARTURES_LENGTH_MAX, DSCP_LENGTH,
    DepartureCounter, FLOWS_LENGTH_MAX, FQ_LENGTH, Flow, FlowKey, GuardRules, Guarded, KNOWN_LENGTH,
    MORE_KNOWN_LENGTH_MAX, POLICY_LENGTH, PORTS_LENGTH, SELECTORS_LENGTH_MAX, SOURCES_LENGTH_MAX, Switch,
    fq_slot, known_slots, port_place,
};
use dwcp_ebpf::class::Tables;

#[map]
pub(crate) static DWCP_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_LENGTH, 0);
#[map]
pub(crate) static DWCP_ODD: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static DWCP_PORTS: Array<u64> = Array::with_max_entries(PORTS_LENGTH, 0);
#[map]
static DWCP_DSCP: Array<u32> = Array::with_max_entries(DSCP_LENGTH, 0);
#[map]
static DWCP_TUPLES: HashMap<FlowKey, u32> = HashMap::with_max_entries(SELECTORS_LENGTH_MAX, 0);
#[map]
static DWCP_MARKS: HashMap<u32, u32> = HashMap::with_max_entries(SELECTORS_LENGTH_MAX, 0);
#[map]
static DWCP_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(SELECTORS_LENGTH_MAX, 0);
#[map]
static DWCP_POLICY: Array<ClassPolicy> = Array::with_max_entries(POLICY_LENGTH, 0);
#[map]
static DWCP_SWITCH: Array<Switch> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static DWCP_FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_LENGTH_MAX, 0);
#[map]
pub(crate) static DWCP_DEPARTURES: LruHashMap<AggregateKey, u64> =
    LruHashMap::with_max_entries(DEPARTURES_LENGTH_MAX, 0);
#[map]
pub(crate) static DWCP_DEPARTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(DepartureCounter::COUNT, 0);
#[map]
static DWCP_FQ: Array<u32> = Array::with_max_entries(FQ_LENGTH, 0);
#[map]
pub(crate) static DWCP_GUARD: Array<GuardRules> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static DWCP_GUARDED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Guarded::COUNT, 0);
#[map]
static DWCP_KNOWN: Array<[u32; 4]> = Array::with_max_entries(KNOWN_LENGTH, 0);
#[map]
static DWCP_MORE_KNOWN: HashMap<[u32; 4], u32> = HashMap::with_max_entries(MORE_KNOWN_LENGTH_MAX, 0);
#[map]
pub(crate) static DWCP_SOURCES: LruHashMap<[u32; 4], Bucket> =
    LruHashMap::with_max_entries(SOURCES_LENGTH_MAX, 0);
#[map]
pub(crate) static DWCP_TOTAL: PerCpuArray<Bucket> = PerCpuArray::with_max_entries(1, 0);

/// The state of the tables at this moment.
#[inline(always)]
pub(crate) fn switch() -> Switch {
    DWCP_SWITCH.get(0).copied().unwrap_or_default()
}

/// What holds for a class.
#[inline(always)]
pub(crate) fn policy(class: u32) -> Option<&'static ClassPolicy> {
    DWCP_POLICY.get(class)
}

/// Whether an interface keeps departure times.
#[inline(always)]
pub(crate) fn has_fq(interface: u32) -> bool {
    DWCP_FQ.get(fq_slot(interface)).is_some_and(|&found| found == interface)
}

/// Whether the guard never holds an address back.
#[inline(always)]
pub(crate) fn is_known(address: &[u32; 4], rules: &GuardRules) -> bool {
    // Empty slots hold zeroes, and no connection comes from there.
    if *address == [0; 4] {
        return false;
    }
    let [first, second] = known_slots(address);
    let holds = |slot| DWCP_KNOWN.get(slot).is_some_and(|found| found == address);
    holds(first) || holds(second) || rules.more_known != 0 && DWCP_MORE_KNOWN.get_ptr(address).is_some()
}

/// Adds one to a counter of this core.
#[inline(always)]
pub(crate) fn count(counters: &PerCpuArray<u64>, index: u32) {
    let Some(slot) = counters.get_ptr_mut(index) else { return };
    // SAFETY: the kernel gave this core's slot, which is valid for the whole run and has no other writer meanwhile.
    let counter = unsafe { &mut *slot };
    *counter = counter.wrapping_add(1);
}

/// The tables in the kernel, asked for one packet or connection.
pub(crate) struct Kernel {
    /// [`Switch::uses`].
    pub(crate) uses: u64,
    /// `skb->mark`; 0 = none.
    pub(crate) mark: u32,
    /// Id of its control group; 0 = none.
    pub(crate) cgroup: u64,
}

impl Tables for Kernel {
    #[inline(always)]
    fn uses(&self) -> u64 {
        self.uses
    }

    #[inline(always)]
    fn tuple(&self, key: &FlowKey) -> Option<u32> {
        // SAFETY: entries are four plain bytes; a change by user space meanwhile gives the old or the new number.
        let number = unsafe { DWCP_TUPLES.get(key) };
        number.copied()
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        if self.mark == 0 {
            return None;
        }
        // SAFETY: as in `tuple`.
        let number = unsafe { DWCP_MARKS.get(self.mark) };
        number.copied()
    }

    #[inline(always)]
    fn cgroup(&self) -> Option<u32> {
        // SAFETY: as in `tuple`.
        let number = unsafe { DWCP_CGROUPS.get(self.cgroup) };
        number.copied()
    }

    #[inline(always)]
    fn port(&self, protocol: u8, port: u16) -> Option<u32> {
        let (word, shift) = port_place(protocol, port);
        let value = (DWCP_PORTS.get(word)? >> shift) as u8;
        (value != 0).then_some(u32::from(value))
    }

    #[inline(always)]
    fn dscp(&self, dscp: u8) -> Option<u32> {
        DWCP_DSCP.get(u32::from(dscp)).copied().filter(|&number| number != Class::Other.number())
    }
}
