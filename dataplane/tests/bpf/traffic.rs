//! Real traffic between two namespaces, interfaces that come and go, and what is said where nothing can be loaded.
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use dwcp_abi::bpf::{Class, Direction};
use dwcp_dataplane::bpf::{Programs, Unavailable};

use crate::support::{Pair, inside, ip, may_load, object, object_or_skip, options};

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

/// `(bytes sent, bytes counted)` over one address family.
fn transfer(pair: &Pair, object: PathBuf, far: IpAddr) -> (u64, u64, u64) {
    let listener =
        inside(&pair.far, move || TcpListener::bind(SocketAddr::new(far, 0)).unwrap()).join().unwrap();
    let port = listener.local_addr().unwrap().port();
    let load = options(object, vec![(port, Class::Bulk)]);
    let classifier =
        inside(&pair.near, move || Programs::load(load).expect("classifier loads")).join().unwrap();
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
        let mut classifier = Programs::load(options(object, Vec::new())).expect("classifier loads");
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
    let error = Programs::load(options("/nonexistent/dwcp-ebpf.o".into(), Vec::new())).unwrap_err();
    assert!(matches!(error, Unavailable::NoObject { .. }));
    assert!(error.to_string().contains("/nonexistent/dwcp-ebpf.o"));
}

#[test]
fn garbage_is_refused_in_one_line() {
    let error = Programs::load(options("/bin/sh".into(), Vec::new())).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

/// Root starts this test again as nobody; as nobody it tries to load.
#[test]
fn without_rights_there_is_one_line() {
    if !may_load() {
        let Some(object) = std::env::var_os(OBJECT_FOR_NOBODY).map(PathBuf::from).or_else(object) else {
            return println!("skipped: no target/bpf/dwcp-ebpf, build it with `cargo xtask build-ebpf`");
        };
        let error = Programs::load(options(object, Vec::new())).unwrap_err();
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
    let name = "traffic::without_rights_there_is_one_line";
    let mut nobody = Command::new(&test);
    nobody.args(["--exact", name, "--nocapture"]).env(OBJECT_FOR_NOBODY, &copy).uid(65534).gid(65534);
    let output = nobody.current_dir("/").output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success() && said.contains("not permitted"), "{said}");
}

const OBJECT_FOR_NOBODY: &str = "DWCP_TEST_OBJECT_FOR_NOBODY";
