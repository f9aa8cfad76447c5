//! The dataplane's end of the link, as a real one has it: regions, rings, doorbells, heartbeats. What it answers is
//! the test's choice.
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{
    Attached, Command, Counts, Event, JobFinished, JobProgress, JobState, LINK_VERSION, Outcome, Pong, Setup,
    SnapshotEnd,
};
use dwcp_abi::shm::{Consumer, Producer, RECORD_BYTES_MAX, WorkerCounter, WorkerFigures};
use dwcp_abi::wire::TreeOptions;
use dwcp_sys::link::{Link, receive_message};
use dwcp_sys::shm::Part;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::DEADLINE;

/// What control said, less the snapshots that were answered already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Start { job: u64, attempt: u32, peer: String },
    Cancel(u64),
    Pause(u64),
    Forget(u64),
}

/// What the fake knows of a job, for snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Running { attempt: u32 },
    Finished { attempt: u32, outcome: Outcome },
}

pub(crate) struct FakeDataplane {
    pub(crate) link: Arc<Link>,
    pub(crate) known: BTreeMap<u64, Known>,
    pub(crate) snapshots: usize,
    /// What the last send leaves out.
    pub(crate) filters: Vec<u8>,
    /// How it treats its tree.
    pub(crate) tree: TreeOptions,
    /// What jobs that end from now on have changed.
    pub(crate) changes: Vec<u8>,
    /// Names of the peers of each plan, as they come.
    pub(crate) plans: mpsc::Receiver<Vec<String>>,
    commands: Vec<Consumer<Part>>,
    events: Vec<Producer<Part>>,
    is_stopping: Arc<AtomicBool>,
    stream: Arc<Mutex<Option<UnixStream>>>,
    socket: PathBuf,
    threads: Vec<JoinHandle<()>>,
    stop_heartbeat: Option<mpsc::Sender<()>>,
}

impl FakeDataplane {
    pub(crate) fn start(socket: PathBuf, instance: u64, workers: u16) -> Self {
        Self::start_with_version(socket, instance, workers, LINK_VERSION)
    }

    pub(crate) fn start_with_version(socket: PathBuf, instance: u64, workers: u16, version: u32) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let link = Arc::new(Link::create(workers, instance).unwrap());
        let listener = UnixListener::bind(&socket).unwrap();
        let attached = Attached { version, workers, instance, pid: 4242, fingerprint: [7; 32] };
        let (is_stopping, stream) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (plan, plans) = mpsc::channel();
        let accept = {
            let (link, is_stopping, stream) =
                (Arc::clone(&link), Arc::clone(&is_stopping), Arc::clone(&stream));
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    if is_stopping.load(Ordering::Acquire) {
                        return;
                    }
                    *stream.lock().unwrap() = Some(socket.try_clone().unwrap());
                    serve(&socket, &link, &attached, &plan);
                }
            })
        };
        let (stop_heartbeat, stop) = mpsc::channel::<()>();
        let beat = {
            let link = Arc::clone(&link);
            std::thread::spawn(move || heartbeat(&link, &stop))
        };
        let ends = |worker: &dwcp_sys::link::WorkerLink| {
            (worker.region.command_consumer().unwrap(), worker.region.event_producer().unwrap())
        };
        let (commands, events) = link.workers.iter().map(ends).unzip();
        Self {
            known: BTreeMap::new(),
            snapshots: 0,
            filters: Vec::new(),
            tree: TreeOptions::NONE,
            changes: Vec::new(),
            plans,
            commands,
            events,
            is_stopping,
            stream,
            socket,
            threads: vec![accept, beat],
            stop_heartbeat: Some(stop_heartbeat),
            link,
        }
    }

    fn home(&self, job: u64) -> usize {
        usize::try_from(job).unwrap() % self.commands.len()
    }

    /// What control says next to any worker. Snapshots are answered on the way.
    pub(crate) fn next(&mut self) -> Said {
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            if let Some(said) = self.poll() {
                return said;
            }
        }
        panic!("control said nothing");
    }

    /// Whether control says nothing for so long.
    pub(crate) fn nothing_within(&mut self, time: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < time {
            if self.poll().is_some() {
                return false;
            }
        }
        true
    }

    /// Answers what waits, or waits for a moment.
    pub(crate) fn answer_some(&mut self) {
        self.poll();
    }

    /// Answers snapshots until there have been so many.
    pub(crate) fn wait_for_snapshots(&mut self, count: usize) {
        let begin = Instant::now();
        while self.snapshots < count {
            assert!(begin.elapsed() < DEADLINE, "no snapshot was asked for");
            assert_eq!(self.poll(), None);
        }
    }

    /// Answers until at least one more snapshot was asked for; whatever else is said is let pass.
    pub(crate) fn wait_for_more(&mut self, snapshots: usize) {
        let begin = Instant::now();
        while self.snapshots <= snapshots {
            assert!(begin.elapsed() < DEADLINE, "no snapshot was asked for");
            self.poll();
        }
    }

    fn poll(&mut self) -> Option<Said> {
        for worker in 0..self.commands.len() {
            let mut buffer = vec![0; RECORD_BYTES_MAX];
            while let Some(length) = self.commands[worker].pop(&mut buffer).unwrap() {
                match Command::decode(&buffer[..length]).unwrap() {
                    Command::Snapshot(snapshot) => self.answer(worker, snapshot.token),
                    Command::Send(send) => {
                        self.filters = send.filters.to_vec();
                        self.tree = send.options.tree;
                        return Some(self.started(send.job, send.attempt, send.peer));
                    }
                    Command::Fetch(fetch) => return Some(self.started(fetch.job, fetch.attempt, fetch.peer)),
                    Command::Ping(ping) => {
                        let text = if ping.peer == b"paris" { &b""[..] } else { b"nobody there" };
                        let pong = Pong { token: ping.token, rtt_ns: 1_500_000, text };
                        self.emit(worker, &Event::Pong(pong));
                    }
                    Command::Cancel(cancel) => return Some(Said::Cancel(cancel.job)),
                    Command::Pause(pause) => return Some(Said::Pause(pause.job)),
                    Command::Forget(forget) => {
                        self.known.remove(&forget.job);
                        return Some(Said::Forget(forget.job));
                    }
                }
            }
        }
        let is_quiet = self.commands.iter().all(Consumer::prepare_sleep);
        let doorbells = self.link.workers.iter().map(|worker| worker.command_doorbell.as_fd());
        let mut polled: Vec<PollFd<'_>> =
            doorbells.map(|bell| PollFd::new(bell, PollFlags::POLLIN)).collect();
        poll(&mut polled, if is_quiet { PollTimeout::from(200_u8) } else { PollTimeout::ZERO }).unwrap();
        for (commands, worker) in self.commands.iter().zip(&self.link.workers) {
            commands.wake();
            worker.command_doorbell.answer().unwrap();
        }
        None
    }

    fn started(&mut self, job: u64, attempt: u32, peer: &[u8]) -> Said {
        self.known.insert(job, Known::Running { attempt });
        Said::Start { job, attempt, peer: String::from_utf8_lossy(peer).into_owned() }
    }

    fn answer(&mut self, worker: usize, token: u64) {
        self.snapshots += 1;
        let known: Vec<(u64, Known)> = self.known.iter().map(|(job, known)| (*job, *known)).collect();
        for (job, known) in known {
            match known {
                _ if self.home(job) != worker => {}
                Known::Running { attempt } => self.progress(job, attempt, 1),
                Known::Finished { attempt, outcome } => self.finish(job, attempt, outcome),
            }
        }
        self.emit(worker, &Event::SnapshotEnd(SnapshotEnd { token }));
    }

    pub(crate) fn progress(&mut self, job: u64, attempt: u32, bytes_done: u64) {
        let progress = JobProgress {
            job,
            attempt,
            state: JobState::Running,
            scanned: true,
            lanes: 3,
            counts: counts(bytes_done),
        };
        self.emit(self.home(job), &Event::Progress(progress));
    }

    pub(crate) fn finish(&mut self, job: u64, attempt: u32, outcome: Outcome) {
        self.known.insert(job, Known::Finished { attempt, outcome });
        let text: &[u8] = if outcome == Outcome::Done { b"" } else { b"as the test wants it" };
        let counts = counts(100);
        let changes = &self.changes.clone()[..];
        let finished = JobFinished { job, attempt, outcome, lanes: 4, counts, elapsed_ns: 5, text, changes };
        self.emit(self.home(job), &Event::Finished(finished));
    }

    pub(crate) fn emit(&mut self, worker: usize, event: &Event<'_>) {
        let mut bytes = vec![0; RECORD_BYTES_MAX];
        let length = event.encode(&mut bytes).unwrap();
        self.emit_bytes(worker, &bytes[..length]);
    }

    pub(crate) fn emit_bytes(&mut self, worker: usize, bytes: &[u8]) {
        if self.events[worker].push(bytes).unwrap() {
            self.link.workers[worker].event_doorbell.ring().unwrap();
        }
    }
}

impl Drop for FakeDataplane {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        // Wakes the accepting thread, in vain where it serves control; the next line ends that.
        let _ = UnixStream::connect(&self.socket);
        std::fs::remove_file(&self.socket).unwrap();
        drop(self.stop_heartbeat.take());
        if let Some(stream) = self.stream.lock().unwrap().take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn serve(socket: &UnixStream, link: &Link, attached: &Attached, plan: &mpsc::Sender<Vec<String>>) {
    let mut peers = Vec::new();
    let mut buffer = Vec::new();
    while let Ok(Some(body)) = receive_message(socket, &mut buffer) {
        match Setup::decode(body).unwrap() {
            Setup::Attach(_) => {
                if link.offer(socket, attached).is_err() {
                    return;
                }
            }
            Setup::Tunnel(tunnel) => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let (listen, peer, target) = (text(tunnel.listen), text(tunnel.peer), text(tunnel.target));
                peers.push(format!("{listen} {peer}:{target}"));
            }
            Setup::Transport(_)
            | Setup::Export(_)
            | Setup::Kernel(_)
            | Setup::Class(_)
            | Setup::TunnelAllow(_)
            | Setup::Selector(_)
            | Setup::Rdma(_) => {}
            Setup::Peer(peer) => peers.push(String::from_utf8_lossy(peer.name).into_owned()),
            // Nobody may be listening any more.
            Setup::PlanEnd(_) => drop(plan.send(std::mem::take(&mut peers))),
        }
    }
}

fn heartbeat(link: &Link, stop: &mpsc::Receiver<()>) {
    let mut writers: Vec<_> = link.workers.iter().map(|worker| worker.region.stats_writer()).collect();
    let mut figures = WorkerFigures::default();
    loop {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
        let now_ns =
            u64::try_from(time.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap();
        figures.set(WorkerCounter::HeartbeatNs, now_ns);
        figures.set(WorkerCounter::Lanes, 5);
        figures.add(WorkerCounter::BytesSent, 1000);
        figures.observe_send_latency_ns(60_000);
        for writer in &mut writers {
            writer.publish(&figures);
        }
        if stop.recv_timeout(Duration::from_millis(200)) != Err(mpsc::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn counts(bytes_done: u64) -> Counts {
    Counts {
        entries_done: 1,
        entries_total: 2,
        bytes_done,
        bytes_total: 100,
        bytes_wire: bytes_done / 2,
        bytes_resent: 0,
        bytes_resumed: 0,
        failures: 0,
    }
}
