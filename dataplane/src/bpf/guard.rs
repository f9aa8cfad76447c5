//! Whether the guard may be attached: not where somebody else answers at the port that it would guard.
use std::collections::HashSet;
use std::fs;

/// Why the guard does not attach to `port`, if it does not; one line.
pub(super) fn refusal(port: u16) -> Option<String> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    judge(port, tables.iter().flat_map(|table| table.lines().skip(1)), &own_sockets())
}

fn judge<'a>(port: u16, lines: impl Iterator<Item = &'a str>, own: &HashSet<u64>) -> Option<String> {
    let way = "say `guard.mode: force` if that is meant";
    if port == SSH_PORT {
        return Some(format!("port {port} is how operators log in: {way}"));
    }
    let foreign =
        lines.filter_map(socket).find(|&(local, inode)| local == port && inode != 0 && !own.contains(&inode));
    foreign.map(|_| {
        format!("another process has sockets at port {port}, which the guard would hold back: {way}")
    })
}

/// Local port and inode of a line of /proc/net/tcp; connections that are only waited out have inode 0.
fn socket(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().take(10).collect();
    let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    Some((port, fields.get(9)?.parse().ok()?))
}

fn own_sockets() -> HashSet<u64> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return HashSet::new() };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

const SSH_PORT: u16 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 2] = [
        "   0: 00000000:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100",
        "   1: 0100007F:2328 0100007F:0000 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100",
    ];

    #[test]
    fn own_sockets_and_old_connections_are_no_reason() {
        assert_eq!(judge(9000, LINES.into_iter(), &HashSet::from([111])), None);
        assert_eq!(judge(9001, LINES.into_iter(), &HashSet::new()), None);
    }

    #[test]
    fn somebody_elses_port_and_ssh_are() {
        let reason = judge(9000, LINES.into_iter(), &HashSet::new()).unwrap();
        assert!(reason.contains("guard.mode: force") && reason.lines().count() == 1, "{reason}");
        assert!(judge(22, std::iter::empty(), &HashSet::new()).unwrap().contains("log in"));
    }

    #[test]
    fn garbage_is_passed_over() {
        assert_eq!(judge(9000, ["", "x", "a b:zz c d"].into_iter(), &HashSet::new()), None);
    }
}
