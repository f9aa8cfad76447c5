//! Who holds the ports that the node listens on: /proc/net/tcp names the socket, /proc/PID/fd its owner.
use std::path::Path;

use dwcp_config::Config;

use super::Check;
use super::host::Host;

/// One check for each port of the configuration.
pub(super) fn checks(host: &Host, config: &Config, daemon_is_reachable: bool) -> Vec<Check> {
    let mut wanted = vec![("api", config.api.listen.port()), ("peer", config.peer_listen.port())];
    if config.monitoring.prometheus_enabled {
        wanted.push(("metrics", config.monitoring.metrics_port));
    }
    let listeners = listeners(host);
    wanted
        .into_iter()
        .filter(|&(_, port)| port != 0)
        .map(|(name, port)| check(host, name, port, &listeners, daemon_is_reachable))
        .collect()
}

fn check(host: &Host, name: &str, port: u16, listeners: &[Listener], daemon_is_reachable: bool) -> Check {
    let id = format!("port.{name}");
    let Some(listener) = listeners.iter().find(|listener| listener.port == port) else {
        if daemon_is_reachable {
            let next = format!("see the daemon's log for port {port}");
            return Check::warn(id, format!("{port}: nobody listens, though the daemon runs"), next);
        }
        return Check::ok(id, format!("{port}: free"));
    };
    let look = format!("ss -ltnp 'sport = :{port}'");
    match owner(host, listener.inode) {
        Some(owner) if owner.name.starts_with("dwcp") => {
            Check::ok(id, format!("{port}: {} (pid {})", owner.name, owner.pid))
        }
        Some(owner) => Check::fail(id, format!("{port}: taken by {} (pid {})", owner.name, owner.pid), look),
        None if daemon_is_reachable => Check::ok(id, format!("{port}: somebody listens; root may see who")),
        None => Check::warn(id, format!("{port}: taken; root may see by whom"), format!("sudo {look}")),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    port: u16,
    inode: u64,
}

fn listeners(host: &Host) -> Vec<Listener> {
    let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|table| host.text(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).filter_map(listener).collect()
}

/// Fields of a line of /proc/net/tcp: number, local address, remote address, state, …, inode as the tenth.
fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != STATE_LISTEN {
        return None;
    }
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some(Listener { port, inode: inode.parse().ok()? })
}

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    name: String,
}

/// The first process that has the socket open, as far as this user may look.
fn owner(host: &Host, inode: u64) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    for entry in std::fs::read_dir(host.path("proc")).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if has_open(&entry.path().join("fd"), &wanted) {
            let name = host.text(&format!("proc/{pid}/comm")).unwrap_or_else(|| "unknown".to_owned());
            return Some(Owner { pid, name });
        }
    }
    None
}

fn has_open(descriptors: &Path, wanted: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(descriptors) else { return false };
    entries
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(wanted)))
}

/// `TCP_LISTEN` of the kernel's include/net/tcp_states.h.
const STATE_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100\n   \
                     1: 00000000:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100\n   \
                     2: 0100007F:2328 0100007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100\n";
        for (pid, name, inode) in [(10, "dwcp-control", 111), (20, "prometheus", 222)] {
            let process = root.join(format!("proc/{pid}"));
            std::fs::create_dir_all(process.join("fd")).unwrap();
            std::fs::write(process.join("comm"), name).unwrap();
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), process.join("fd/3")).unwrap();
        }
        std::fs::create_dir_all(root.join("proc/net")).unwrap();
        std::fs::write(root.join("proc/net/tcp"), table).unwrap();
        let host = Host::new(root);
        (directory, host)
    }

    #[test]
    fn our_own_ports_are_fine_and_others_are_named() {
        let (_directory, host) = host();
        let found = checks(&host, &Config::default(), false);
        let told: Vec<_> =
            found.iter().map(|check| (check.id.as_str(), check.verdict, check.evidence.as_str())).collect();
        assert_eq!(
            told,
            [
                ("port.api", Verdict::Ok, "8080: dwcp-control (pid 10)"),
                ("port.peer", Verdict::Ok, "9000: free"),
                ("port.metrics", Verdict::Fail, "9090: taken by prometheus (pid 20)"),
            ]
        );
    }

    #[test]
    fn a_running_daemon_that_does_not_listen_is_odd() {
        let (_directory, host) = host();
        let peer = checks(&host, &Config::default(), true).remove(1);
        assert_eq!((peer.id.as_str(), peer.verdict), ("port.peer", Verdict::Warn));
    }
}
