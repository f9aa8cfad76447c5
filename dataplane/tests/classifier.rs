//! The classifier inside a real kernel: single packets through `BPF_PROG_TEST_RUN`, and TCP between two network
//! namespaces. Needs root, the built object and a kernel that allows both; says `skipped:` otherwise.
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use dwcp_abi::bpf::{COUNTERS_MAP, Class, Counter, Direction, ODD_MAP, PORTS_MAP, counter_index};
use dwcp_dataplane::bpf::{Classifier, Interfaces, Options, Unavailable};

const TC_ACT_UNSPEC: u32 = u32::MAX;

/// Where `cargo xtask build-ebpf` puts it.
fn object() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    Some(target.join("bpf/dwcp-ebpf")).filter(|path| path.is_file())
}

fn may_load() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The object, or a line that says why this machine cannot test it.
fn object_or_skip() -> Option<PathBuf> {
    if !may_load() {
        println!("skipped: needs root");
        return None;
    }
    let object = object();
    if object.is_none() {
        println!("skipped: no target/bpf/dwcp-ebpf, build it with `cargo xtask build-ebpf`");
    }
    object
}

struct Loaded(Ebpf);

impl Loaded {
    fn new(object: &Path) -> Self {
        let mut ebpf = Ebpf::load_file(object).expect("object loads");
        for direction in Direction::ALL {
            let program: &mut SchedClassifier =
                ebpf.program_mut(direction.program()).unwrap().try_into().unwrap();
            program.load().expect("verifier accepts");
        }
        let mut ports: aya::maps::HashMap<_, u16, u32> = ebpf.map_mut(PORTS_MAP).unwrap().try_into().unwrap();
        ports.insert(7000, Class::Bulk.number(), 0).unwrap();
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

/// Two namespaces joined by a veth pair; removed when dropped.
struct Pair {
    near: String,
    far: String,
}

impl Pair {
    fn new(tag: &str) -> Result<Self, String> {
        let id = std::process::id();
        let pair = Self { near: format!("dwcp-{tag}-n{id}"), far: format!("dwcp-{tag}-f{id}") };
        let (near, far) = (pair.near.as_str(), pair.far.as_str());
        ip(&["netns", "add", near])?;
        ip(&["netns", "add", far])?;
        ip(&["-n", near, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", far])?;
        for (namespace, name, host) in [(near, "v0", 1), (far, "v1", 2)] {
            ip(&["-n", namespace, "address", "add", &format!("10.77.0.{host}/24"), "dev", name])?;
            ip(&["-n", namespace, "address", "add", &format!("fd77::{host}/64"), "dev", name, "nodad"])?;
            ip(&["-n", namespace, "link", "set", name, "up"])?;
        }
        Ok(pair)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            if let Err(complaint) = ip(&["netns", "delete", namespace]) {
                eprintln!("{complaint}");
            }
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs `body` in a thread of its own inside a namespace.
fn inside<T: Send + 'static>(
    namespace: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let place = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let file = std::fs::File::open(place).expect("namespace");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        body()
    })
}

/// Sends `length` bytes from near to far and waits until the far side has them all.
fn send(near: &str, listener: TcpListener, length: usize) {
    let address = listener.local_addr().unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut received = 0;
        while received < length {
            received += stream.read(&mut buffer).unwrap();
        }
        stream.write_all(b"!").unwrap();
    });
    inside(near, move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let block = vec![7; 1 << 16];
        for _ in 0..length / block.len() {
            stream.write_all(&block).unwrap();
        }
        stream.read_exact(&mut [0]).unwrap();
    })
    .join()
    .unwrap();
    receiver.join().unwrap();
}

fn options(object: PathBuf, ports: Vec<(u16, Class)>) -> Options {
    Options { objects: vec![object], interfaces: Interfaces::External, ports, dscp: Vec::new() }
}

/// `(bytes sent, bytes counted)` over one address family.
fn transfer(pair: &Pair, object: PathBuf, far: IpAddr) -> (u64, u64, u64) {
    let listener =
        inside(&pair.far, move || TcpListener::bind(SocketAddr::new(far, 0)).unwrap()).join().unwrap();
    let port = listener.local_addr().unwrap().port();
    let load = options(object, vec![(port, Class::Bulk)]);
    let classifier =
        inside(&pair.near, move || Classifier::load(load).expect("classifier loads")).join().unwrap();
    assert_eq!(classifier.interfaces().collect::<Vec<_>>(), ["v0"]);
    let length = 64 << 20;
    send(&pair.near, listener, length);
    let snapshot = classifier.read().unwrap();
    let bulk = |direction| snapshot.total(direction, Class::Bulk).bytes;
    (length as u64, bulk(Direction::Egress), bulk(Direction::Ingress))
}

#[test]
fn real_traffic_is_counted_within_header_overhead() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("cls") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    for far in ["10.77.0.2", "fd77::2"] {
        let (sent, egress, ingress) = transfer(&pair, object.clone(), far.parse().unwrap());
        assert!((sent..sent + sent / 10).contains(&egress), "{far}: sent {sent}, counted {egress}");
        assert!(ingress > 0 && ingress < sent / 10, "{far}: acknowledgements {ingress}");
    }
}

#[test]
fn interfaces_that_come_and_go_are_followed() {
    let Some(object) = object_or_skip() else { return };
    let pair = match Pair::new("ifs") {
        Ok(pair) => pair,
        Err(complaint) => return println!("skipped: no namespaces: {complaint}"),
    };
    let near = pair.near.clone();
    inside(&pair.near, move || {
        let mut classifier = Classifier::load(options(object, Vec::new())).expect("classifier loads");
        ip(&["-n", &near, "link", "add", "d0", "type", "veth", "peer", "name", "d1"]).unwrap();
        ip(&["-n", &near, "link", "set", "d0", "up"]).unwrap();
        classifier.refresh();
        assert_eq!(classifier.interfaces().collect::<Vec<_>>(), ["v0", "d0"]);
        ip(&["-n", &near, "link", "delete", "d0"]).unwrap();
        classifier.refresh();
        assert_eq!(classifier.interfaces().collect::<Vec<_>>(), ["v0"]);
    })
    .join()
    .unwrap();
}

#[test]
fn without_an_object_there_is_one_line() {
    let error = Classifier::load(options("/nonexistent/dwcp-ebpf.o".into(), Vec::new())).unwrap_err();
    assert!(matches!(error, Unavailable::NoObject { .. }));
    assert!(error.to_string().contains("/nonexistent/dwcp-ebpf.o"));
}

#[test]
fn garbage_is_refused_in_one_line() {
    let error = Classifier::load(options("/bin/sh".into(), Vec::new())).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

/// Root starts this test again as nobody; as nobody it tries to load.
#[test]
fn without_rights_there_is_one_line() {
    if !may_load() {
        let Some(object) = std::env::var_os(OBJECT_FOR_NOBODY).map(PathBuf::from).or_else(object) else {
            return println!("skipped: no target/bpf/dwcp-ebpf, build it with `cargo xtask build-ebpf`");
        };
        let error = Classifier::load(options(object, Vec::new())).unwrap_err();
        assert!(matches!(error, Unavailable::NotPermitted { .. }), "{error:?}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        return println!("{error}");
    }
    let Some(object) = object_or_skip() else { return };
    // Somewhere that nobody may read.
    let folder = std::env::temp_dir().join(format!("dwcp-nobody-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (test, copy) = (folder.join("test"), folder.join("object"));
    std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    std::fs::copy(object, &copy).unwrap();
    for (path, mode) in [(&folder, 0o755), (&test, 0o755), (&copy, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let name = "without_rights_there_is_one_line";
    let mut nobody = Command::new(&test);
    nobody.args(["--exact", name, "--nocapture"]).env(OBJECT_FOR_NOBODY, &copy).uid(65534).gid(65534);
    let output = nobody.current_dir("/").output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && said.contains("not permitted"), "{said}");
}

const OBJECT_FOR_NOBODY: &str = "DWCP_TEST_OBJECT_FOR_NOBODY";
