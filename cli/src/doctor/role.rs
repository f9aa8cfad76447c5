//! `dwcp doctor --role`: whether the host is large enough for what it is to be. The minima are those of the deployment
//! guides; falling short of them is worth knowing, and fails only where the operator says `--strict`.
use std::path::Path;

use super::host::Host;
use super::{Check, Verdict};
use crate::arguments::HostRole;
use crate::units;

/// What a role needs.
struct Minimum {
    cores: usize,
    memory_bytes: u64,
    disk_bytes: u64,
    /// Of the fastest interface; 0 = whatever there is.
    link_mbit_per_s: u64,
}

/// Every check of a role.
pub(super) fn checks(host: &Host, role: HostRole, is_strict: bool, state_directory: &Path) -> Vec<Check> {
    let least = minimum(role);
    let judge = |id: &str, found: Option<u64>, least: u64, show: fn(u64) -> String| {
        let id = format!("role.{id}");
        let Some(found) = found else { return Check::skipped(id, "cannot be read on this host") };
        let evidence = format!("{}, {} wanted for {}", show(found), show(least), role.word());
        if found >= least {
            return Check::ok(id, evidence);
        }
        let verdict = if is_strict { Verdict::Fail } else { Verdict::Warn };
        let next = Some("use a larger host, or take it for another role".to_owned());
        Check { next, ..Check::new(id, verdict, evidence) }
    };
    let mut checks = vec![
        judge("cores", cores(host), least.cores as u64, |count| format!("{count} cores")),
        // The kernel keeps a few percent of what is built in for itself.
        judge("memory", memory(host), least.memory_bytes / 100 * 94, units::bytes),
        judge("disk", disk(state_directory), least.disk_bytes, units::bytes),
    ];
    if least.link_mbit_per_s > 0 {
        checks
            .push(judge("link", fastest_link(host), least.link_mbit_per_s, |rate| format!("{rate} Mbit/s")));
    }
    checks
}

fn minimum(role: HostRole) -> Minimum {
    let (cores, memory_gib, disk_gib, link_mbit_per_s) = match role {
        HostRole::Edge => (4, 8, 100, 1_000),
        HostRole::Manager => (8, 16, 100, 0),
        HostRole::Consensus => (16, 32, 500, 10_000),
        HostRole::Ml => (8, 16, 50, 0),
    };
    Minimum { cores, memory_bytes: memory_gib << 30, disk_bytes: disk_gib << 30, link_mbit_per_s }
}

fn cores(host: &Host) -> Option<u64> {
    let text = host.text("proc/cpuinfo")?;
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    (count > 0).then_some(count as u64)
}

fn memory(host: &Host) -> Option<u64> {
    let text = host.text("proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Of the file system that the state directory lies on, or will.
fn disk(state_directory: &Path) -> Option<u64> {
    let place = state_directory.ancestors().find(|place| place.exists())?;
    let system = nix::sys::statvfs::statvfs(place).ok()?;
    system.blocks().checked_mul(system.fragment_size())
}

/// Interfaces without a device say no speed, or -1.
fn fastest_link(host: &Host) -> Option<u64> {
    let folder = std::fs::read_dir(host.path("sys/class/net")).ok()?;
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| host.text(&format!("sys/class/net/{name}/speed"))?.parse::<u64>().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_host_is_named_and_fails_only_where_that_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/cpuinfo", &"processor : 0\nmodel : x\n".repeat(8));
        write("proc/meminfo", "MemTotal:       16300000 kB\nMemFree: 1 kB\n");
        write("sys/class/net/lo/speed", "-1");
        write("sys/class/net/eth0/speed", "1000");
        let host = Host::new(root.path());
        let verdict = |role, is_strict, id: &str| {
            let checks = checks(&host, role, is_strict, root.path());
            checks.into_iter().find(|check| check.id == id).map(|check| check.verdict)
        };
        assert_eq!(verdict(HostRole::Manager, false, "role.cores"), Some(Verdict::Ok));
        assert_eq!(verdict(HostRole::Manager, false, "role.memory"), Some(Verdict::Ok));
        assert_eq!(verdict(HostRole::Manager, false, "role.link"), None);
        assert_eq!(verdict(HostRole::Edge, false, "role.link"), Some(Verdict::Ok));
        assert_eq!(verdict(HostRole::Consensus, false, "role.cores"), Some(Verdict::Warn));
        assert_eq!(verdict(HostRole::Consensus, true, "role.link"), Some(Verdict::Fail));
        let nothing = Host::new(root.path().join("nowhere"));
        let unread = super::checks(&nothing, HostRole::Edge, true, root.path());
        assert_eq!(unread.iter().filter(|check| check.verdict == Verdict::Skipped).count(), 3);
    }
}
