//! Departure times of aggregates, where the kernel has `fq`: all connections of a class to one address together keep to
//! its rate, and those to another address have theirs. This machine's kernel may lack it; `cargo xtask test` runs this in
//! the virtual machine too, where `DWCP_TEST_DEMANDS=fq,rdma` makes its absence a failure.
use std::{thread::sleep, time::Duration};

use dwcp_abi::bpf::{Class, ClassPolicy};
use dwcp_dataplane::bpf::{Policy, Programs, Selector};

use crate::{
    pacing::{Stream, listen},
    support::{Pair, inside, object_or_skip, options},
};

fn policy(ports: &[u16], peer_bits_per_s: u64) -> Policy {
    let mut policy = Policy::default();
    let port = |&port| (Class::Tunnel, Selector::Port { protocol: 6, port });
    policy.selectors = ports.iter().map(port).collect();
    policy.classes[Class::Tunnel as usize] =
        ClassPolicy { peer_bytes_per_s: peer_bits_per_s / 8, ..ClassPolicy::default() };
    policy
}

#[test]
fn connections_to_one_address_share_their_class() {
    let demanded = std::env::var("DWCP_TEST_DEMANDS").is_ok_and(|demands| demands.contains("fq"));
    let Some(object) = object_or_skip() else {
        assert!(!demanded, "the object and root were promised");
        return;
    };
    let pair = match Pair::new("edt") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    if let Err(complaint) = pair.near_tc(&["qdisc", "replace", "dev", "v0", "root", "fq"]) {
        assert!(!demanded, "{complaint}");
        return println!("skipped: this kernel has no fq: {complaint}");
    }
    let listeners: Vec<_> = (0..4).map(|_| listen(&pair)).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let near = pair.near.clone();
    let begin = move |policy: Policy, programs: Option<Programs>| {
        let object = object.clone();
        let body = move || {
            let mut programs =
                programs.unwrap_or_else(|| Programs::load(options(object, Vec::new())).unwrap());
            programs.apply(&policy).unwrap();
            programs
        };
        inside(&near, body).join().unwrap()
    };
    let mut programs = begin(policy(&ports, 40_000_000), None);
    let streams: Vec<Stream> = listeners.into_iter().map(|listener| Stream::start(&pair, listener)).collect();
    for rate in [40_000_000_u64, 80_000_000] {
        programs = begin(policy(&ports, rate), Some(programs));
        sleep(Duration::from_millis(1000));
        let span = Duration::from_millis(5000);
        let before: u64 = streams.iter().map(Stream::received).sum();
        streams[0].measure(span);
        let bytes = streams.iter().map(Stream::received).sum::<u64>() - before;
        // The rate is that of the wire: 66 bytes of headers before 1448 of payload.
        let wire = bytes as f64 * 8.0 * 1514.0 / 1448.0 / span.as_secs_f64();
        let share = wire / rate as f64;
        println!("{:.0} Mbit/s: {share:.3} of the rate on the wire", rate as f64 / 1e6);
        assert!((0.9..1.02).contains(&share), "{share} of {rate} bit/s");
    }
    let [delayed, dropped] = programs.departures().unwrap();
    assert!(delayed > 1000 && dropped < delayed / 100, "{delayed} delayed, {dropped} dropped");
    assert!(programs.report().text().contains("departure\ton"), "{}", programs.report().text());
    // Without a rate nothing is held back.
    let free = begin(policy(&ports, 0), Some(programs));
    sleep(Duration::from_millis(2500));
    let before: u64 = streams.iter().map(Stream::received).sum();
    streams[0].measure(Duration::from_millis(1000));
    let bytes = streams.iter().map(Stream::received).sum::<u64>() - before;
    assert!(bytes * 8 > 120_000_000, "{bytes} bytes in a second");
    drop(free);
}
