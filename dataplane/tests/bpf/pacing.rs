//! Pacing of real connections per class, from outside their sockets: rates, changes while they run, the flow table.
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use dwcp_abi::bpf::{Class, ClassPolicy, FlowState};
use dwcp_dataplane::bpf::{Interfaces, Options, Policy, Programs, Selector};

use crate::support::{Pair, inside, object_or_skip, options};

/// A connection that sends as fast as it may, until it is dropped.
pub(crate) struct Stream {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn start(pair: &Pair, listener: TcpListener) -> Self {
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let address = listener.local_addr().unwrap();
        let count = Arc::clone(&received);
        let receiver = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 18];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => count.fetch_add(length as u64, Ordering::Relaxed),
                };
            }
        });
        let until = Arc::clone(&stop);
        let sender = inside(&pair.near, move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let block = vec![7; 1 << 16];
            while !until.load(Ordering::Relaxed) && stream.write_all(&block).is_ok() {}
        });
        Self { received, stop, threads: vec![sender, receiver] }
    }

    /// Bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bits per second that arrive.
    pub(crate) fn measure(&self, span: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.received.load(Ordering::Relaxed));
        sleep(span);
        let bytes = self.received.load(Ordering::Relaxed) - before;
        bytes as f64 * 8.0 / start.elapsed().as_secs_f64()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

pub(crate) fn listen(pair: &Pair) -> TcpListener {
    let any: SocketAddr = "10.77.0.2:0".parse().unwrap();
    inside(&pair.far, move || TcpListener::bind(any).unwrap()).join().unwrap()
}

pub(crate) fn policy(port: u16, flow_bits_per_s: u64) -> Policy {
    let mut policy = Policy::default();
    policy.selectors.push((Class::Tunnel, Selector::Port { protocol: 6, port }));
    policy.classes[Class::Tunnel as usize] =
        ClassPolicy { flow_bytes_per_s: flow_bits_per_s / 8, congestion: 2, ..ClassPolicy::default() };
    policy
}

/// On no interface: sockets are told by their control group, whatever namespace they are in.
fn load(object: std::path::PathBuf, ports: Vec<(u16, Class)>) -> Programs {
    let options = Options { interfaces: Interfaces::Named(Vec::new()), ..options(object, ports) };
    Programs::load(options).expect("programs load")
}

#[test]
fn a_running_connection_follows_its_class() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("pace") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    let listener = listen(&pair);
    let port = listener.local_addr().unwrap().port();
    let mut programs = load(object, Vec::new());
    programs.apply(&policy(port, 20_000_000)).unwrap();
    let stream = Stream::start(&pair, listener);
    sleep(Duration::from_millis(500));
    for rate in [20_000_000_u64, 100_000_000, 400_000_000, 50_000_000] {
        programs.apply(&policy(port, rate)).unwrap();
        // In force within a quarter of a second, what was queued before included.
        sleep(Duration::from_millis(250));
        // Whoever has to wait for a core loses more than the kernel's clock does.
        let share = (0..3).map(|_| stream.measure(Duration::from_millis(400)) / rate as f64);
        let best = share.min_by(|a, b| (a - 1.0).abs().total_cmp(&(b - 1.0).abs())).unwrap();
        assert!((0.9..1.06).contains(&best), "{best} of {rate} bit/s");
    }
    programs.apply(&policy(port, 0)).unwrap();
    sleep(Duration::from_millis(250));
    let free = stream.measure(Duration::from_millis(400));
    assert!(free > 450e6, "{free} bit/s without a ceiling");

    let flows = programs.flows(Instant::now()).unwrap();
    // Both ends of the connection are sockets of this process.
    let sender = flows.iter().find(|flow| flow.key.remote_port() == port).expect("in the table");
    assert_eq!(sender.flow.class, u64::from(Class::Tunnel.number()));
    assert_eq!(FlowState::from_number(sender.flow.state), FlowState::Open);
    assert!(sender.flow.bytes_sent > 10_000_000 && sender.flow.rtt_us > 0, "{sender:?}");
    assert_eq!(sender.remote().to_string(), "10.77.0.2");
    drop(stream);
    let flows = programs.flows(Instant::now()).unwrap();
    let sender = flows.iter().find(|flow| flow.key.remote_port() == port).expect("in the table");
    assert_eq!(FlowState::from_number(sender.flow.state), FlowState::Closed);
}

#[test]
fn own_lanes_and_other_groups_are_left_alone() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("own") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    let (own, other) = (listen(&pair), listen(&pair));
    let [own_port, other_port] = [&own, &other].map(|listener| listener.local_addr().unwrap().port());
    let mut programs = load(object, vec![(own_port, Class::Tunnel)]);
    programs.apply(&policy(own_port, 8_000_000)).unwrap();
    let stream = Stream::start(&pair, own);
    sleep(Duration::from_millis(200));
    assert!(stream.measure(Duration::from_millis(300)) > 100e6, "a lane paces itself");
    let flows = programs.flows(Instant::now()).unwrap();
    assert!(flows.iter().any(|flow| flow.key.remote_port() == own_port), "but it is watched");
    drop(stream);
    // The same port in no class.
    let stream = Stream::start(&pair, other);
    sleep(Duration::from_millis(200));
    assert!(stream.measure(Duration::from_millis(300)) > 100e6, "what has no class is free");
    let flows = programs.flows(Instant::now()).unwrap();
    assert!(flows.iter().all(|flow| flow.key.remote_port() != other_port), "and not watched");
}
