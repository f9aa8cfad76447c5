//! A dataplane process, and the control that the test plays: it attaches, says the plan, and may go away and come
//! back. What control hears is in [`super::events`].
use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{
    Access, Attach, Attached, Class, Command, Export, FetchJob, GuardMode, JobOptions, Kernel, LINK_VERSION,
    Peer, PlanEnd, Rdma, SendJob, Setup, Snapshot, Transport, Tunnel, TunnelAllow,
};
use dwcp_abi::shm::{Consumer, NodeCounter, Producer, RECORD_BYTES_MAX, WorkerCounter};
use dwcp_abi::wire::TreeOptions;
use dwcp_sys::link::{Link, send_message};
use dwcp_sys::shm::Part;
use tempfile::TempDir;

use crate::events::End;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const CLEAR: Shape = Shape { workers: 1, backend: 0, encrypt: false };

pub(crate) struct Node {
    pub(crate) root: PathBuf,
    /// What the next plan says.
    pub(crate) transport: Transport,
    /// Tunnels of the next plan: address to listen at, target; all lead to `peer`.
    pub(crate) tunnels: Vec<(String, String)>,
    /// Hosts and ports that the peer may be connected to.
    pub(crate) allow: Vec<(String, u16)>,
    /// Bytes per second of each bulk connection that it says; 0 = nothing.
    pub(crate) bulk_bytes_per_s: u64,
    /// The RDMA device that the next plan names; none = it wants no RDMA.
    pub(crate) rdma: Option<&'static str>,
    /// What the next jobs leave out.
    pub(crate) filters: Vec<u8>,
    /// Whether peers may decide owners and the like in its export, from the next plan on.
    pub(crate) privileged: bool,
    /// Ceiling of what is sent to each peer; 0 = none.
    pub(crate) peer_bytes_per_s: u64,
    /// How jobs that are ordered from now on treat their trees.
    pub(crate) tree: TreeOptions,
    generation: u64,
    shape: Shape,
    listen: String,
    process: Child,
    control: Option<Control>,
    /// Ends of jobs that were heard of.
    pub(crate) ends: HashMap<u64, End>,
}

/// Control's side of the link.
pub(crate) struct Control {
    socket: UnixStream,
    pub(crate) attached: Attached,
    pub(crate) link: Link,
    commands: Vec<Producer<Part>>,
    pub(crate) events: Vec<Consumer<Part>>,
}

/// What a dataplane is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) workers: u16,
    pub(crate) backend: u8,
    pub(crate) encrypt: bool,
}

/// A peer as the plan names it.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) address: &'a str,
}

fn transport(shape: Shape) -> Transport {
    Transport {
        min_streams: 1,
        initial_streams: 8,
        max_streams: 256,
        encrypt: shape.encrypt,
        congestion: 2,
        send_buffer_size: 0,
        recv_buffer_size: 0,
        pacing_bytes_per_s: 0,
        connect_timeout_ms: 10_000,
        read_timeout_ms: 10_000,
        write_timeout_ms: 10_000,
        codec: 0,
        codec_level: 0,
        codec_adaptive: true,
        codec_ratio_min_thousandths: 1100,
        deltas: false,
        baseline_store_bytes: 1 << 30,
    }
}

/// A port that was free a moment ago.
pub(crate) fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A sender and a receiver that know each other as `peer`.
pub(crate) fn pair(shape: Shape) -> (TempDir, Node, Node) {
    let address = address();
    pair_over(shape, &address, &address)
}

/// A pair whose receiver listens at one address and is dialled at another.
pub(crate) fn pair_over(shape: Shape, listen: &str, dial: &str) -> (TempDir, Node, Node) {
    let directory = TempDir::new().unwrap();
    let mut sender = Node::start(&directory.path().join("a"), shape, "");
    let mut receiver = Node::start(&directory.path().join("b"), shape, listen);
    sender.know(&[receiver.named("peer", dial)]);
    receiver.know(&[sender.named("peer", "")]);
    (directory, sender, receiver)
}

impl Node {
    pub(crate) fn start(root: &Path, shape: Shape, listen: &str) -> Self {
        fs::create_dir_all(root.join("export")).unwrap();
        let process = spawn(root);
        let listen = listen.to_owned();
        let (root, transport) = (root.to_owned(), transport(shape));
        let (control, ends) = (None, HashMap::new());
        let mut node = Self {
            root,
            transport,
            tunnels: Vec::new(),
            allow: Vec::new(),
            bulk_bytes_per_s: 0,
            rdma: None,
            filters: Vec::new(),
            privileged: false,
            peer_bytes_per_s: 0,
            tree: TreeOptions::NONE,
            generation: 0,
            shape,
            listen,
            process,
            control,
            ends,
        };
        node.attach();
        node
    }

    /// `kill -9`, and a new process in its place that knows nothing of the former one's jobs.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    pub(crate) fn kill(&mut self) {
        self.control = None;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.process = spawn(&self.root);
        self.ends.clear();
        self.attach();
    }

    /// Control dies without a word: its socket and its mappings go.
    pub(crate) fn detach(&mut self) {
        self.control = None;
    }

    /// A control comes, the first or a further one.
    pub(crate) fn attach(&mut self) {
        let socket = connect(&self.root.join("run/dataplane.sock"));
        let attach = Attach {
            version: LINK_VERSION,
            workers: self.shape.workers,
            cores: b"",
            backend: self.shape.backend,
            hugepages: true,
            buffer_bytes: 64 << 20,
            listen: self.listen.as_bytes(),
        };
        let (attached, link) = Link::request(&socket, attach).unwrap();
        let commands = link.workers.iter().map(|worker| worker.region.command_producer().unwrap()).collect();
        let events = link.workers.iter().map(|worker| worker.region.event_consumer().unwrap()).collect();
        self.control = Some(Control { socket, attached, link, commands, events });
    }

    pub(crate) fn control(&mut self) -> &mut Control {
        self.control.as_mut().expect("a control is attached")
    }

    pub(crate) fn attached(&self) -> &Attached {
        &self.control.as_ref().expect("a control is attached").attached
    }

    pub(crate) fn named<'a>(&self, name: &'a str, address: &'a str) -> Named<'a> {
        Named { name, fingerprint: self.attached().fingerprint, address }
    }

    /// Says a plan with these peers and one export, `data`, that all of them may read and write.
    pub(crate) fn know(&mut self, peers: &[Named<'_>]) {
        let export = self.root.join("export");
        let mut messages = vec![
            Setup::Transport(self.transport),
            Setup::Export(Export {
                name: b"data",
                path: export.as_os_str().as_encoded_bytes(),
                access: Access::ReadWrite,
                peers: b"",
                privileged: self.privileged,
            }),
        ];
        messages.extend(peers.iter().map(|peer| {
            Setup::Peer(Peer {
                name: peer.name.as_bytes(),
                fingerprint: peer.fingerprint,
                address: peer.address.as_bytes(),
                pacing_bytes_per_s: self.peer_bytes_per_s,
            })
        }));
        let (tunnels, allow) = (self.tunnels.clone(), self.allow.clone());
        messages.extend(tunnels.iter().map(|(listen, target)| {
            Setup::Tunnel(Tunnel { listen: listen.as_bytes(), peer: b"peer", target: target.as_bytes() })
        }));
        messages.extend(allow.iter().map(|(host, port)| {
            Setup::TunnelAllow(TunnelAllow {
                peer: b"",
                host: host.as_bytes(),
                port_first: *port,
                port_last: *port,
            })
        }));
        if self.bulk_bytes_per_s > 0 {
            // Without programs, which would pin what has to last.
            messages.push(Setup::Kernel(Kernel {
                enabled: false,
                cgroup: b"",
                guard: GuardMode::Off,
                guard_source_per_s: 1,
                guard_total_per_s: 1,
            }));
            messages.push(Setup::Class(Class {
                class: 1,
                flow_bytes_per_s: self.bulk_bytes_per_s,
                peer_bytes_per_s: 0,
                congestion: 0,
                priority: 0,
            }));
        }
        if let Some(device) = self.rdma {
            messages.push(Setup::Rdma(Rdma { wanted: true, device: device.as_bytes(), port: 1 }));
        }
        self.generation += 1;
        let generation = self.generation;
        messages.push(Setup::PlanEnd(PlanEnd { generation }));
        for message in messages {
            send_message(&self.control().socket, &message).unwrap();
        }
        self.until("the plan is in force", |node| {
            let figures = node.control().link.node.figures();
            figures.is_ok_and(|figures| figures.value(NodeCounter::PlanGeneration) == generation)
        });
    }

    pub(crate) fn order(&mut self, worker: usize, command: &Command<'_>) {
        let mut record = vec![0; RECORD_BYTES_MAX];
        let length = command.encode(&mut record).unwrap();
        self.order_raw(worker, &record[..length]);
    }

    pub(crate) fn order_raw(&mut self, worker: usize, record: &[u8]) {
        self.control().commands[worker].push(record).unwrap();
        self.ring_bell(worker);
    }

    pub(crate) fn ring_bell(&mut self, worker: usize) {
        self.control().link.workers[worker].command_doorbell.ring().unwrap();
    }

    fn home(&self, job: u64) -> usize {
        (job % u64::from(self.attached().workers)) as usize
    }

    pub(crate) fn send(&mut self, job: u64, sources: &[&Path], destination: &str) {
        self.send_again((job, 1), sources, destination);
    }

    /// A certain attempt of a job.
    pub(crate) fn send_again(&mut self, job: (u64, u32), sources: &[&Path], destination: &str) {
        self.order_send("peer", job, sources, destination);
    }

    /// A job to another peer than `peer`.
    pub(crate) fn send_to(&mut self, peer: &str, job: u64, sources: &[&Path], destination: &str) {
        self.order_send(peer, (job, 1), sources, destination);
    }

    fn order_send(&mut self, peer: &str, (job, attempt): (u64, u32), sources: &[&Path], destination: &str) {
        let options = JobOptions { streams: 0, tree: self.tree };
        let filters = self.filters.clone();
        let sources = list(sources);
        let (peer, destination) = (peer.as_bytes(), destination.as_bytes());
        let send = SendJob { job, attempt, peer, destination, options, filters: &filters, sources: &sources };
        self.order(self.home(job), &Command::Send(send));
    }

    pub(crate) fn fetch(&mut self, job: u64, sources: &[&str], destination: &Path) {
        let options = JobOptions { streams: 0, tree: self.tree };
        let filters = self.filters.clone();
        let sources: Vec<&Path> = sources.iter().map(Path::new).collect();
        let sources = list(&sources);
        let (peer, destination) = (&b"peer"[..], destination.as_os_str().as_encoded_bytes());
        let fetch =
            FetchJob { job, attempt: 1, peer, destination, options, filters: &filters, sources: &sources };
        self.order(self.home(job), &Command::Fetch(fetch));
    }

    /// Orders a snapshot of every worker.
    pub(crate) fn snapshot(&mut self, token: u64) {
        for worker in 0..usize::from(self.attached().workers) {
            self.order(worker, &Command::Snapshot(Snapshot { token }));
        }
    }

    pub(crate) fn counter(&mut self, counter: WorkerCounter) -> u64 {
        let workers = &self.control().link.workers;
        workers.iter().map(|worker| worker.region.stats().unwrap().value(counter)).sum()
    }

    /// Looks again and again until it is so.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.assert_alive();
            std::thread::yield_now();
        }
    }

    pub(crate) fn assert_alive(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "the dataplane ended");
    }

    /// Most resident memory that the process ever had, in bytes.
    pub(crate) fn resident_most(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.listen
    }

    pub(crate) fn export(&self) -> PathBuf {
        self.root.join("export")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be dead already, on purpose.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn spawn(root: &Path) -> Child {
    Process::new(env!("CARGO_BIN_EXE_dwcp-dataplane"))
        .arg("--state-dir")
        .arg(root.join("state"))
        .arg("--runtime-dir")
        .arg(root.join("run"))
        .env("DWCP_LOG_LEVEL", std::env::var("DWCP_LOG_LEVEL").unwrap_or("error".to_owned()))
        .spawn()
        .unwrap()
}

/// Paths as commands carry them.
fn list(paths: &[&Path]) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        let bytes = path.as_os_str().as_encoded_bytes();
        list.extend((bytes.len() as u16).to_le_bytes());
        list.extend(bytes);
    }
    list
}

/// The socket file of a process that was killed is still there, so that refusal may only mean "not yet".
fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", path.display()),
        }
        std::thread::yield_now();
    }
}
