//! The Debian package on a system that boots: installed, run by systemd, upgraded, purged. It changes the system that it
//! runs on, so it does nothing unless `DWCP_TEST_PACKAGE` names a package; `cargo xtask test` runs it in its virtual
//! machine, as root, with systemd as the first process.
mod system;

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use system::{capabilities, dpkg, dwcp, main_pid, owner, run, show, signal, until};

const HALVES: [&str; 2] = [CONTROL, DATAPLANE];
const CONTROL: &str = "dwcp-manager.service";
const DATAPLANE: &str = "dwcp-dataplane.service";
const PINS: &str = "/sys/fs/bpf/dwcp";
/// A class with a rate: what the kernel keeps while the dataplane is away.
const CONFIGURATION: &str = "\
peer: {listen: \"127.0.0.1:6000\"}
dataplane: {workers: 1, buffer_memory: 16MiB}
classes: {bulk: {flow_rate: 100Mbps}}
";

#[test]
fn the_package_is_installed_run_upgraded_and_purged() {
    let Some(package) = std::env::var_os("DWCP_TEST_PACKAGE") else {
        println!("skipped: it wants a system of its own; `cargo xtask test` boots one");
        return;
    };
    let package = package.to_str().unwrap();
    let before = system::leftovers();
    step("install");
    dpkg(&["--install", package]);
    assert_installed();
    fs::write("/etc/dwcp/config.yaml", CONFIGURATION).unwrap();
    step("start");
    run("systemctl", &["start", "dwcp.service"]);
    assert_ready();
    assert_rights();
    step("kill control");
    survives(CONTROL, DATAPLANE);
    step("kill the dataplane");
    survives(DATAPLANE, CONTROL);
    step("restart control");
    let dataplane = main_pid(DATAPLANE);
    run("systemctl", &["restart", "dwcp-manager.service"]);
    assert_eq!(main_pid(DATAPLANE), dataplane);
    step("watchdog");
    watchdog();
    step("upgrade");
    upgrade(package);
    step("stop");
    let pids = HALVES.map(main_pid);
    run("systemctl", &["stop", "dwcp.service"]);
    for (unit, pid) in HALVES.into_iter().zip(pids) {
        assert_eq!(show(unit, "ActiveState"), "inactive", "{unit}: stop returned too early");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{unit}");
    }
    assert!(TcpStream::connect("127.0.0.1:6000").is_err(), "nobody keeps a socket of a stopped node");
    step("purge");
    let files = dpkg(&["--listfiles", "dwcp"]);
    dpkg(&["--purge", "dwcp"]);
    assert_purged(&files, &before);
}

/// Says where the time goes: the machine is emulated.
fn step(name: &str) {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    println!("{} s: {name}", uptime.split(' ').next().unwrap());
}

fn assert_installed() {
    let configuration = fs::metadata("/etc/dwcp/config.yaml").unwrap();
    assert_eq!(configuration.permissions().mode() & 0o777, 0o640);
    assert_eq!(owner("/etc/dwcp/config.yaml"), "root:dwcp");
    assert_eq!(owner("/var/lib/dwcp"), "dwcp:dwcp");
    assert_eq!(owner(PINS), "dwcp:dwcp");
    assert!(dpkg(&["--status", "dwcp"]).contains("\n /etc/dwcp/config.yaml "));
    for file in [
        "/usr/share/bash-completion/completions/dwcp",
        "/usr/share/zsh/vendor-completions/_dwcp",
        "/usr/share/fish/vendor_completions.d/dwcp.fish",
        "/usr/share/man/man1/dwcp.1",
        "/usr/lib/sysusers.d/dwcp.conf",
        "/usr/lib/tmpfiles.d/dwcp.conf",
    ] {
        assert!(fs::metadata(file).is_ok_and(|file| file.size() > 0), "{file}");
    }
    assert_eq!(show("dwcp.service", "ActiveState"), "inactive", "installing starts nothing");
}

fn assert_ready() {
    for unit in HALVES.into_iter().chain(["dwcp.service"]) {
        assert_eq!(show(unit, "ActiveState"), "active", "{unit}");
    }
    // `start` returned: the node is ready now, and not a moment later.
    dwcp(&["wait", "ready", "--timeout", "1s"]);
}

/// The programs are loaded by an unprivileged user with four capabilities, and control has none.
fn assert_rights() {
    assert_eq!(capabilities(main_pid(CONTROL)), ("dwcp".to_owned(), 0));
    // CAP_NET_ADMIN 12, CAP_IPC_LOCK 14, CAP_PERFMON 38, CAP_BPF 39 (include/uapi/linux/capability.h).
    let four = 1 << 12 | 1 << 14 | 1 << 38 | 1 << 39;
    assert_eq!(capabilities(main_pid(DATAPLANE)), ("dwcp".to_owned(), four));
    if !Path::new("/usr/libexec/dwcp/dwcp-ebpf.o").exists() {
        println!("skipped: kernel programs: the package was built without them");
        return;
    }
    until("the rate is in the kernel", || system::pins(PINS) > 0);
    let said = dwcp(&["debug", "ebpf"]);
    println!("{said}");
    assert!(!said.to_lowercase().contains("permission"), "{said}");
}

/// One half is killed: it comes back, and the other one goes on as if nothing were.
fn survives(killed: &str, other: &str) {
    let (before, stays) = (main_pid(killed), main_pid(other));
    let pins = system::pins(PINS);
    signal(before, "KILL");
    until("it is gone", || !Path::new(&format!("/proc/{before}")).exists());
    // Kept by systemd or by the process that lives: who connects now waits.
    let waits = TcpStream::connect("127.0.0.1:6000");
    assert!(waits.is_ok(), "{killed}: {waits:?}");
    assert_eq!(system::pins(PINS), pins, "{killed}: the kernel keeps the policy");
    until("it is back", || ![0, before].contains(&main_pid(killed)));
    dwcp(&["wait", "ready", "--timeout", "60s"]);
    assert_eq!(main_pid(other), stays, "{other} was touched");
    assert_eq!(show("dwcp.service", "ActiveState"), "active");
}

/// A dataplane whose loops stand still is ended, also where no control looks.
fn watchdog() {
    run("systemctl", &["stop", CONTROL]);
    let before = main_pid(DATAPLANE);
    signal(before, "STOP");
    until("it was ended", || {
        show(DATAPLANE, "Result") == "watchdog" || ![0, before].contains(&main_pid(DATAPLANE))
    });
    // In this machine systemd speaks to the kernel's log, which knows no units.
    let log = run("journalctl", &["--no-pager", "--output=cat"]);
    assert!(log.contains(&format!("{DATAPLANE}: Watchdog timeout")), "{log}");
    run("systemctl", &["start", CONTROL]);
    dwcp(&["wait", "ready", "--timeout", "60s"]);
}

/// The same version once more is to dpkg what a new one is: both halves go on with new programs, sockets and settings
/// stay.
fn upgrade(package: &str) {
    let before = HALVES.map(main_pid);
    let handed_over = handed_over();
    dpkg(&["--install", package]);
    dwcp(&["wait", "ready", "--timeout", "60s"]);
    for (unit, before) in HALVES.into_iter().zip(before) {
        assert!(![0, before].contains(&main_pid(unit)), "{unit} still runs the former version");
    }
    assert_eq!(fs::read_to_string("/etc/dwcp/config.yaml").unwrap(), CONFIGURATION);
    assert_eq!(self::handed_over(), handed_over + 1);
}

/// How often a dataplane got a socket from the one before it.
fn handed_over() -> usize {
    let log = run("journalctl", &["--unit", DATAPLANE, "--no-pager", "--output=cat"]);
    log.matches("taken over from the former life").count()
}

fn assert_purged(files: &str, before: &[String]) {
    // Directories that other packages have too stay.
    let left = files.lines().filter(|path| !Path::new(path).is_dir() && Path::new(path).exists());
    assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(system::leftovers(), before);
    until("systemd has forgotten the units", || show("dwcp.service", "LoadState") == "not-found");
}
