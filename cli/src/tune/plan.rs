//! The core of tuning: facts in, steps out. It reads nothing and changes nothing.
use dwcp_config::{Config, Cores, Hugepages, LaneCongestion};
use serde::{Deserialize, Serialize};

use super::facts::{Facts, Interface};

/// What is to be done, and what is left as it is although it could be better.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// One line each.
    pub(super) notes: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) change: Change,
    /// As it is.
    pub(super) current: String,
    /// As it shall be.
    pub(super) wanted: String,
    /// Why, for people.
    pub(super) why: String,
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Kernel parameters
    Sysctl,
    /// Hugepages for the buffers
    Hugepages,
    /// Queueing disciplines that keep departure times
    Fq,
    /// Interrupts of network cards
    Irq,
    /// Transmit queues of cores
    Xps,
    /// Rings of network cards
    Rings,
    /// Cores for the dataplane alone
    Cpus,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sysctl => "sysctl",
            Self::Hugepages => "hugepages",
            Self::Fq => "fq",
            Self::Irq => "irq",
            Self::Xps => "xps",
            Self::Rings => "rings",
            Self::Cpus => "cpus",
        }
    }
}

/// What is changed; `current` and `wanted` of the step are its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// A file of /proc or /sys, by its path without the first slash.
    File(String),
    /// The queueing discipline of an interface with so many transmit queues; what the kernel chose comes back when it is
    /// removed.
    Discipline { interface: String, queues: u32 },
    /// Both rings of an interface, `rx N tx N`.
    Rings { interface: String },
    /// `AllowedCPUs` of a unit of systemd, until the next boot.
    AllowedCores { unit: String },
}

impl Change {
    /// Its name for people, and what tells it from others.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => match path.strip_prefix("proc/sys/") {
                Some(name) => name.replace('/', "."),
                None => format!("/{path}"),
            },
            Self::Discipline { interface, .. } => format!("queueing of {interface}"),
            Self::Rings { interface } => format!("rings of {interface}"),
            Self::AllowedCores { unit } => format!("AllowedCPUs of {unit}"),
        }
    }
}

/// Everything that is worth doing on this host for this configuration; of `only` these kinds, or of all.
pub(super) fn plan(facts: &Facts, config: &Config, only: &[Kind]) -> Plan {
    let mut plan = Plan::default();
    plan.sysctls(facts, config);
    plan.hugepages(facts, config);
    for interface in &facts.interfaces {
        plan.discipline(interface);
        plan.interrupts(facts, interface);
        plan.transmit_queues(interface);
        plan.rings(interface);
    }
    if facts.interfaces.is_empty() {
        plan.notes.push("no interface with a device is up: name one with --interface".into());
    }
    plan.cores(facts, config);
    if !only.is_empty() {
        plan.steps.retain(|step| only.contains(&step.kind));
    }
    plan
}

impl Plan {
    fn step(&mut self, kind: Kind, change: Change, current: &str, wanted: String, why: &str) {
        if current != wanted {
            self.steps.push(Step { kind, change, current: current.to_owned(), wanted, why: why.to_owned() });
        }
    }

    fn sysctl(&mut self, facts: &Facts, name: &str, why: &str, wanted: impl Fn(&str) -> Option<String>) {
        let Some(current) = facts.sysctls.get(name) else { return };
        let current = current.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(wanted) = wanted(&current) {
            self.step(Kind::Sysctl, Change::File(format!("proc/sys/{name}")), &current, wanted, why);
        }
    }

    fn sysctls(&mut self, facts: &Facts, config: &Config) {
        let at_least = |current: &str| {
            let value = current.parse::<u64>().ok()?;
            (value < WINDOW_BYTES).then(|| WINDOW_BYTES.to_string())
        };
        let window = "10 Gbit/s over 25 ms hold 32 MB in flight; only the ceiling is raised";
        self.sysctl(facts, "net/core/rmem_max", window, at_least);
        self.sysctl(facts, "net/core/wmem_max", window, at_least);
        for name in ["net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem"] {
            self.sysctl(facts, name, window, |current| {
                let fields: Vec<u64> = current.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
                let &[least, first, most] = &fields[..] else { return None };
                (most < WINDOW_BYTES).then(|| format!("{least} {first} {WINDOW_BYTES}"))
            });
        }
        let warm = "idle lanes of a session stay warm";
        self.sysctl(facts, "net/ipv4/tcp_slow_start_after_idle", warm, |_| Some("0".into()));
        let paced = "interfaces that come up later keep departure times too";
        self.sysctl(facts, "net/core/default_qdisc", paced, |_| Some("fq".into()));
        let wanted = match config.transport.congestion_algorithm {
            LaneCongestion::Auto | LaneCongestion::Bbr => "bbr",
            LaneCongestion::Cubic => "cubic",
            LaneCongestion::Reno => "reno",
            LaneCongestion::Host => return,
        };
        if facts.congestion.is_empty() {
            return;
        }
        if !facts.congestion.iter().any(|name| name == wanted) {
            self.notes.push(format!("congestion control {wanted} is not available: `modprobe tcp_{wanted}`"));
            return;
        }
        let why = "what the node is configured for, for connections that do not choose themselves";
        self.sysctl(facts, "net/ipv4/tcp_congestion_control", why, |_| Some(wanted.into()));
    }

    fn hugepages(&mut self, facts: &Facts, config: &Config) {
        if config.dataplane.hugepages == Hugepages::Never || facts.hugepage_bytes == 0 {
            return;
        }
        let needed = config.dataplane.buffer_memory.0.div_ceil(facts.hugepage_bytes);
        let (total, free) = facts.hugepages;
        let Some(current) = facts.sysctls.get(HUGEPAGES) else { return };
        if free < needed {
            let why = "the dataplane's buffers lie on them, and take fewer entries of the TLB";
            let wanted = (total + needed - free).to_string();
            self.step(Kind::Hugepages, Change::File(format!("proc/sys/{HUGEPAGES}")), current, wanted, why);
        }
    }

    fn discipline(&mut self, interface: &Interface) {
        let Some((kind, is_the_kernels)) = &interface.discipline else { return };
        let has_fq = kind == "fq"
            || kind == "mq"
                && !interface.leaves.is_empty()
                && interface.leaves.iter().all(|leaf| leaf == "fq");
        if has_fq {
            return;
        }
        let name = &interface.name;
        if !is_the_kernels {
            self.notes
                .push(format!("{name}: somebody chose the queueing discipline {kind}: it is left alone"));
            return;
        }
        let queues = interface.transmit.len().max(1) as u32;
        let change = Change::Discipline { interface: name.clone(), queues };
        let why = "keeps departure times: rates for each peer, and TCP's pacing without timers of its own";
        let wanted = if queues > 1 { "mq, fq on each queue" } else { "fq" };
        self.step(Kind::Fq, change, kind, wanted.into(), why);
    }

    fn interrupts(&mut self, facts: &Facts, interface: &Interface) {
        if interface.interrupts.is_empty() || interface.near.len() < 2 {
            return;
        }
        if facts.has_irqbalance {
            let name = &interface.name;
            self.notes.push(format!("{name}: irqbalance moves its interrupts: they are left to it"));
            return;
        }
        let why = "each queue has one core near the card, and packets stay in its caches";
        for (place, (number, current)) in interface.interrupts.iter().enumerate() {
            let core = interface.near[place % interface.near.len()];
            let change = Change::File(format!("proc/irq/{number}/smp_affinity_list"));
            self.step(Kind::Irq, change, current, core.to_string(), why);
        }
    }

    fn transmit_queues(&mut self, interface: &Interface) {
        let queues = interface.transmit.len();
        if queues < 2 {
            return;
        }
        let why = "each core sends through a queue of its own, without a lock";
        for (queue, current) in interface.transmit.iter().enumerate() {
            let cores = interface.near.iter().copied().filter(|&core| usize::from(core) % queues == queue);
            let change = Change::File(format!("sys/class/net/{}/queues/tx-{queue}/xps_cpus", interface.name));
            self.step(Kind::Xps, change, current, mask(cores, current), why);
        }
    }

    fn rings(&mut self, interface: &Interface) {
        let Some([receive, transmit]) = interface.rings else { return };
        let wanted = |(now, most): (u32, u32)| now.max(most.min(RING_ENTRIES));
        let text = |receive, transmit| format!("rx {receive} tx {transmit}");
        let change = Change::Rings { interface: interface.name.clone() };
        let why = "bursts of a fast link wait in the ring instead of being dropped";
        let (now, wanted) = (text(receive.0, transmit.0), text(wanted(receive), wanted(transmit)));
        self.step(Kind::Rings, change, &now, wanted, why);
    }

    fn cores(&mut self, facts: &Facts, config: &Config) {
        if facts.slices.is_empty() {
            self.notes.push("no systemd: cores are not kept for the dataplane".into());
            return;
        }
        let Cores::List(own) = &config.dataplane.cores else {
            self.notes
                .push("dataplane.cores is auto: name cores there to keep everything else off them".into());
            return;
        };
        let others: Vec<String> =
            facts.cores.iter().filter(|core| !own.contains(core)).map(u16::to_string).collect();
        if others.is_empty() {
            self.notes.push("dataplane.cores names every core: none is left for everything else".into());
            return;
        }
        let why = "everything else keeps off the workers' cores; the node's own slice may use all";
        for (unit, current) in &facts.slices {
            let change = Change::AllowedCores { unit: unit.clone() };
            self.step(Kind::Cpus, change, current, others.join(" "), why);
        }
    }
}

/// A mask of cores as the kernel writes it: words of 32 bits in hexadecimal, the highest first, as wide as `like`.
fn mask(cores: impl Iterator<Item = u16>, like: &str) -> String {
    let cores: Vec<u16> = cores.collect();
    let most = cores.iter().copied().max().unwrap_or(0);
    let words = like.split(',').count().max(usize::from(most) / 32 + 1);
    let mut bits = vec![0_u32; words];
    for core in cores {
        bits[usize::from(core) / 32] |= 1 << (core % 32);
    }
    let digits = like.split(',').next().map_or(1, str::len).max(1);
    let mut text: Vec<String> = bits.iter().rev().map(|word| format!("{word:08x}")).collect();
    if words == 1 {
        text[0] = format!("{:0digits$x}", bits[0]);
    }
    text.join(",")
}

/// What is read below /proc/sys.
pub(super) const SYSCTLS: [&str; 8] = [
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/core/default_qdisc",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_slow_start_after_idle",
    "net/ipv4/tcp_congestion_control",
    HUGEPAGES,
];
const HUGEPAGES: &str = "vm/nr_hugepages";
/// Ceiling of a socket's buffers; the same as in the packages' sysctl file.
const WINDOW_BYTES: u64 = 32 << 20;
/// More only adds to the queue.
const RING_ENTRIES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::facts;

    fn of_machine(config: &Config) -> Plan {
        let machine = facts::tests::machine();
        plan(&Facts::read(machine.path(), &[]), config, &[])
    }

    fn told(plan: &Plan) -> Vec<(String, &str, &str)> {
        plan.steps
            .iter()
            .map(|step| (step.change.name(), step.current.as_str(), step.wanted.as_str()))
            .collect()
    }

    #[test]
    fn a_machine_out_of_the_box() {
        let plan = of_machine(&Config::default());
        let expected = [
            ("net.core.rmem_max", "4194304", "33554432"),
            ("net.ipv4.tcp_rmem", "4096 131072 6291456", "4096 131072 33554432"),
            ("net.ipv4.tcp_wmem", "4096 16384 4194304", "4096 16384 33554432"),
            ("net.ipv4.tcp_slow_start_after_idle", "1", "0"),
            ("net.core.default_qdisc", "pfifo_fast", "fq"),
            ("net.ipv4.tcp_congestion_control", "cubic", "bbr"),
            ("vm.nr_hugepages", "2", "33"),
            ("/proc/irq/41/smp_affinity_list", "0-3", "0"),
            ("/proc/irq/42/smp_affinity_list", "0-3", "1"),
            ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "0", "5"),
            ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "0", "a"),
        ];
        assert_eq!(told(&plan), expected.map(|(name, current, wanted)| (name.to_owned(), current, wanted)));
        assert_eq!(plan.notes, ["no systemd: cores are not kept for the dataplane"]);
    }

    #[test]
    fn only_what_is_asked_for() {
        let machine = facts::tests::machine();
        let facts = Facts::read(machine.path(), &[]);
        let plan = plan(&facts, &Config::default(), &[Kind::Xps]);
        assert!(plan.steps.len() == 2 && plan.steps.iter().all(|step| step.kind == Kind::Xps));
    }

    fn with_interface(interface: Interface) -> Plan {
        let facts = Facts { interfaces: vec![interface], ..Facts::default() };
        plan(&facts, &Config::default(), &[])
    }

    #[test]
    fn queueing_that_somebody_chose_is_left_alone() {
        let interface = |kind: &str, is_the_kernels, leaves: &[&str]| Interface {
            name: "eth0".into(),
            discipline: Some((kind.into(), is_the_kernels)),
            leaves: leaves.iter().map(|leaf| (*leaf).to_owned()).collect(),
            ..Interface::default()
        };
        assert_eq!(told(&with_interface(interface("fq_codel", true, &[])))[0].2, "fq");
        for fine in [interface("fq", false, &[]), interface("mq", true, &["fq", "fq"])] {
            assert!(with_interface(fine).steps.is_empty());
        }
        let chosen = with_interface(interface("htb", false, &["fq_codel"]));
        assert!(chosen.steps.is_empty() && chosen.notes[0].contains("htb"), "{chosen:?}");
    }

    #[test]
    fn rings_grow_and_never_shrink() {
        let rings = |rings| Interface { name: "eth0".into(), rings: Some(rings), ..Interface::default() };
        assert_eq!(told(&with_interface(rings([(512, 8192), (512, 1024)])))[0].2, "rx 4096 tx 1024");
        assert!(with_interface(rings([(8192, 8192), (1024, 1024)])).steps.is_empty());
    }

    #[test]
    fn interrupts_are_left_to_irqbalance() {
        let interface = Interface {
            name: "eth0".into(),
            interrupts: vec![(7, "0".into())],
            near: vec![1, 2],
            ..Interface::default()
        };
        let facts = Facts { interfaces: vec![interface], has_irqbalance: true, ..Facts::default() };
        let plan = plan(&facts, &Config::default(), &[]);
        assert!(plan.steps.is_empty() && plan.notes[0].contains("irqbalance"));
    }

    #[test]
    fn cores_are_kept_for_a_dataplane_that_names_them() {
        let slices =
            vec![("system.slice".to_owned(), String::new()), ("user.slice".to_owned(), "0 1".to_owned())];
        let facts = Facts { cores: vec![0, 1, 2, 3], slices, ..Facts::default() };
        let mut config = Config::default();
        assert!(plan(&facts, &config, &[]).steps.is_empty(), "not without being told which");
        config.dataplane.cores = Cores::List(vec![2, 3]);
        let steps = plan(&facts, &config, &[]).steps;
        let [step] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(
            (step.change.name().as_str(), step.wanted.as_str()),
            ("AllowedCPUs of system.slice", "0 1")
        );
        config.dataplane.cores = Cores::List(vec![0, 1, 2, 3]);
        assert!(plan(&facts, &config, &[]).steps.is_empty());
    }

    #[test]
    fn masks_are_written_as_the_kernel_does() {
        assert_eq!(mask([0, 2].into_iter(), "0"), "5");
        assert_eq!(mask([0, 2].into_iter(), "00"), "05");
        assert_eq!(mask([33].into_iter(), "00000000,00000000"), "00000002,00000000");
        assert_eq!(mask([33].into_iter(), "0"), "00000002,00000000");
    }
}
