//! Single packets through `BPF_PROG_TEST_RUN`: counters, classes, priorities, departure times, the guard.
use std::{path::Path, sync::Mutex};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use dwcp_abi::bpf::{COUNTERS_MAP, Class, Counter, Direction, ODD_MAP, PORTS_MAP, counter_index, port_key};

use crate::support::object_or_skip;

pub(crate) const TC_ACT_UNSPEC: u32 = u32::MAX;

struct Loaded(Ebpf);

impl Loaded {
    fn new(object: &Path) -> Self {
        let mut ebpf = Ebpf::load_file(object).expect("object loads");
        for direction in Direction::ALL {
            let program: &mut SchedClassifier =
                ebpf.program_mut(direction.program()).unwrap().try_into().unwrap();
            program.load().expect("verifier accepts");
        }
        let mut ports: aya::maps::HashMap<_, u32, u32> = ebpf.map_mut(PORTS_MAP).unwrap().try_into().unwrap();
        ports.insert(port_key(6, 7000), Class::Bulk.number(), 0).unwrap();
        Self(ebpf)
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
