//! Two dataplanes at the ends of a long link, with the settings that they have out of the box: 32 lanes to begin with, TLS
//! 1.3, buffers as the kernel makes them. Used by the benches `wan`, `versions` and `tunnel`.
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use dwcp_abi::link::{Setup, Transport};
use dwcp_abi::shm::{NodeCounter, WorkerCounter};
use dwcp_wan::Namespace;

use crate::node::{Cipher, Node, Shape};
use crate::scratch::Scratch;
use crate::setting;

/// A sender and a receiver.
pub struct FarPair {
    sender: Node,
    receiver: Node,
    next_job: u64,
}

impl FarPair {
    /// Starts both; the second listens at this address. `congestion` is one of [`crate::node`].
    ///
    /// # Errors
    /// One does not come up.
    pub fn start(
        scratch: &Scratch,
        (first, second): (&Namespace, &Namespace),
        address: IpAddr,
        congestion: u8,
    ) -> Result<Self> {
        Self::start_with(scratch, (first, second), address, congestion, (&[], &[]))
    }

    /// The same with more of a plan for each, such as tunnels.
    ///
    /// # Errors
    /// One does not come up.
    pub fn start_with(
        scratch: &Scratch,
        (first, second): (&Namespace, &Namespace),
        address: IpAddr,
        congestion: u8,
        (near, far): (&[Setup<'_>], &[Setup<'_>]),
    ) -> Result<Self> {
        let root = scratch.fresh("pair")?;
        let address = format!("{address}:9000");
        let shape = Shape { workers: 1, lanes: INITIAL_STREAMS, cipher: Cipher::Tls };
        let sender = first.run(|| Node::start(&root.join("a"), shape, 0, ""))?;
        let receiver = second.run(|| Node::start(&root.join("b"), shape, 1, &address))?;
        let transport = Transport {
            min_streams: 16,
            congestion,
            connect_timeout_ms: 30_000,
            read_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            codec: 3,
            codec_level: 3,
            deltas: true,
            baseline_store_bytes: 4 << 30,
            ..shape.transport()
        };
        sender.plan_more(transport, &receiver, &address, near)?;
        receiver.plan_more(transport, &sender, "", far)?;
        sender.await_plan()?;
        receiver.await_plan()?;
        Ok(Self { sender, receiver, next_job: 1 })
    }

    /// Sends a file or tree and waits until it is durable at the other end.
    ///
    /// # Errors
    /// The job does not end well.
    pub fn send(&mut self, source: &Path) -> Result<()> {
        let job = self.next_job;
        self.next_job += 1;
        self.sender.send(job, source, lanes())
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// The dataplane takes no command.
    pub fn begin(&mut self, source: &Path) -> Result<()> {
        let job = self.next_job;
        self.next_job += 1;
        self.sender.begin(job, source, lanes())
    }

    /// Plain bytes that the receiver has written so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn bytes_written(&self) -> Result<u64> {
        self.receiver.figure(WorkerCounter::PlainBytesReceived)
    }

    /// Versions that the sender keeps.
    ///
    /// # Errors
    /// It is gone.
    pub fn kept(&self) -> Result<u64> {
        self.sender.node_figure(NodeCounter::BaselinesKept)
    }

    /// Where things arrive.
    #[must_use]
    pub fn arrived(&self) -> PathBuf {
        self.receiver.root.join("export")
    }
}

/// What the order asks for; 0 = what the settings say.
fn lanes() -> u16 {
    setting("DWCP_BENCH_LANES", 0) as u16
}

/// The default of `transport.initial_streams`.
const INITIAL_STREAMS: u16 = 32;
