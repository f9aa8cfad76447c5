//! Nanoseconds per packet: `BPF_PROG_TEST_RUN` repeats a program over one packet and times it itself. All rows in turn,
//! round after round, each a million times; the median and the least. The packets are what an interface sees: TCP over IPv4 and IPv6, with and without a class,
//! and what the guard drops.
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, Pod};
use dwcp_abi::bpf::{
    Class, ClassPolicy, Direction, FQ_MAP, GUARD_MAP, GUARD_PROGRAM, GuardRules, KNOWN_MAP, POLICY_MAP,
    PORTS_MAP, SWITCH_MAP, USES_DEPARTURE, fq_slot, known_slots, mapped, port_place,
};
use dwcp_benches::measure::median;
use dwcp_benches::report::load;
use dwcp_benches::setting;
use serde_json::json;

const PORT: u16 = 7000;
const REPEATS: u32 = 1_000_000;

/// What is measured, and what it may cost in nanoseconds.
struct Row {
    what: &'static str,
    program: &'static str,
    packet: Vec<u8>,
    /// Tables in use.
    uses: u64,
    most: f64,
    times: Vec<f64>,
}

/// Prints the table and a line of JSON.
///
/// # Errors
/// The kernel refuses the object or a run.
pub(crate) fn run(object: &Path) -> Result<()> {
    let mut ebpf = prepared(object)?;
    let mut rows = rows();
    for _ in 0..setting("DWCP_BENCH_ROUNDS", 9) {
        for row in &mut rows {
            set(&mut ebpf, SWITCH_MAP, 0, [row.uses, 1_u64])?;
            row.times.push(measure(&ebpf, row)?);
        }
    }
    println!("{:<32} {:>10} {:>8} {:>8}", "ns per packet", "median", "least", "at most");
    let mut json = Vec::new();
    for Row { what, most, times, .. } in rows {
        let least = times.iter().copied().fold(f64::MAX, f64::min);
        let middle = median(times);
        println!("{what:<32} {middle:>10.0} {least:>8.0} {most:>8.0}");
        json.push(json!({ "what": what, "ns": middle, "least_ns": least, "met": middle < most }));
    }
    println!("{}", json!({ "bench": "kernel cost", "load": load(), "rows": json }));
    Ok(())
}

fn rows() -> Vec<Row> {
    let (egress, ingress) = (Direction::Egress.program(), Direction::Ingress.program());
    let (bulk, other) = (ipv4([10, 0, 0, 1], PORT), ipv4([10, 0, 0, 1], 80));
    let row = |what, program, packet: &[u8], most| {
        let (packet, times) = (packet.to_vec(), Vec::new());
        Row { what, program, packet, uses: 0, most, times }
    };
    vec![
        row("egress, IPv4, a class", egress, &bulk, 120.0),
        row("egress, IPv4, none", egress, &other, 120.0),
        row("egress, IPv6, a class", egress, &ipv6(PORT), 120.0),
        Row { uses: USES_DEPARTURE, ..row("egress, IPv4, departure time", egress, &bulk, 120.0) },
        row("ingress, IPv4, a class", ingress, &bulk, 120.0),
        row("guard, another port", GUARD_PROGRAM, &other, 80.0),
        row("guard, a peer", GUARD_PROGRAM, &ipv4([10, 0, 0, 9], PORT), 80.0),
        row("guard, a stranger", GUARD_PROGRAM, &bulk, 80.0),
    ]
}

fn prepared(object: &Path) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load_file(object)?;
    for name in [Direction::Ingress.program(), Direction::Egress.program(), GUARD_PROGRAM] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load()?;
    }
    let (word, shift) = port_place(6, PORT);
    set(&mut ebpf, PORTS_MAP, word, u64::from(Class::Bulk.number()) << shift)?;
    let peer = mapped(u32::from_ne_bytes([10, 0, 0, 9]));
    set(&mut ebpf, KNOWN_MAP, known_slots(&peer)[0], peer)?;
    // Of loopback, by which a test run says that the packet goes. At this rate no packet is dropped.
    set(&mut ebpf, FQ_MAP, fq_slot(1), 1_u32)?;
    let policy = ClassPolicy { peer_bytes_per_s: 1 << 40, priority: 3, ..ClassPolicy::default() };
    set(&mut ebpf, POLICY_MAP, Class::Bulk.number(), policy.words())?;
    let rules = GuardRules { port: u64::from(PORT), source_per_s: 1000, total_per_s: 1000, more_known: 0 };
    set(&mut ebpf, GUARD_MAP, 0, rules.words())?;
    Ok(ebpf)
}

fn measure(ebpf: &Ebpf, row: &Row) -> Result<f64> {
    let program: &SchedClassifier = ebpf.program(row.program).context(row.program)?.try_into()?;
    // struct __sk_buff with ifindex 1.
    let mut beside = [0; 192];
    beside[40] = 1;
    let mut options = TestRunOptions::new();
    options.data_in = Some(&row.packet);
    options.ctx_in = Some(&beside);
    options.repeat = REPEATS;
    // The kernel gives back the mean of one run.
    Ok(program.test_run(options)?.duration.as_nanos() as f64)
}

fn set<V: Pod>(ebpf: &mut Ebpf, map: &str, index: u32, value: V) -> Result<()> {
    let mut table: Array<_, V> = ebpf.map_mut(map).context("map")?.try_into()?;
    Ok(table.set(index, value, 0)?)
}

/// TCP to a port in an Ethernet frame, of a segment's size.
fn ipv4(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut ip = vec![0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 6]);
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&[10, 0, 0, 2]);
    frame(0x0800, ip, port)
}

fn ipv6(port: u16) -> Vec<u8> {
    let mut ip = vec![0; 40];
    ip[0] = 0x60;
    ip[4..8].copy_from_slice(&[5, 0xa0, 6, 64]);
    ip[8..24].fill(1);
    ip[24..40].fill(2);
    frame(0x86dd, ip, port)
}

fn frame(kind: u16, ip: Vec<u8>, port: u16) -> Vec<u8> {
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&40000_u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[12] = 5 << 4;
    let mut bytes = vec![2; 12];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(tcp);
    bytes.resize(1514, 0);
    bytes
}
