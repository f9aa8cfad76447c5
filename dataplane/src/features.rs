//! What of the kernel is in use and what is not, with reasons: said once in the log, shown by `dwcp doctor`, and for
//! the programs in the kernel kept up to date.
use std::fmt::Write as _;

use dwcp_abi::bpf::{Class, Direction};
use dwcp_abi::shm::{NodeCounter, NodeFigures, ProgramFlag};
use dwcp_sys::link::Link;
use dwcp_sys::proactor::Backend;

use crate::bpf::{Interfaces, Options, Programs, object_candidates};
use crate::worker::WorkerUp;

/// Programs in the kernel.
#[derive(Default)]
pub struct Kernel {
    classifier: Option<Programs>,
}

impl Kernel {
    /// Loads what the rights allow, counting the lanes of a door that listens at these ports as bulk.
    ///
    /// The text for operators is the second part.
    #[must_use]
    pub fn load(ports: &[u16]) -> (Self, String) {
        let options = Options {
            objects: object_candidates(),
            interfaces: Interfaces::External,
            ports: ports.iter().map(|&port| (port, Class::Bulk)).collect(),
            pins: None,
        };
        match Programs::load(options) {
            Ok(classifier) => {
                let interfaces: Vec<&str> = classifier.interfaces().collect();
                let text = format!("ebpf classifier\ton\tcounts on {}\n", interfaces.join(", "));
                (Self { classifier: Some(classifier) }, text)
            }
            Err(error) => {
                tracing::warn!(%error, "packets are not counted by class; everything else works");
                (Self { classifier: None }, format!("ebpf classifier\toff\t{error}\n"))
            }
        }
    }

    /// Adds what the programs counted.
    pub fn publish(&mut self, figures: &mut NodeFigures) {
        let Some(classifier) = &mut self.classifier else { return };
        classifier.refresh();
        let snapshot = match classifier.read() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%error, "the classifier's counters cannot be read; it is unloaded");
                self.classifier = None;
                return;
            }
        };
        figures.set(NodeCounter::Programs, ProgramFlag::ALL.iter().fold(0, |all, flag| all | flag.bit()));
        figures.set(NodeCounter::OddPackets, snapshot.odd());
        for (core, counters) in snapshot.cores.iter().enumerate() {
            for direction in Direction::ALL {
                for class in Class::ALL {
                    figures.set_flow(core, direction, class, counters.counter(direction, class));
                }
            }
        }
    }
}

/// Shows the features of the workers and of the kernel's programs to control, and in the log.
pub fn publish(link: &Link, workers: &[WorkerUp], kernel: &str) {
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
    text.push_str(kernel);
    text.push_str("rdma\toff\tnot in this version: lanes are TCP connections\n");
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (name, state, reason) = (fields.next(), fields.next(), fields.next());
        tracing::info!(feature = name, state, reason, "probe");
    }
    link.node.features_writer().publish(&text);
}
