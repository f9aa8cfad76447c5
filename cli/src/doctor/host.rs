//! Facts of the host: kernel, rights, memory, sockets. Read from /proc and /sys below a root; nothing is tried out,
//! as the daemon's own probe (the `feature.*` checks) says what really works.
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dwcp_config::{Config, LaneCongestion};

use super::Check;
use crate::units;

/// Every check of the host. Rights and limits are those of the dataplane where it runs, else of this command.
pub(super) fn checks(host: &Host, dataplane_pid: Option<u32>, config: &Config) -> Vec<Check> {
    let process = dataplane_pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let whose = if dataplane_pid.is_some() { "the dataplane" } else { "this command" };
    let mut checks = vec![
        kernel(host),
        io_uring(host),
        capabilities(host, &process, whose),
        cgroup2(host),
        hugepages(host),
        memlock(host, &process, whose),
    ];
    checks.extend(["rmem_max", "wmem_max"].map(|name| socket_memory(host, name)));
    checks.push(congestion(host, config));
    checks.push(clock(host, SystemTime::now()));
    checks
}

/// Files below a root directory.
pub(super) struct Host {
    root: PathBuf,
}

impl Host {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The text without the space around it; `None` where the file cannot be read.
    pub(super) fn text(&self, relative: &str) -> Option<String> {
        std::fs::read_to_string(self.path(relative)).ok().map(|text| text.trim().to_owned())
    }

    fn exists(&self, relative: &str) -> bool {
        Path::exists(&self.path(relative))
    }
}

fn kernel(host: &Host) -> Check {
    let Some(release) = host.text("proc/sys/kernel/osrelease") else {
        return Check::skipped("kernel", "its release cannot be read");
    };
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Check::skipped("kernel", format!("'{release}' is no release number"));
    };
    if (major, minor) < KERNEL_MIN {
        let wanted = format!("use Linux {}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1);
        return Check::warn(
            "kernel",
            format!("{release} lacks parts of io_uring: slower ways are used"),
            wanted,
        );
    }
    Check::ok("kernel", release)
}

fn io_uring(host: &Host) -> Check {
    match host.text("proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => Check::ok("io_uring", "permitted to everybody"),
        Some("1") => Check::warn(
            "io_uring",
            "permitted to the group in kernel.io_uring_group and to CAP_SYS_ADMIN only",
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        Some(value) => Check::warn(
            "io_uring",
            format!("forbidden (kernel.io_uring_disabled={value}): epoll is used"),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        None => Check::ok("io_uring", "this kernel has no switch that forbids it"),
    }
}

fn capabilities(host: &Host, process: &str, whose: &str) -> Check {
    let status = host.text(&format!("proc/{process}/status"));
    let effective = status.as_deref().and_then(|status| field(status, "CapEff:"));
    let Some(bits) = effective.and_then(|value| u64::from_str_radix(value, 16).ok()) else {
        return Check::skipped("capabilities", format!("those of {whose} cannot be read"));
    };
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(bit, _)| bits & (1 << bit) == 0).map(|&(_, name)| name).collect();
    if missing.is_empty() {
        return Check::ok("capabilities", format!("{whose} may load kernel programs and lock memory"));
    }
    Check::warn(
        "capabilities",
        format!("{whose} lacks {}: kernel programs or locked memory are off", missing.join(", ")),
        "run the node as a service (its unit grants them), or as root",
    )
}

fn cgroup2(host: &Host) -> Check {
    let Some(mounts) = host.text("proc/self/mounts") else {
        return Check::skipped("cgroup2", "what is mounted cannot be read");
    };
    let mut mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    if let Some((place, _)) = mounted.find(|&(_, kind)| kind == "cgroup2") {
        return Check::ok("cgroup2", format!("mounted at {place}"));
    }
    Check::warn(
        "cgroup2",
        "not mounted: pacing policy from outside the sockets is off",
        "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1",
    )
}

fn hugepages(host: &Host) -> Check {
    let memory = host.text("proc/meminfo").unwrap_or_default();
    let number = |name| field(&memory, name).and_then(|value| value.parse::<u64>().ok());
    let (Some(total), Some(free)) = (number("HugePages_Total:"), number("HugePages_Free:")) else {
        return Check::skipped("hugepages", "/proc/meminfo does not tell");
    };
    if total == 0 {
        return Check::warn("hugepages", "none: ordinary pages are used", "sysctl -w vm.nr_hugepages=64");
    }
    Check::ok("hugepages", format!("{free} of {total} free"))
}

fn memlock(host: &Host, process: &str, whose: &str) -> Check {
    let limits = host.text(&format!("proc/{process}/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let Some(soft) = line.and_then(|line| line.split_whitespace().next()) else {
        return Check::skipped("memlock", format!("the limit of {whose} cannot be read"));
    };
    match soft.parse::<u64>() {
        Ok(limit) if limit < MEMLOCK_MIN => Check::warn(
            "memlock",
            format!("{} for {whose}: buffers are registered only with CAP_IPC_LOCK", units::bytes(limit)),
            "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
        ),
        Ok(limit) => Check::ok("memlock", format!("{} for {whose}", units::bytes(limit))),
        Err(_unlimited) => Check::ok("memlock", format!("{soft} for {whose}")),
    }
}

fn socket_memory(host: &Host, name: &str) -> Check {
    let Some(value) =
        host.text(&format!("proc/sys/net/core/{name}")).and_then(|text| text.parse::<u64>().ok())
    else {
        return Check::skipped(name, "cannot be read");
    };
    if value >= SOCKET_MEMORY_MIN {
        return Check::ok(name, units::bytes(value));
    }
    Check::warn(
        name,
        format!("{}: a long, fast link needs several lanes to fill its window", units::bytes(value)),
        format!("sysctl -w net.core.{name}={SOCKET_MEMORY_MIN}"),
    )
}

fn congestion(host: &Host, config: &Config) -> Check {
    let wanted = match config.transport.congestion_algorithm {
        LaneCongestion::Auto | LaneCongestion::Bbr => "bbr",
        LaneCongestion::Cubic => "cubic",
        LaneCongestion::Reno => "reno",
        LaneCongestion::Host => return Check::ok("congestion", "the host's default is used, as configured"),
    };
    let Some(available) = host.text("proc/sys/net/ipv4/tcp_available_congestion_control") else {
        return Check::skipped("congestion", "what is available cannot be read");
    };
    if available.split_whitespace().any(|name| name == wanted) {
        return Check::ok("congestion", format!("{wanted} is available"));
    }
    Check::warn(
        "congestion",
        format!("{wanted} is wanted, available are: {available}"),
        format!("modprobe tcp_{wanted}, or set transport.congestion_algorithm"),
    )
}

fn clock(host: &Host, now: SystemTime) -> Check {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if since < CLOCK_MIN {
        return Check::fail(
            "clock",
            "it is set to a time before this program was made",
            "timedatectl set-ntp true",
        );
    }
    let keeper = KEEPERS.iter().find(|(path, _)| host.exists(path));
    match keeper {
        Some((_, name)) => Check::ok("clock", format!("plausible, kept by {name}")),
        None => Check::ok("clock", "plausible; no time service was found here, the host outside may keep it"),
    }
}

/// The first word behind `name` at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// SINGLE_ISSUER and DEFER_TASKRUN of io_uring_setup(2): 6.0 and 6.1.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Bits of linux/capability.h.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (14, "CAP_IPC_LOCK"), (39, "CAP_BPF")];
/// The default buffer pool of a dataplane.
const MEMLOCK_MIN: u64 = 64 << 20;
/// Above the bandwidth-delay product of 1 Gbit/s over 100 ms.
const SOCKET_MEMORY_MIN: u64 = 16 << 20;
/// 2026-01-01T00:00:00Z.
const CLOCK_MIN: Duration = Duration::from_secs(1_767_225_600);
const KEEPERS: [(&str, &str); 4] = [
    ("run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("run/chrony/chronyd.pid", "chrony"),
    ("run/chronyd.pid", "chrony"),
    ("run/ntpd.pid", "ntpd"),
];

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// A host made of these files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::new(directory.path());
        (directory, host)
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_about() {
        let (_directory, host) = host(&[
            ("proc/sys/kernel/osrelease", "6.12.9-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/7/status", "Name:\tdwcp-dataplane\nCapEff:\t0000008000005000\n"),
            (
                "proc/7/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax locked memory         unlimited  unlimited bytes\n",
            ),
            ("proc/meminfo", "MemTotal: 1 kB\nHugePages_Total:      64\nHugePages_Free:       60\n"),
            ("proc/sys/net/core/rmem_max", "33554432\n"),
            ("proc/sys/net/core/wmem_max", "33554432\n"),
            ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic bbr\n"),
            ("proc/self/mounts", "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"),
        ]);
        let found = checks(&host, Some(7), &Config::default());
        assert_eq!(found.len(), 10);
        for check in found {
            assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
            assert_eq!(check.next, None);
        }
    }

    #[test]
    fn a_poor_host_gets_a_way_out_for_everything() {
        let (_directory, host) = host(&[
            ("proc/sys/kernel/osrelease", "5.10.0-34-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "2\n"),
            ("proc/self/status", "CapEff:\t0000000000001000\n"),
            (
                "proc/self/limits",
                "Max locked memory         8388608              8388608              bytes\n",
            ),
            ("proc/meminfo", "HugePages_Total:       0\nHugePages_Free:        0\n"),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("proc/sys/net/core/wmem_max", "212992\n"),
            ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic\n"),
            ("proc/self/mounts", "cgroup2 /cgroup2 cgroup rw 0 0\n"),
        ]);
        for check in checks(&host, None, &Config::default()) {
            if check.id == "clock" {
                continue;
            }
            assert_eq!(check.verdict, Verdict::Warn, "{check:?}");
            assert!(check.next.is_some());
        }
        let check = capabilities(&host, "self", "this command");
        assert_eq!(
            check.evidence,
            "this command lacks CAP_IPC_LOCK, CAP_BPF: kernel programs or locked memory are off"
        );
    }

    #[test]
    fn an_unreadable_host_is_skipped_not_judged() {
        let (_directory, host) =
            host(&[("proc/sys/kernel/osrelease", "latest"), ("proc/self/status", "CapEff: zz")]);
        for id in ["kernel", "cgroup2", "capabilities", "hugepages", "memlock", "rmem_max", "congestion"] {
            let checks = checks(&host, None, &Config::default());
            let check = checks.iter().find(|check| check.id == id).unwrap();
            assert_eq!(check.verdict, Verdict::Skipped, "{check:?}");
        }
    }

    #[test]
    fn a_clock_before_the_program_fails() {
        let (_directory, host) = host(&[]);
        assert_eq!(clock(&host, UNIX_EPOCH).verdict, Verdict::Fail);
        assert_eq!(clock(&host, UNIX_EPOCH + CLOCK_MIN).verdict, Verdict::Ok);
    }
}
