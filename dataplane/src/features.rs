//! What of the kernel is in use and what is not, with reasons: said once in the log, shown by `dwcp doctor`, and for
//! the programs in the kernel kept up to date.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dwcp_abi::bpf::{Class, Direction, Guarded};
use dwcp_abi::shm::{FlowRecord, NodeCounter, NodeFigures, ProgramFlag};
use dwcp_sys::link::{Link, NodeRegion};
use dwcp_sys::proactor::Backend;

use crate::bpf::{Interfaces, Options, Policy, Programs, Report, Unavailable, object_candidates};
use crate::worker::WorkerUp;

/// Programs in the kernel.
#[derive(Default)]
pub struct Kernel {
    programs: Option<Programs>,
    policy: Policy,
    /// Of what could not be loaded.
    trouble: Option<Report>,
    read: Option<Instant>,
}

impl Kernel {
    /// Loads what the rights allow and puts the policy in force. The lanes of a door that listens at these ports are
    /// bulk. What outlives this process is pinned under the name of the `node`.
    ///
    /// The text for operators comes back.
    pub fn apply(&mut self, policy: &Policy, ports: &[u16], node: &str) -> String {
        if policy.is_off {
            self.programs = None;
            crate::bpf::forget_pins(&pins(node));
            self.trouble = Some(Report::off("ebpf.enabled is false"));
            return "ebpf classifier\toff\tebpf.enabled is false\n".to_owned();
        }
        if self.programs.is_some() && self.policy == *policy {
            return self.text();
        }
        self.policy = policy.clone();
        match self.load(policy, ports, node) {
            Ok(()) => self.text(),
            Err(error) => {
                tracing::warn!(%error, "packets are not counted by class; everything else works");
                self.programs = None;
                self.trouble = Some(error.report());
                format!("ebpf classifier\toff\t{error}\n")
            }
        }
    }

    fn load(&mut self, policy: &Policy, ports: &[u16], node: &str) -> Result<(), Unavailable> {
        let mut programs = match self.programs.take() {
            Some(programs) => programs,
            None => Programs::load(Options {
                objects: object_candidates(),
                interfaces: Interfaces::External,
                ports: ports.iter().map(|&port| (port, Class::Bulk)).collect(),
                pins: Some(pins(node)),
            })?,
        };
        programs.apply(policy)?;
        self.programs = Some(programs);
        Ok(())
    }

    fn text(&self) -> String {
        let interfaces: Vec<&str> = self.programs.iter().flat_map(Programs::interfaces).collect();
        format!("ebpf classifier\ton\tcount on {}\n", interfaces.join(", "))
    }

    /// Says whom the guard never holds back.
    pub fn know(&mut self, addresses: BTreeSet<IpAddr>) {
        let Some(programs) = &mut self.programs else { return };
        if let Err(error) = programs.set_known(addresses) {
            tracing::warn!(%error, "the guard does not know the peers' addresses");
        }
    }

    /// Adds what the programs counted; about once a second shows flows and the state of the programs.
    pub fn publish(&mut self, figures: &mut NodeFigures, region: &NodeRegion, now_ns: u64) {
        if let Some(programs) = &mut self.programs {
            programs.refresh();
            if let Err(error) = count(programs, figures) {
                tracing::warn!(%error, "the programs' counters cannot be read; they are unloaded");
                self.trouble = Some(error.report());
                self.programs = None;
            }
        }
        let now = Instant::now();
        if self.read.is_some_and(|at| now.duration_since(at) < READ_INTERVAL) {
            return;
        }
        self.read = Some(now);
        let report = match (&self.programs, &self.trouble) {
            (Some(programs), _) => programs.report(),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => Report::off("no plan came yet"),
        };
        region.kernel_writer().publish(report.text());
        let flows = self.programs.as_mut().map_or(Ok(Vec::new()), |programs| programs.flows(now));
        match flows {
            Ok(flows) => {
                let records = flows.iter().map(|reading| FlowRecord {
                    key: reading.key,
                    flow: reading.flow,
                    bytes_per_s: reading.bytes_per_s,
                });
                region.flows_writer().publish(records, flows.len() as u64, now_ns);
            }
            Err(error) => tracing::debug!(%error, "flows cannot be read"),
        }
    }
}

fn count(programs: &Programs, figures: &mut NodeFigures) -> Result<(), Unavailable> {
    let snapshot = programs.read()?;
    figures.set(NodeCounter::OddPackets, snapshot.odd());
    for (core, counters) in snapshot.cores.iter().enumerate() {
        for direction in Direction::ALL {
            for class in Class::ALL {
                figures.set_flow(core, direction, class, counters.counter(direction, class));
            }
        }
    }
    let mut flags = ProgramFlag::ClassifyIngress.bit() | ProgramFlag::ClassifyEgress.bit();
    if programs.paces() {
        flags |= ProgramFlag::SocketOperations.bit();
    }
    if programs.guards() {
        flags |= ProgramFlag::Guard.bit();
    }
    figures.set(NodeCounter::Programs, flags);
    let guarded = programs.guarded()?;
    let sum = |which: [Guarded; 2]| which.iter().map(|&one| guarded[one as usize]).sum();
    figures.set(NodeCounter::GuardPassed, sum([Guarded::Known, Guarded::Stranger]));
    figures.set(NodeCounter::GuardDropped, sum([Guarded::SourceRate, Guarded::TotalRate]));
    let [delayed, dropped] = programs.departures()?;
    figures.set(NodeCounter::DeparturesDelayed, delayed);
    figures.set(NodeCounter::DeparturesDropped, dropped);
    Ok(())
}

/// Shows the features of the workers and `rest` (lines of the kernel's programs and of RDMA) to control, and in the log.
pub fn publish(link: &Link, workers: &[WorkerUp], rest: &str) {
    let mut text = String::new();
    let cores: Vec<String> =
        workers.iter().map(|worker| worker.core.map_or("any".to_owned(), |core| core.to_string())).collect();
    // Writing to a string cannot fail.
    let _written = writeln!(text, "workers\ton\t{} on cores {}", workers.len(), cores.join(", "));
    if let Some(first) = workers.first() {
        let backend = match first.features.backend() {
            Backend::IoUring => "io_uring",
            Backend::Epoll => "epoll",
        };
        let _written = writeln!(text, "io backend\ton\t{backend}");
        for feature in first.features.iter() {
            let (state, reason) = match &feature.refusal {
                None => ("on", ""),
                Some(reason) => ("off", reason.as_str()),
            };
            let _written = writeln!(text, "{}\t{state}\t{reason}", feature.name);
        }
    }
    text.push_str(rest);
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (name, state, reason) = (fields.next(), fields.next(), fields.next());
        tracing::info!(feature = name, state, reason, "probe");
    }
    link.node.features_writer().publish(&text);
}

/// Where the pins of a node are.
fn pins(node: &str) -> (PathBuf, String) {
    let root = PINS_ROOTS.into_iter().map(PathBuf::from).find(|root| root.exists());
    (root.unwrap_or_else(|| PathBuf::from(PINS_ROOTS[1])), node.to_owned())
}

/// Flows and the state of the programs are read so often; each reading costs a system call or two per flow.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// Where the unit shows the node's folder, as the user dwcp may not look where it is; then where it is.
const PINS_ROOTS: [&str; 2] = ["/run/dwcp-bpf", "/sys/fs/bpf/dwcp"];
