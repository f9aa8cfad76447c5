//! Single packets through `BPF_PROG_TEST_RUN`: counters, classes, priorities, departure times, the guard.
use std::{path::Path, sync::Mutex};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, PerCpuArray},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use dwcp_abi::bpf::{
    COUNTERS_MAP, Class, ClassPolicy, Counter, DSCP_MAP, Direction, FLOWS_MAP, FQ_MAP, Flow, FlowKey,
    FlowWords, GUARD_COUNTS_MAP, GUARD_MAP, GUARD_PROGRAM, GuardRules, Guarded, KNOWN_MAP, MARKS_MAP,
    MORE_KNOWN_MAP, ODD_MAP, POLICY_MAP, PORTS_MAP, SWITCH_MAP, TUPLES_MAP, USES_DEPARTURE, USES_DSCP,
    USES_MARKS, USES_TUPLES, counter_index, fq_slot, known_slots, mapped, port_place,
};

use crate::support::object_or_skip;

const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
/// Of loopback, in every namespace.
const LOOPBACK: u32 = 1;

struct Loaded(Ebpf);

/// What a packet has beside its bytes, at the offsets of `struct __sk_buff` (include/uapi/linux/bpf.h).
#[derive(Default, Debug, PartialEq, Eq)]
struct Beside {
    mark: u32,
    priority: u32,
    interface: u32,
    departure_ns: u64,
}

impl Beside {
    fn bytes(&self) -> [u8; 192] {
        let mut bytes = [0; 192];
        bytes[8..12].copy_from_slice(&self.mark.to_ne_bytes());
        bytes[32..36].copy_from_slice(&self.priority.to_ne_bytes());
        bytes[40..44].copy_from_slice(&self.interface.to_ne_bytes());
        bytes[152..160].copy_from_slice(&self.departure_ns.to_ne_bytes());
        bytes
    }

    fn of(bytes: &[u8; 192]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let departure_ns = u64::from_ne_bytes(bytes[152..160].try_into().unwrap());
        Self { mark: word(8), priority: word(32), interface: word(40), departure_ns }
    }
}

impl Loaded {
    fn new(object: &Path) -> Self {
        let mut ebpf = Ebpf::load_file(object).expect("object loads");
        for name in [Direction::Ingress.program(), Direction::Egress.program(), GUARD_PROGRAM] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().expect("verifier accepts");
        }
        let mut loaded = Self(ebpf);
        loaded.port(6, 7000, Class::Bulk);
        loaded
    }

    fn insert<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) {
        let mut table: HashMap<_, K, V> = self.0.map_mut(map).unwrap().try_into().unwrap();
        table.insert(key, value, 0).unwrap();
    }

    fn set<V: Pod>(&mut self, map: &str, index: u32, value: V) {
        let mut table: Array<_, V> = self.0.map_mut(map).unwrap().try_into().unwrap();
        table.set(index, value, 0).unwrap();
    }

    fn port(&mut self, protocol: u8, port: u16, class: Class) {
        let (word, shift) = port_place(protocol, port);
        self.set(PORTS_MAP, word, u64::from(class.number()) << shift);
    }

    fn policy(&mut self, class: Class, policy: &ClassPolicy, uses: u64) {
        self.set(POLICY_MAP, class.number(), policy.words());
        self.set(SWITCH_MAP, 0, [uses, 1_u64]);
    }

    /// Runs a program over a packet; what it returns and what the packet has then.
    fn pass(&self, program: &str, packet: &[u8], beside: &Beside) -> (u32, Beside) {
        let program: &SchedClassifier = self.0.program(program).unwrap().try_into().unwrap();
        let (given, mut got) = (beside.bytes(), [0; 192]);
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.ctx_in = Some(&given);
        options.ctx_out = Some(&mut got);
        options.repeat = 1;
        let returned = program.test_run(options).expect("test run").return_value;
        (returned, Beside::of(&got))
    }

    fn totals(&self, map: &str, index: u32) -> u64 {
        let map: PerCpuArray<_, u64> = self.0.map(map).unwrap().try_into().unwrap();
        map.get(&index, 0).unwrap().iter().sum()
    }

    fn run(&self, direction: Direction, packet: &[u8]) {
        let program: &SchedClassifier = self.0.program(direction.program()).unwrap().try_into().unwrap();
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = 1;
        assert_eq!(program.test_run(options).expect("test run").return_value, TC_ACT_UNSPEC);
    }

    fn counter(&self, direction: Direction, class: Class) -> Counter {
        let map: aya::maps::PerCpuArray<_, [u64; 2]> = self.0.map(COUNTERS_MAP).unwrap().try_into().unwrap();
        let values = map.get(&counter_index(direction, class), 0).unwrap();
        values.iter().fold(Counter::default(), |sum, &[packets, bytes]| Counter {
            packets: sum.packets + packets,
            bytes: sum.bytes + bytes,
        })
    }

    fn odd(&self) -> u64 {
        let map: aya::maps::PerCpuArray<_, u64> = self.0.map(ODD_MAP).unwrap().try_into().unwrap();
        map.get(&0, 0).unwrap().iter().sum()
    }
}

/// An Ethernet frame of TCP to `port`, behind `tags`, over IPv4.
fn frame(tags: &[u16], port: u16) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 5]);
    }
    bytes.extend([0x08, 0x00]);
    let mut ip = [0_u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&60_u16.to_be_bytes());
    ip[8] = 64;
    ip[9] = 6;
    ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(ip);
    let mut tcp = [0_u8; 40];
    tcp[..2].copy_from_slice(&40000_u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[12] = 5 << 4;
    bytes.extend(tcp);
    bytes
}

#[test]
fn single_packets_are_counted_in_their_class() {
    let Some(object) = object_or_skip() else { return };
    let loaded = Loaded::new(&object);
    for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
        loaded.run(Direction::Egress, &frame(tags, 7000));
    }
    assert_eq!(loaded.counter(Direction::Egress, Class::Bulk), Counter { packets: 3, bytes: 74 + 78 + 82 });
    loaded.run(Direction::Ingress, &frame(&[], 7001));
    assert_eq!(loaded.counter(Direction::Ingress, Class::Other), Counter { packets: 1, bytes: 74 });
    assert_eq!(loaded.counter(Direction::Ingress, Class::Bulk), Counter::default());
    assert_eq!(loaded.odd(), 0);
}

#[test]
fn fragments_and_damaged_headers_are_other() {
    let Some(object) = object_or_skip() else { return };
    let loaded = Loaded::new(&object);
    let mut fragment = frame(&[], 7000);
    fragment[20] = 0x20;
    loaded.run(Direction::Ingress, &fragment);
    assert_eq!((loaded.counter(Direction::Ingress, Class::Other).packets, loaded.odd()), (1, 0));
    let mut damaged = frame(&[], 7000);
    damaged[14] = 0x41;
    loaded.run(Direction::Ingress, &damaged);
    loaded.run(Direction::Ingress, &frame(&[], 7000)[..40]);
    loaded.run(Direction::Ingress, &frame(&[0x8100; 3], 7000));
    assert_eq!((loaded.counter(Direction::Ingress, Class::Other).packets, loaded.odd()), (4, 3));
    assert_eq!(loaded.counter(Direction::Ingress, Class::Bulk), Counter::default());
}

/// The connection of [`frame`] as this host sees it when it leaves.
fn connection(port: u16) -> FlowKey {
    let address = |bytes| mapped(u32::from_ne_bytes(bytes));
    FlowKey {
        local: address([10, 0, 0, 1]),
        remote: address([10, 0, 0, 2]),
        ports: FlowKey::join_ports(40000, port),
        protocol: 6,
    }
}

#[test]
fn every_table_decides_in_its_turn() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    let bulk = |loaded: &Loaded, class| loaded.counter(Direction::Egress, class).packets;
    let egress = Direction::Egress.program();
    let marked = Beside { mark: 7, ..Beside::default() };
    loaded.insert(MARKS_MAP, 7_u32, Class::Control.number());
    loaded.insert(TUPLES_MAP, connection(7000).words(), Class::Consensus.number());
    loaded.set(DSCP_MAP, 46, Class::Tunnel.number());
    // Nothing says that these tables are in use.
    loaded.pass(egress, &frame(&[], 7000), &marked);
    assert_eq!(bulk(&loaded, Class::Bulk), 1);
    loaded.policy(Class::Other, &ClassPolicy::default(), USES_MARKS | USES_DSCP);
    loaded.pass(egress, &frame(&[], 7000), &marked);
    assert_eq!(bulk(&loaded, Class::Control), 1);
    loaded.policy(Class::Other, &ClassPolicy::default(), USES_MARKS | USES_DSCP | USES_TUPLES);
    loaded.pass(egress, &frame(&[], 7000), &marked);
    assert_eq!(bulk(&loaded, Class::Consensus), 1);
    let mut expedited = frame(&[0x8100], 9);
    expedited[19] = 46 << 2;
    loaded.pass(egress, &expedited, &Beside::default());
    assert_eq!(bulk(&loaded, Class::Tunnel), 1);
    // The same connection on its way in.
    let mut answer = frame(&[], 7000);
    answer[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    answer[34..38].copy_from_slice(&[7000_u16.to_be_bytes(), 40000_u16.to_be_bytes()].concat());
    loaded.pass(Direction::Ingress.program(), &answer, &Beside::default());
    assert_eq!(loaded.counter(Direction::Ingress, Class::Consensus).packets, 1);
}

#[test]
fn datagrams_of_a_class_are_in_the_flow_table() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    loaded.port(17, 4789, Class::Tunnel);
    let mut datagram = frame(&[], 4789);
    datagram[23] = 17;
    datagram[38..40].copy_from_slice(&40_u16.to_be_bytes());
    let egress = Direction::Egress.program();
    for _ in 0..3 {
        loaded.pass(egress, &datagram, &Beside::default());
    }
    let mut stranger = datagram.clone();
    stranger[36..38].copy_from_slice(&4790_u16.to_be_bytes());
    loaded.pass(egress, &stranger, &Beside::default());
    let table: HashMap<_, [u32; 10], FlowWords> = loaded.0.map(FLOWS_MAP).unwrap().try_into().unwrap();
    let found: Vec<_> = table.iter().map(Result::unwrap).collect();
    let [(key, flow)] = found[..] else { panic!("{found:?}") };
    assert_eq!(FlowKey::from(key), FlowKey { protocol: 17, ..connection(4789) });
    let flow = Flow::from(flow);
    assert_eq!((flow.class, flow.packets_sent, flow.bytes_sent, flow.packets_received), (2, 3, 3 * 74, 0));
}

#[test]
fn a_class_has_its_priority() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    loaded.policy(Class::Bulk, &ClassPolicy { priority: 6, ..ClassPolicy::default() }, 0);
    let egress = Direction::Egress.program();
    let priority = |port| {
        loaded.pass(egress, &frame(&[], port), &Beside { priority: 2, ..Beside::default() }).1.priority
    };
    assert_eq!((priority(7000), priority(7001)), (6, 2));
}

#[test]
fn an_aggregate_is_spread_over_time_where_fq_is_and_nowhere_else() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    let policy = ClassPolicy { peer_bytes_per_s: 74_000, ..ClassPolicy::default() };
    loaded.policy(Class::Bulk, &policy, USES_DEPARTURE);
    let egress = Direction::Egress.program();
    let beside = || Beside { interface: LOOPBACK, ..Beside::default() };
    for _ in 0..3 {
        assert_eq!(loaded.pass(egress, &frame(&[], 7000), &beside()).1.departure_ns, 0);
    }
    loaded.set(FQ_MAP, fq_slot(LOOPBACK), LOOPBACK);
    // The first makes the clock, the second winds it up; each packet of 74 bytes takes a millisecond.
    loaded.pass(egress, &frame(&[], 7000), &beside());
    loaded.pass(egress, &frame(&[], 7000), &beside());
    let times: Vec<u64> =
        (0..5).map(|_| loaded.pass(egress, &frame(&[], 7000), &beside()).1.departure_ns).collect();
    let waits = times.windows(2).filter(|pair| pair[1] == pair[0] + 1_000_000).count();
    assert!(waits >= 3, "{times:?}: a busy machine may let the clock run out once");
    // Another address and another class have clocks of their own.
    let mut elsewhere = frame(&[], 7000);
    elsewhere[33] = 9;
    assert_eq!(loaded.pass(egress, &elsewhere, &beside()).1.departure_ns, 0);
    assert_eq!(loaded.pass(egress, &frame(&[], 7001), &beside()).1.departure_ns, 0);
    // At a byte per second the next one would wait 74 seconds.
    loaded.policy(Class::Bulk, &ClassPolicy { peer_bytes_per_s: 1, ..policy }, USES_DEPARTURE);
    let returned: Vec<u32> = (0..3).map(|_| loaded.pass(egress, &frame(&[], 7000), &beside()).0).collect();
    assert_eq!(returned.last(), Some(&TC_ACT_SHOT), "{returned:?}");
    assert!(loaded.totals(dwcp_abi::bpf::DEPARTURE_COUNTS_MAP, 1) >= 1);
}

#[test]
fn the_guard_counts_strangers_and_touches_nothing_else() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    let rules = GuardRules { port: 7000, source_per_s: 5, total_per_s: 1_000_000, more_known: 0 };
    loaded.set(GUARD_MAP, 0, rules.words());
    let pass = |loaded: &Loaded, packet: &[u8]| loaded.pass(GUARD_PROGRAM, packet, &Beside::default()).0;
    let dropped = |loaded: &Loaded, packet: &[u8], count: usize| {
        (0..count).filter(|_| pass(loaded, packet) == TC_ACT_SHOT).count()
    };
    assert!(dropped(&loaded, &frame(&[], 7000), 100) >= 90);
    assert_eq!(dropped(&loaded, &frame(&[], 7001), 100), 0, "another port");
    let mut udp = frame(&[], 7000);
    udp[23] = 17;
    udp[38..40].copy_from_slice(&40_u16.to_be_bytes());
    assert_eq!(dropped(&loaded, &udp, 100), 0, "another protocol");
    let mut fragment = frame(&[], 7000);
    fragment[20] = 0x20;
    assert_eq!(dropped(&loaded, &fragment, 100), 0, "no port that could be trusted");
    assert_eq!(dropped(&loaded, &frame(&[], 7000)[..40], 100), 0, "nor here");
    let mut other = frame(&[], 7000);
    other[29] = 77;
    assert!(dropped(&loaded, &other, 5) <= 1, "each source has its own rate");
    let peer = connection(7000).local;
    loaded.set(KNOWN_MAP, known_slots(&peer)[1], peer);
    assert_eq!(dropped(&loaded, &frame(&[0x8100], 7000), 100), 0, "a peer");
    loaded.set(KNOWN_MAP, known_slots(&peer)[1], [0_u32; 4]);
    loaded.insert(MORE_KNOWN_MAP, peer, 1_u32);
    assert!(dropped(&loaded, &frame(&[], 7000), 100) >= 90, "nothing says that there are more");
    loaded.set(GUARD_MAP, 0, GuardRules { more_known: 1, ..rules }.words());
    assert_eq!(dropped(&loaded, &frame(&[], 7000), 100), 0, "a peer whose slots were taken");
    assert!(loaded.totals(GUARD_COUNTS_MAP, Guarded::SourceRate as u32) >= 90);
    assert_eq!(loaded.totals(GUARD_COUNTS_MAP, Guarded::Known as u32), 200);
    // All strangers together.
    loaded.set(GUARD_MAP, 0, GuardRules { total_per_s: 3, ..rules }.words());
    let strangers = (0..200_u8).map(|host| {
        let mut packet = frame(&[], 7000);
        packet[28..30].copy_from_slice(&[200, host]);
        packet
    });
    assert!(strangers.filter(|packet| pass(&loaded, packet) == TC_ACT_SHOT).count() >= 150);
    assert!(loaded.totals(GUARD_COUNTS_MAP, Guarded::TotalRate as u32) >= 150);
}

/// Keeps the lines of the kernel programs.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn odd_packets_are_described_at_a_low_rate() {
    let Some(object) = object_or_skip() else { return };
    let mut loaded = Loaded::new(&object);
    let lines = Lines::default();
    let mut logger = aya_log::EbpfLogger::init_with_logger(&mut loaded.0, &lines as &dyn log::Log).unwrap();
    for _ in 0..100 {
        loaded.run(Direction::Egress, &frame(&[], 7000)[..40]);
    }
    logger.flush();
    let lines = lines.0.lock().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!((1..=cores).contains(&lines.len()), "{lines:?}");
    assert_eq!(lines[0], "DEBUG odd packet: oddity=1 direction=1 length=40");
}
