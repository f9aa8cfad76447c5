//! Questions to the system that is tested on, and orders to it.
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// The machine is emulated, and may share its cores.
const PATIENCE: Duration = Duration::from_secs(90);
/// And how deep to look: the emulated machine reads folders slowly.
const PLACES: [(&str, usize); 11] = [
    ("/etc", 3),
    ("/run", 2),
    ("/sys/fs/bpf", 2),
    ("/usr/bin", 1),
    ("/usr/lib", 1),
    ("/usr/lib/systemd/system", 2),
    ("/usr/lib/sysusers.d", 1),
    ("/usr/lib/tmpfiles.d", 1),
    ("/usr/libexec", 1),
    ("/var/lib", 1),
    ("/var/log", 1),
];
const DATABASE: &str = "/run/dpkg-of-the-test";

/// Runs it to a good end; what it says.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let log = Command::new("journalctl").args(["--no-pager", "--lines=60", "--output=cat"]).output();
        let log = log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned()).unwrap_or_default();
        panic!("{program} {arguments:?}: {}: {said}{complaint}\n{log}", output.status);
    }
    said
}

/// dpkg with a database of its own: the system's knows a thousand packages, lies on a slow file system here, and has
/// triggers that index the whole of it. So the system's packages, which this one depends on, are not seen.
pub(crate) fn dpkg(arguments: &[&str]) -> String {
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(Path::new(DATABASE).join(folder)).unwrap();
    }
    fs::OpenOptions::new().append(true).create(true).open(Path::new(DATABASE).join("status")).unwrap();
    let database = format!("--admindir={DATABASE}");
    run("dpkg", &[&[database.as_str(), "--force-depends,unsafe-io"], arguments].concat())
}

/// The installed command.
pub(crate) fn dwcp(arguments: &[&str]) -> String {
    let socket = ["--socket", "/run/dwcp/control.sock"];
    run("/usr/bin/dwcp", &[&socket[..], arguments].concat())
}

/// A property of a unit.
pub(crate) fn show(unit: &str, property: &str) -> String {
    run("systemctl", &["show", "--value", "--property", property, unit]).trim().to_owned()
}

/// The unit's process; 0 = none.
pub(crate) fn main_pid(unit: &str) -> u32 {
    show(unit, "MainPID").parse().unwrap()
}

pub(crate) fn signal(pid: u32, name: &str) {
    run("kill", &["-s", name, &pid.to_string()]);
}

/// Looks again and again until it is so.
pub(crate) fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// User and group of a file, by name.
pub(crate) fn owner(path: &str) -> String {
    run("stat", &["--format=%U:%G", path]).trim().to_owned()
}

/// The user that a process runs as, and its effective capabilities as a bit set (proc_pid_status(5)).
pub(crate) fn capabilities(pid: u32) -> (String, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let user = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let user = run("id", &["--name", "--user", &user.to_string()]).trim().to_owned();
    (user, u64::from_str_radix(line.trim(), 16).unwrap())
}

/// How many things are pinned below a folder.
pub(crate) fn pins(folder: &str) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { pins(path.to_str().unwrap()) } else { 1 };
    entries.map(|entry| count(&entry.unwrap().path())).sum()
}

/// Everything that has the appliance's name where a package may leave things.
pub(crate) fn leftovers() -> Vec<String> {
    let mut found = Vec::new();
    for (place, depth) in PLACES {
        search(Path::new(place), depth, &mut found);
    }
    // What dpkg and systemd write of what was once there is theirs.
    found.retain(|path| !path.starts_with("/var/lib/dpkg") && !path.starts_with("/var/lib/systemd"));
    found.sort();
    found
}

fn search(folder: &Path, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_named = entry.file_name().to_string_lossy().contains("dwcp");
        if is_named {
            found.push(path.display().to_string());
        } else if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search(&path, depth - 1, found);
        }
    }
}
