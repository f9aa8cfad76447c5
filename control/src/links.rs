//! How fast the host's network devices are, as the kernel says it. Read by the monitor now and then; devices that do
//! not say (bridges, tunnels, veth pairs) are left out.
use std::path::Path;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) device: String,
    pub(crate) bytes_per_s: u64,
}

/// All devices that are up and say how fast they are, by name. `root` is `/sys/class/net` but in tests.
pub(crate) fn read(root: &Path) -> Vec<Link> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut links: Vec<Link> =
        entries.take(DEVICES_MAX).filter_map(|entry| one(&entry.ok()?.path())).collect();
    links.sort_by(|a, b| a.device.cmp(&b.device));
    links
}

/// Names may be any bytes but `/`: others than the usual ones are left out rather than shown.
fn one(path: &Path) -> Option<Link> {
    let device = path.file_name()?.to_str()?;
    let usable = |c: char| c.is_ascii_alphanumeric() || ".-_:@".contains(c);
    let text = |name: &str| std::fs::read_to_string(path.join(name)).ok();
    if !device.chars().all(usable) || text("operstate")?.trim() != "up" {
        return None;
    }
    // Megabits per second; -1 where nobody knows.
    let megabits: u64 = text("speed")?.trim().parse().ok().filter(|megabits| *megabits > 0)?;
    Some(Link { device: device.to_owned(), bytes_per_s: megabits.saturating_mul(125_000) })
}

/// The kernel's own place for them.
pub(crate) const ROOT: &str = "/sys/class/net";
const DEVICES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_are_up_and_know_their_speed_count() {
        let root = tempfile::tempdir().unwrap();
        for (device, state, speed) in [
            ("eth0", "up", "10000"),
            ("eth1", "down", "10000"),
            ("lo", "unknown", "-1"),
            ("tun0", "up", "-1"),
            ("a b", "up", "1"),
        ] {
            let folder = root.path().join(device);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("operstate"), format!("{state}\n")).unwrap();
            std::fs::write(folder.join("speed"), format!("{speed}\n")).unwrap();
        }
        assert_eq!(read(root.path()), [Link { device: "eth0".into(), bytes_per_s: 1_250_000_000 }]);
        assert_eq!(read(&root.path().join("nowhere")), []);
    }
}
