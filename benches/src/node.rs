//! A dataplane process, and the control that the bench plays for it.
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_abi::codec::Encoded as _;
use dwcp_abi::link::{
    Access, Attach, Attached, Command, Event, Export, JobOptions, LINK_VERSION, Outcome, Peer, PlanEnd,
    SendJob, Setup, Transport,
};
use dwcp_abi::shm::{Consumer, NodeCounter, Producer, RECORD_BYTES_MAX, WorkerCounter};
use dwcp_abi::wire::TreeOptions;
use dwcp_sys::link::{Link, send_message};
use dwcp_sys::shm::Part;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::measure::{peak_resident_bytes, process_cpu};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a dataplane is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Workers.
    pub workers: u16,
    /// Lanes of a job.
    pub lanes: u16,
    /// Whether payload is encrypted.
    pub cipher: Cipher,
}

impl Shape {
    /// Settings for short paths, where many lanes cost more than they bring.
    #[must_use]
    pub fn transport(self) -> Transport {
        Transport {
            min_streams: 1,
            initial_streams: self.lanes,
            max_streams: 256,
            encrypt: self.cipher == Cipher::Tls,
            congestion: CUBIC,
            send_buffer_size: 0,
            recv_buffer_size: 0,
            pacing_bytes_per_s: 0,
            connect_timeout_ms: 5_000,
            read_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            codec: 0,
            codec_level: 0,
            codec_adaptive: true,
            codec_ratio_min_thousandths: 1_100,
            deltas: false,
            baseline_store_bytes: 0,
        }
    }
}

/// Whether payload is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// TLS off after the handshake.
    Clear,
    /// TLS 1.3.
    Tls,
}

/// A running dataplane.
pub struct Node {
    /// Its directory; `export` in it may be written by the peer.
    pub root: PathBuf,
    process: Child,
    socket: UnixStream,
    attached: Attached,
    link: Link,
    commands: Vec<Producer<Part>>,
    events: Vec<Consumer<Part>>,
}

impl Node {
    /// Starts one under `root`, on the cores `first_core`, `first_core + 1`, …
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(root: &Path, shape: Shape, first_core: u16, listen: &str) -> Result<Self> {
        fs::create_dir_all(root.join("export"))?;
        let program = binary()?;
        let mut process = Process::new(&program)
            .arg("--state-dir")
            .arg(root.join("state"))
            .arg("--runtime-dir")
            .arg(root.join("run"))
            .env("DWCP_LOG_LEVEL", std::env::var("DWCP_LOG_LEVEL").unwrap_or("error".to_owned()))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{}: build it first, as cargo xtask bench does", program.display()))?;
        let socket = connect(&root.join("run/dataplane.sock"), &mut process)?;
        let online = std::thread::available_parallelism()?.get() as u16;
        let cores: Vec<u8> =
            (0..shape.workers).flat_map(|worker| ((first_core + worker) % online).to_le_bytes()).collect();
        let attach = Attach {
            version: LINK_VERSION,
            workers: shape.workers,
            cores: &cores,
            backend: 0,
            hugepages: true,
            buffer_bytes: BUFFER_BYTES,
            listen: listen.as_bytes(),
        };
        let (attached, link) = Link::request(&socket, attach)?;
        let regions = || link.workers.iter().map(|worker| &worker.region);
        let commands = regions().map(|region| region.command_producer()).collect::<Result<_, _>>()?;
        let events = regions().map(|region| region.event_consumer()).collect::<Result<_, _>>()?;
        Ok(Self { root: root.to_owned(), process, socket, attached, link, commands, events })
    }

    /// Puts a plan in force: this peer at this address (empty = it dials us), and our export for it.
    ///
    /// # Errors
    /// The dataplane is gone.
    pub fn plan(&self, shape: Shape, peer: &Self, address: &str) -> Result<()> {
        self.plan_with(shape.transport(), peer, address)
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// The dataplane is gone.
    pub fn plan_with(&self, transport: Transport, peer: &Self, address: &str) -> Result<()> {
        self.plan_more(transport, peer, address, &[])
    }

    /// The same with more messages, such as tunnels.
    ///
    /// # Errors
    /// The dataplane is gone.
    pub fn plan_more(
        &self,
        transport: Transport,
        peer: &Self,
        address: &str,
        more: &[Setup<'_>],
    ) -> Result<()> {
        let fingerprint = peer.attached.fingerprint;
        let export = self.root.join("export");
        let messages = [
            Setup::Transport(transport),
            Setup::Peer(Peer {
                name: b"peer",
                fingerprint,
                address: address.as_bytes(),
                pacing_bytes_per_s: 0,
            }),
            Setup::Export(Export {
                name: b"data",
                path: export.as_os_str().as_encoded_bytes(),
                access: Access::ReadWrite,
                peers: b"",
                privileged: false,
            }),
        ];
        for message in messages.iter().chain(more) {
            send_message(&self.socket, message)?;
        }
        Ok(send_message(&self.socket, &Setup::PlanEnd(PlanEnd { generation: 1 }))?)
    }

    /// Waits until the plan is in force: a command that overtakes it finds no peer.
    ///
    /// # Errors
    /// It never is.
    pub fn await_plan(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // A page that is being written is read again.
        let is_taken =
            || self.link.node.figures().is_ok_and(|figures| figures.value(NodeCounter::PlanGeneration) > 0);
        while !is_taken() {
            ensure!(Instant::now() < deadline, "a plan was not taken");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Sends a file or tree into the peer's export and waits until it is durable there.
    ///
    /// # Errors
    /// The job does not end well.
    pub fn send(&mut self, job: u64, source: &Path, lanes: u16) -> Result<()> {
        self.begin(job, source, lanes)?;
        self.await_end(job)
    }

    /// Sends as [`Self::send`] does, without waiting.
    ///
    /// # Errors
    /// The dataplane takes no command.
    pub fn begin(&mut self, job: u64, source: &Path, lanes: u16) -> Result<()> {
        let path = source.as_os_str().as_encoded_bytes();
        let mut sources = (path.len() as u16).to_le_bytes().to_vec();
        sources.extend(path);
        let worker = (job % u64::from(self.attached.workers)) as usize;
        let options = JobOptions { streams: lanes, tree: TreeOptions::NONE };
        let order = SendJob {
            job,
            attempt: 1,
            peer: b"peer",
            destination: b"data/",
            options,
            filters: b"",
            sources: &sources,
        };
        let mut record = vec![0; RECORD_BYTES_MAX];
        let length = Command::Send(order).encode(&mut record)?;
        self.commands[worker].push(&record[..length])?;
        self.link.workers[worker].command_doorbell.ring()?;
        Ok(())
    }

    /// A figure of all workers together.
    ///
    /// # Errors
    /// A worker died while it wrote its figures.
    pub fn figure(&self, counter: WorkerCounter) -> Result<u64> {
        let pages = self.link.workers.iter().map(|worker| worker.region.stats());
        pages.map(|page| Ok(page?.value(counter))).sum()
    }

    /// A figure of the process.
    ///
    /// # Errors
    /// It died while it wrote its figures.
    pub fn node_figure(&self, counter: NodeCounter) -> Result<u64> {
        Ok(self.link.node.figures()?.value(counter))
    }

    fn await_end(&mut self, wanted: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut record = vec![0; RECORD_BYTES_MAX];
        loop {
            for events in &mut self.events {
                while let Some(length) = events.pop(&mut record)? {
                    let Event::Finished(end) = Event::decode(&record[..length])? else { continue };
                    let text = String::from_utf8_lossy(end.text);
                    ensure!(end.outcome == Outcome::Done && text.is_empty(), "{:?}: {text}", end.outcome);
                    if end.job == wanted {
                        return Ok(());
                    }
                }
            }
            ensure!(Instant::now() < deadline, "job {wanted} did not end");
            self.wait_for_event()?;
        }
    }

    fn wait_for_event(&self) -> Result<()> {
        if self.events.iter().all(Consumer::prepare_sleep) {
            let doorbells = self.link.workers.iter().map(|worker| worker.event_doorbell.as_fd());
            let mut polled: Vec<PollFd<'_>> =
                doorbells.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut polled, PollTimeout::from(1000u16))?;
        }
        for (worker, events) in self.link.workers.iter().zip(&self.events) {
            events.wake();
            worker.event_doorbell.answer()?;
        }
        Ok(())
    }

    /// CPU time of all its threads so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> Result<Duration> {
        process_cpu(self.process.id())
    }

    /// Most resident bytes so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        peak_resident_bytes(self.process.id())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended before.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The dataplane that was built with this bench, or the one that the environment names.
fn binary() -> Result<PathBuf> {
    match std::env::var_os("DWCP_BENCH_DATAPLANE") {
        Some(path) => Ok(path.into()),
        None => Ok(std::env::current_exe()?.with_file_name("dwcp-dataplane")),
    }
}

fn connect(path: &Path, process: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) => ensure!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        if let Some(status) = process.try_wait()? {
            bail!("the dataplane ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The default of `buffer_memory`.
pub const BUFFER_BYTES: u64 = 64 << 20;
/// `Transport::congestion` for cubic.
pub const CUBIC: u8 = 2;
/// `Transport::congestion` as it is out of the box.
pub const AUTO: u8 = dwcp_abi::link::CONGESTION_AUTO;
/// `Transport::congestion` for bbr.
pub const BBR: u8 = 1;
