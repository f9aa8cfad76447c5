//! Two dataplanes over loopback, and what sending something from one to the other costs both together.
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::measure::Cost;
use crate::node::{Node, Shape};
use crate::peers::free_port;
use crate::scratch::Scratch;

/// A sender and a receiver.
pub struct Pair {
    sender: Node,
    receiver: Node,
    shape: Shape,
    next_job: u64,
}

impl Pair {
    /// Starts both in the scratch directory's `pair`.
    ///
    /// # Errors
    /// One does not come up.
    pub fn start(scratch: &Scratch, shape: Shape) -> Result<Self> {
        let root = scratch.fresh("pair")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let sender = Node::start(&root.join("a"), shape, 0, "")?;
        let receiver = Node::start(&root.join("b"), shape, shape.workers, &address)?;
        sender.plan(shape, &receiver, &address)?;
        receiver.plan(shape, &sender, "")?;
        sender.await_plan()?;
        receiver.await_plan()?;
        Ok(Self { sender, receiver, shape, next_job: 1 })
    }

    /// Sends a file or tree and counts what both processes used for it, the handshakes of its lanes included.
    ///
    /// # Errors
    /// The job fails.
    pub fn send(&mut self, source: &Path, bytes: u64) -> Result<Cost> {
        let (start, before) = (Instant::now(), self.sender.cpu()? + self.receiver.cpu()?);
        self.sender.send(self.next_job, source, self.shape.lanes)?;
        self.next_job += 1;
        let wall_s = start.elapsed().as_secs_f64();
        let cpu_s = (self.sender.cpu()? + self.receiver.cpu()? - before).as_secs_f64();
        Ok(Cost { wall_s, cpu_s, bytes })
    }

    /// Where things arrive.
    #[must_use]
    pub fn arrived(&self) -> std::path::PathBuf {
        self.receiver.root.join("export")
    }

    /// Most resident bytes so far: sender, receiver.
    ///
    /// # Errors
    /// One is gone.
    pub fn peak_resident_bytes(&self) -> Result<(u64, u64)> {
        Ok((self.sender.peak_resident_bytes()?, self.receiver.peak_resident_bytes()?))
    }
}
