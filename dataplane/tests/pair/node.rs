//! A dataplane process, and the control that the test plays.
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{
    Access, Attach, Attached, Command, Event, Export, JobOptions, LINK_VERSION, Outcome, Peer, PlanEnd,
    SendJob, Setup, Transport,
};
use dwcp_abi::shm::{Consumer, Producer, RECORD_BYTES_MAX, WorkerCounter};
use dwcp_sys::link::{Link, send_message};
use dwcp_sys::shm::Part;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) root: PathBuf,
    process: Child,
    socket: Option<UnixStream>,
    pub(crate) attached: Attached,
    link: Link,
    commands: Vec<Producer<Part>>,
    events: Vec<Consumer<Part>>,
}

/// What a dataplane is made of.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) workers: u16,
    pub(crate) backend: u8,
    pub(crate) encrypt: bool,
}

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
    pub(crate) failures: u64,
    pub(crate) lanes: u16,
}

impl Node {
    pub(crate) fn start(root: &Path, shape: Shape, listen: &str) -> Self {
        fs::create_dir_all(root.join("export")).unwrap();
        let process = Process::new(env!("CARGO_BIN_EXE_dwcp-dataplane"))
            .arg("--state-dir")
            .arg(root.join("state"))
            .arg("--runtime-dir")
            .arg(root.join("run"))
            .env("DWCP_LOG_LEVEL", std::env::var("DWCP_LOG_LEVEL").unwrap_or("warn".to_owned()))
            .spawn()
            .unwrap();
        let socket = connect(&root.join("run/dataplane.sock"));
        let attach = Attach {
            version: LINK_VERSION,
            workers: shape.workers,
            cores: b"",
            backend: shape.backend,
            hugepages: true,
            buffer_bytes: 64 << 20,
            listen: listen.as_bytes(),
        };
        let (attached, link) = Link::request(&socket, attach).unwrap();
        let commands = link.workers.iter().map(|worker| worker.region.command_producer().unwrap()).collect();
        let events = link.workers.iter().map(|worker| worker.region.event_consumer().unwrap()).collect();
        Self { root: root.to_owned(), process, socket: Some(socket), attached, link, commands, events }
    }

    pub(crate) fn plan(&self, shape: Shape, peer: &Self, address: &str) {
        let transport = Transport {
            min_streams: 1,
            initial_streams: 8,
            max_streams: 256,
            encrypt: shape.encrypt,
            congestion: 2,
            send_buffer_size: 0,
            recv_buffer_size: 0,
            pacing_bytes_per_s: 0,
            connect_timeout_ms: 5_000,
            read_timeout_ms: 10_000,
            codec: 0,
            codec_level: 0,
            codec_adaptive: true,
        };
        let export = self.root.join("export");
        let messages = [
            Setup::Transport(transport),
            Setup::Peer(Peer {
                name: b"peer",
                fingerprint: peer.attached.fingerprint,
                address: address.as_bytes(),
            }),
            Setup::Export(Export {
                name: b"data",
                path: export.as_os_str().as_encoded_bytes(),
                access: Access::ReadWrite,
                peers: b"",
            }),
            Setup::PlanEnd(PlanEnd { generation: 1 }),
        ];
        for message in messages {
            send_message(self.socket.as_ref().unwrap(), &message).unwrap();
        }
    }

    pub(crate) fn order(&mut self, worker: usize, command: &Command<'_>) {
        let mut record = vec![0; RECORD_BYTES_MAX];
        let length = command.encode(&mut record).unwrap();
        self.commands[worker].push(&record[..length]).unwrap();
        self.link.workers[worker].command_doorbell.ring().unwrap();
    }

    pub(crate) fn send(&mut self, job: u64, sources: &[&Path], destination: &str, streams: u16) {
        let mut list = Vec::new();
        for source in sources {
            let bytes = source.as_os_str().as_encoded_bytes();
            list.extend((bytes.len() as u16).to_le_bytes());
            list.extend(bytes);
        }
        let worker = (job % u64::from(self.attached.workers)) as usize;
        let options = JobOptions { streams, skip_unchanged: false };
        let destination = destination.as_bytes();
        self.order(
            worker,
            &Command::Send(SendJob { job, attempt: 1, peer: b"peer", destination, options, sources: &list }),
        );
    }

    /// Waits for a job's end.
    pub(crate) fn end_of(&mut self, wanted: u64) -> End {
        let deadline = Instant::now() + PATIENCE;
        let mut record = vec![0; RECORD_BYTES_MAX];
        loop {
            for events in &mut self.events {
                while let Some(length) = events.pop(&mut record).unwrap() {
                    let Event::Finished(end) = Event::decode(&record[..length]).unwrap() else { continue };
                    if end.job == wanted {
                        return End {
                            outcome: end.outcome,
                            text: String::from_utf8_lossy(end.text).into_owned(),
                            bytes_done: end.counts.bytes_done,
                            bytes_total: end.counts.bytes_total,
                            failures: end.counts.failures,
                            lanes: end.lanes,
                        };
                    }
                }
            }
            assert!(Instant::now() < deadline, "job {wanted} did not end");
            self.wait_for_event();
        }
    }

    fn wait_for_event(&self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let idle = self.events.iter().all(Consumer::prepare_sleep);
        if idle {
            let doorbells = self.link.workers.iter().map(|worker| worker.event_doorbell.as_fd());
            let mut polled: Vec<PollFd<'_>> =
                doorbells.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut polled, PollTimeout::from(1000u16)).unwrap();
        }
        for (worker, events) in self.link.workers.iter().zip(&self.events) {
            events.wake();
            worker.event_doorbell.answer().unwrap();
        }
    }

    pub(crate) fn counter(&self, counter: WorkerCounter) -> u64 {
        self.link.workers.iter().map(|worker| worker.region.stats().unwrap().value(counter)).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

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
