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

use crate::bpf::{Interfaces, Loading, Options, Policy, Programs, Report, Unavailable};
use crate::worker::WorkerUp;

/// Programs in the kernel.
pub struct Kernel {
    objects: Vec<PathBuf>,
    node: String,
    programs: Option<Programs>,
    /// Programs that are being loaded, for the policy that is wanted by then.
    loading: Option<Loading>,
    policy: Policy,
    /// Of what could not be loaded.
    trouble: Option<Report>,
    read: Option<Instant>,
}

impl Kernel {
    /// Nothing is loaded yet; the programs will come from the first of these files that is there.
    #[must_use]
    pub fn new(objects: Vec<PathBuf>) -> Self {
        let policy = Policy::default();
        let node = String::new();
        Self { objects, node, programs: None, loading: None, policy, trouble: None, read: None }
    }

    /// Puts the policy in force, now or when what the rights allow is loaded: see [`Kernel::settle`]. The lanes of a door
    /// that listens at these ports are bulk. What outlives this process is pinned under the name of the `node`.
    ///
    /// The text for operators comes back.
    pub fn apply(&mut self, policy: &Policy, ports: &[u16], node: &str) -> String {
        let is_same = self.policy == *policy;
        self.policy = policy.clone();
        node.clone_into(&mut self.node);
        if policy.is_off {
            self.programs = None;
            crate::bpf::forget_pins(&pins(node));
            self.trouble = Some(Report::off("ebpf.enabled is false"));
            return "ebpf classifier\toff\tebpf.enabled is false\n".to_owned();
        }
        match self.programs.take() {
            Some(programs) if is_same => {
                self.programs = Some(programs);
                self.text()
            }
            Some(programs) => self.put_in_force(Ok(programs)),
            None => self.load(ports),
        }
    }

    /// Takes over what has been loaded meanwhile; then the text for operators comes back. Call it often: it costs nothing.
    pub fn settle(&mut self) -> Option<String> {
        let loaded = self.loading.as_ref()?.finished()?;
        self.loading = None;
        if self.policy.is_off {
            drop(loaded);
            // It may have pinned maps after they were forgotten.
            crate::bpf::forget_pins(&pins(&self.node));
            return None;
        }
        Some(self.put_in_force(loaded))
    }

    fn load(&mut self, ports: &[u16]) -> String {
        if self.loading.is_none() {
            let options = Options {
                objects: self.objects.clone(),
                interfaces: Interfaces::External,
                ports: ports.iter().map(|&port| (port, Class::Bulk)).collect(),
                pins: Some(pins(&self.node)),
            };
            match Loading::start(options) {
                Ok(loading) => self.loading = Some(loading),
                Err(error) => return self.put_in_force(Err(error)),
            }
        }
        self.trouble = Some(Report::off(LOADING));
        format!("ebpf classifier\toff\t{LOADING}\n")
    }

    fn put_in_force(&mut self, loaded: Result<Programs, Unavailable>) -> String {
        let applied = loaded.and_then(|mut programs| programs.apply(&self.policy).map(|()| programs));
        match applied {
            Ok(programs) => {
                self.programs = Some(programs);
                self.text()
            }
            Err(error) => {
                tracing::warn!(%error, "packets are not counted by class; everything else works");
                self.trouble = Some(error.report());
                format!("ebpf classifier\toff\t{error}\n")
            }
        }
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

const LOADING: &str = "the kernel still checks the programs";
/// Flows and the state of the programs are read so often; each reading costs a system call or two per flow.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// Where the unit shows the node's folder, as the user dwcp may not look where it is; then where it is.
const PINS_ROOTS: [&str; 2] = ["/run/dwcp-bpf", "/sys/fs/bpf/dwcp"];

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn settled(kernel: &mut Kernel) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(text) = kernel.settle() {
                return text;
            }
            assert!(Instant::now() < deadline, "loading does not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_loaded_is_said_when_it_is_done_and_only_where_it_is_still_wanted() {
        let mut kernel = Kernel::new(vec![PathBuf::from("/nonexistent/object")]);
        let (on, off) = (Policy::default(), Policy { is_off: true, ..Policy::default() });
        assert!(kernel.apply(&on, &[], "features-test").contains(LOADING));
        // Another plan begins no second thread.
        assert!(kernel.apply(&on, &[], "features-test").contains(LOADING));
        assert!(settled(&mut kernel).contains("/nonexistent/object"));
        assert_eq!(kernel.settle(), None);
        assert!(kernel.apply(&on, &[], "features-test").contains(LOADING));
        assert!(kernel.apply(&off, &[], "features-test").contains("ebpf.enabled"));
        let deadline = Instant::now() + PATIENCE;
        while kernel.loading.is_some() {
            assert_eq!(kernel.settle(), None);
            assert!(Instant::now() < deadline, "loading does not end");
        }
        assert!(kernel.apply(&on, &[], "features-test").contains(LOADING));
        assert!(settled(&mut kernel).contains("/nonexistent/object"));
    }
}
