//! What the plan is made from: the host as /proc, /sys and a few tools show it. Reads only.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::tools;

/// The host, as far as tuning goes. What cannot be read is absent.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Values below /proc/sys, by their path there.
    pub(super) sysctls: BTreeMap<String, String>,
    /// Congestion controls that the kernel has.
    pub(super) congestion: Vec<String>,
    /// Size of a hugepage in bytes; 0 = none.
    pub(super) hugepage_bytes: u64,
    /// Hugepages: all, and those that are free.
    pub(super) hugepages: (u64, u64),
    /// Logical processors that are online.
    pub(super) cores: Vec<u16>,
    /// Interfaces to look at.
    pub(super) interfaces: Vec<Interface>,
    /// A process that moves interrupts about by itself.
    pub(super) has_irqbalance: bool,
    /// `AllowedCPUs` of the slices of everything else; none without systemd.
    pub(super) slices: Vec<(String, String)>,
}

/// A network interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Interface {
    pub(super) name: String,
    /// Its queueing discipline: kind, and whether the kernel chose it.
    pub(super) discipline: Option<(String, bool)>,
    /// Kinds below it, where it is `mq`.
    pub(super) leaves: Vec<String>,
    /// Interrupts of its queues with the cores that they go to.
    pub(super) interrupts: Vec<(u32, String)>,
    /// `xps_cpus` of each transmit queue.
    pub(super) transmit: Vec<String>,
    /// Processors near it.
    pub(super) near: Vec<u16>,
    /// Receive and transmit rings: now and at most; none where the driver does not tell.
    pub(super) rings: Option<[(u32, u32); 2]>,
}

impl Facts {
    /// Reads everything below `root`; `named` interfaces, or all that have a device and are up.
    pub(super) fn read(root: &Path, named: &[String]) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned());
        let values = super::plan::SYSCTLS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), read(&format!("proc/sys/{name}"))?)));
        let memory = read("proc/meminfo").unwrap_or_default();
        let number = |name: &str| field(&memory, name).unwrap_or(0);
        let congestion = read("proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
        let cores = list(&read("sys/devices/system/cpu/online").unwrap_or_default());
        let names = if named.is_empty() { with_device(root) } else { named.to_vec() };
        Self {
            sysctls: values.collect(),
            congestion: congestion.split_whitespace().map(str::to_owned).collect(),
            hugepage_bytes: number("Hugepagesize:") * 1024,
            hugepages: (number("HugePages_Total:"), number("HugePages_Free:")),
            interfaces: names.into_iter().map(|name| interface(root, name, &cores)).collect(),
            cores,
            has_irqbalance: has_process(root, "irqbalance"),
            slices: slices(root),
        }
    }
}

/// `8-11,16` as numbers; at most [`CORES_MAX`].
pub(super) fn list(text: &str) -> Vec<u16> {
    let mut cores = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
        cores.extend((first..=last).take(CORES_MAX - cores.len().min(CORES_MAX)));
    }
    cores
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn names_in(path: PathBuf) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .take(ENTRIES_MAX)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn with_device(root: &Path) -> Vec<String> {
    let mut names = names_in(root.join("sys/class/net"));
    names.retain(|name| {
        let place = root.join("sys/class/net").join(name);
        let state = fs::read_to_string(place.join("operstate")).unwrap_or_default();
        place.join("device").exists() && state.trim() == "up"
    });
    names
}

fn interface(root: &Path, name: String, cores: &[u16]) -> Interface {
    let place = root.join("sys/class/net").join(&name);
    let read = |path: PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let near = list(&read(place.join("device/local_cpulist")).unwrap_or_default());
    let queues = names_in(place.join("queues"));
    let mut transmit: Vec<&String> = queues.iter().filter(|queue| queue.starts_with("tx-")).collect();
    transmit.sort_by_key(|queue| queue[3..].parse::<u32>().unwrap_or(u32::MAX));
    let transmit =
        transmit.into_iter().filter_map(|queue| read(place.join("queues").join(queue).join("xps_cpus")));
    let (discipline, leaves) = tools::disciplines(root, &name);
    Interface {
        discipline,
        leaves,
        interrupts: interrupts(root, &place),
        transmit: transmit.collect(),
        near: if near.is_empty() { cores.to_vec() } else { near },
        rings: tools::rings(root, &name),
        name,
    }
}

/// Interrupts of the device, or of the one that it is a part of (virtio), which carry packets.
fn interrupts(root: &Path, place: &Path) -> Vec<(u32, String)> {
    let table = fs::read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    let own = [place.join("device/msi_irqs"), place.join("device/../msi_irqs")];
    let mut numbers: Vec<u32> = own
        .into_iter()
        .map(names_in)
        .find(|names| !names.is_empty())
        .into_iter()
        .flatten()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.retain(|number| carries_packets(&table, *number));
    let affinity = |number: u32| {
        let path = root.join(format!("proc/irq/{number}/smp_affinity_list"));
        Some((number, fs::read_to_string(path).ok()?.trim().to_owned()))
    };
    numbers.into_iter().filter_map(affinity).collect()
}

/// Whether the interrupt's name is that of a queue, and not of configuration, errors or commands.
fn carries_packets(table: &str, number: u32) -> bool {
    let line = table.lines().find(|line| line.trim_start().starts_with(&format!("{number}:")));
    let name = line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_lowercase();
    QUEUE_WORDS.iter().any(|word| name.contains(word))
}

fn has_process(root: &Path, wanted: &str) -> bool {
    names_in(root.join("proc")).iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).any(
        |pid| {
            fs::read_to_string(root.join("proc").join(pid).join("comm"))
                .is_ok_and(|comm| comm.trim() == wanted)
        },
    )
}

fn slices(root: &Path) -> Vec<(String, String)> {
    if !root.join("run/systemd/system").is_dir() {
        return Vec::new();
    }
    let ask = |unit: &str| Some((unit.to_owned(), tools::allowed_cores(root, unit)?));
    SLICES.iter().filter_map(|unit| ask(unit)).collect()
}

/// Where systemd keeps everything that is not ours.
const SLICES: [&str; 3] = ["system.slice", "user.slice", "init.scope"];
const QUEUE_WORDS: [&str; 6] = ["rx", "tx", "input", "output", "queue", "comp"];
const CORES_MAX: usize = 4096;
const ENTRIES_MAX: usize = 65_536;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine of four cores with one network card of two queues.
    pub(in crate::tune) fn machine() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/net/core/rmem_max", "4194304\n");
        put("proc/sys/net/core/wmem_max", "67108864\n");
        put("proc/sys/net/core/default_qdisc", "pfifo_fast\n");
        put("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
        put("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n");
        put("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n");
        put("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n");
        put("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic bbr\n");
        put("proc/sys/vm/nr_hugepages", "2\n");
        put(
            "proc/meminfo",
            "HugePages_Total:       2\nHugePages_Free:        1\nHugepagesize:       2048 kB\n",
        );
        put(
            "proc/interrupts",
            " CPU0\n 40: 1 PCI-MSI x nic-config\n 41: 1 PCI-MSI x nic-rx-0\n 42: 1 PCI-MSI x nic-tx-1\n",
        );
        for irq in [40, 41, 42] {
            put(&format!("proc/irq/{irq}/smp_affinity_list"), "0-3\n");
            put(&format!("sys/class/net/eth0/device/msi_irqs/{irq}"), "msix\n");
        }
        put("sys/class/net/eth0/operstate", "up\n");
        put("sys/class/net/lo/operstate", "unknown\n");
        put("sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n");
        put("sys/class/net/eth0/queues/tx-1/xps_cpus", "0\n");
        put("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n");
        put("sys/devices/system/cpu/online", "0-3\n");
        directory
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(list("0-2,7, 9"), [0, 1, 2, 7, 9]);
        assert_eq!(list("x,3-1"), Vec::<u16>::new());
        assert_eq!(list("0-65535").len(), CORES_MAX);
    }

    #[test]
    fn a_machine_is_read() {
        let machine = machine();
        let facts = Facts::read(machine.path(), &[]);
        assert_eq!(facts.cores, [0, 1, 2, 3]);
        assert_eq!((facts.hugepage_bytes, facts.hugepages), (2 << 20, (2, 1)));
        let [eth0] = &facts.interfaces[..] else { panic!("{facts:?}") };
        assert_eq!(
            eth0.interrupts,
            [(41, "0-3".to_owned()), (42, "0-3".to_owned())],
            "not the configuration's"
        );
        assert_eq!((eth0.transmit.len(), eth0.near.len()), (2, 4));
        assert!(facts.slices.is_empty() && !facts.has_irqbalance);
    }

    #[test]
    fn an_empty_host_has_no_facts() {
        let nowhere = tempfile::tempdir().unwrap();
        let facts = Facts::read(nowhere.path(), &["eth9".to_owned()]);
        assert!(facts.sysctls.is_empty() && facts.interfaces[0].interrupts.is_empty());
    }
}
