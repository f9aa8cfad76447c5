//! The set-up socket, and the life of the process around it.
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Attached, LINK_VERSION, Setup};
use dwcp_abi::shm::{NodeCounter, NodeFigures};
use dwcp_sys::fds::peer_credentials;
use dwcp_sys::link::{LinkError, receive_message};
use dwcp_sys::service::Notifier;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::plan::{Builder, for_door};
use super::pulse::Pulse;
use super::start::Running;
use crate::door::DoorError;
use crate::features;
use crate::identity::{Identity, IdentityError};
use crate::listeners::Listeners;
use crate::worker::WorkerError;

/// Where a dataplane keeps things.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Identity.
    pub state: PathBuf,
    /// The set-up socket.
    pub runtime: PathBuf,
}

/// Why a dataplane ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Identity cannot be had.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The set-up socket cannot be had.
    #[error("cannot listen at {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address to listen at for peers is none.
    #[error("`peer.listen` is {text}, which is no address: {source}")]
    Listen {
        /// As configured.
        text: String,
        /// What the system said.
        source: io::Error,
    },
    /// The door cannot be opened.
    #[error("{0}")]
    Door(#[from] DoorError),
    /// A worker cannot be started.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// Control cannot be spoken to.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A worker ended by itself.
    #[error("a worker ended by itself: see its last message")]
    WorkerGone,
}

/// How often figures of the node are published, and ends of workers noticed.
const CHORES_INTERVAL: Duration = Duration::from_millis(500);
/// How long control may take for one message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    /// Hears when this process is ready and that its loops turn.
    pub notifier: Arc<Notifier>,
    /// What it kept of the former life.
    pub listeners: Arc<Listeners>,
}

/// Serves until `stopped` says so.
///
/// # Errors
/// [`ServeError`]; the supervisor starts the process anew.
pub fn serve(paths: &Paths, manager: Manager, stopped: &dyn Fn() -> bool) -> Result<(), ServeError> {
    let identity = Identity::load_or_create(&paths.state)?;
    let listener = listen(paths)?;
    tracing::info!(fingerprint = %identity.fingerprint(), "dataplane ready for control");
    manager.notifier.send("READY=1");
    let mut server = Server {
        identity,
        state: paths.state.clone(),
        instance: instance(),
        running: None,
        control: None,
        figures: Vitals::new(),
        listeners: manager.listeners,
        pulse: Pulse::new(Arc::clone(&manager.notifier)),
    };
    let result = server.run(&listener, stopped);
    manager.notifier.send("STOPPING=1");
    if let Some(running) = server.running {
        running.stop();
    }
    result
}

struct Server {
    identity: Identity,
    state: PathBuf,
    instance: u64,
    running: Option<Running>,
    /// The control that is attached, and the plan that it is saying.
    control: Option<(UnixStream, Builder)>,
    figures: Vitals,
    listeners: Arc<Listeners>,
    pulse: Pulse,
}

struct Vitals {
    published: Option<Instant>,
    kernel: features::Kernel,
    /// What the last plan made of the kernel programs.
    said_of_kernel: String,
    /// What was last said of them and of RDMA.
    said: String,
}

impl Vitals {
    fn new() -> Self {
        let kernel = features::Kernel::new(crate::bpf::object_candidates());
        Self { published: None, kernel, said_of_kernel: String::new(), said: String::new() }
    }
}

impl Server {
    fn run(&mut self, listener: &UnixListener, stopped: &dyn Fn() -> bool) -> Result<(), ServeError> {
        while !stopped() {
            let mut polled = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            if let Some((control, _)) = &self.control {
                polled.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
            }
            let timeout = PollTimeout::try_from(CHORES_INTERVAL).unwrap_or(PollTimeout::ZERO);
            match poll(&mut polled, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            let ready = |index: usize| polled.get(index).and_then(PollFd::any).unwrap_or(false);
            let (is_new, is_message) = (ready(0), ready(1));
            if is_message {
                self.hear();
            }
            if is_new && let Ok((socket, _)) = listener.accept() {
                self.welcome(socket)?;
            }
            self.chores()?;
        }
        Ok(())
    }

    /// A new control takes the place of a former one.
    fn welcome(&mut self, socket: UnixStream) -> Result<(), ServeError> {
        let credentials = peer_credentials(socket.as_fd())?;
        let own = nix::unistd::geteuid();
        if credentials.uid() != own.as_raw() && credentials.uid() != 0 {
            tracing::warn!(uid = credentials.uid(), "a stranger wanted to be control");
            return Ok(());
        }
        socket.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
        socket.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
        let mut buffer = Vec::new();
        let message = match receive_message(&socket, &mut buffer) {
            Ok(Some(message)) => Setup::decode(message),
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "control did not attach");
                return Ok(());
            }
        };
        let Ok(Setup::Attach(attach)) = message else {
            tracing::warn!("control began with another message than attach");
            return Ok(());
        };
        let identity = &self.identity;
        if self.running.is_none() && attach.version == LINK_VERSION {
            let running = Running::start(&attach, identity, self.instance, &self.state, &self.listeners)?;
            let kernel = "ebpf classifier\toff\tno plan came yet\n";
            features::publish(
                &running.link,
                &running.workers,
                &format!("{kernel}{}", running.node.rdma.line()),
            );
            self.running = Some(running);
        }
        let workers = self.running.as_ref().map_or(0, |running| running.link.workers.len()) as u16;
        let attached = Attached {
            version: LINK_VERSION,
            workers,
            instance: self.instance,
            pid: std::process::id(),
            fingerprint: identity.fingerprint().0,
        };
        let Some(running) = &self.running else {
            tracing::warn!(theirs = attach.version, ours = LINK_VERSION, "control speaks another version");
            return Ok(());
        };
        if let Err(error) = running.link.offer(&socket, &attached) {
            tracing::warn!(%error, "control was gone before it was attached");
            return Ok(());
        }
        tracing::info!(workers, "control attached");
        self.control = Some((socket, Builder::default()));
        Ok(())
    }

    /// One message of the attached control.
    fn hear(&mut self) {
        let Some((socket, builder)) = &mut self.control else { return };
        let mut buffer = Vec::new();
        let taken = match receive_message(socket, &mut buffer) {
            Ok(Some(message)) => Setup::decode(message).and_then(|message| builder.take(&message)),
            Ok(None) => {
                tracing::warn!("control is gone; what runs goes on");
                self.control = None;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the link to control broke; what runs goes on");
                self.control = None;
                return;
            }
        };
        match taken {
            Ok(None) => {}
            Ok(Some(plan)) => {
                let Some(running) = &mut self.running else { return };
                tracing::info!(
                    generation = plan.generation,
                    peers = plan.peers.len(),
                    exports = plan.exports.len(),
                    "plan"
                );
                running.node.rdma.want(plan.rdma.clone());
                running.door.handle().set_plan(Arc::new(for_door(&plan)));
                let plan = Arc::new(plan);
                running.node.set_plan(Arc::clone(&plan));
                running.tunnels.post(crate::tunnel::Message::Plan(Arc::clone(&plan)));
                let ports: Vec<u16> = running.door.addresses().iter().map(|address| address.port()).collect();
                self.figures.said_of_kernel =
                    self.figures.kernel.apply(&plan.kernel, &ports, &self.identity.fingerprint().short());
                self.say_features();
            }
            Err(error) => {
                tracing::warn!(%error, "control sent a message that cannot be used");
                self.control = None;
            }
        }
    }

    /// Shows what the host grants, where it has changed: devices come and go.
    fn say_features(&mut self) {
        let Some(running) = &self.running else { return };
        let text = format!("{}{}", self.figures.said_of_kernel, running.node.rdma.line());
        if self.figures.said != text && !self.figures.said_of_kernel.is_empty() {
            features::publish(&running.link, &running.workers, &text);
            self.figures.said = text;
        }
    }

    fn chores(&mut self) -> Result<(), ServeError> {
        self.pulse.feed(self.running.as_ref(), Instant::now());
        let Some(running) = &self.running else { return Ok(()) };
        if running.is_broken() {
            return Err(ServeError::WorkerGone);
        }
        if self.figures.published.is_some_and(|at| at.elapsed() < CHORES_INTERVAL) {
            return Ok(());
        }
        self.figures.published = Some(Instant::now());
        if let Some(text) = self.figures.kernel.settle() {
            self.figures.said_of_kernel = text;
        }
        self.say_features();
        let Some(running) = &self.running else { return Ok(()) };
        let mut figures = NodeFigures::default();
        let door = running.door.counters().figures();
        let baselines = running.node.kept.figures();
        let counted = [
            (NodeCounter::StartUnixNs, start_unix_ns()),
            (NodeCounter::ResidentBytes, dwcp_sys::process::resident_bytes().unwrap_or(0)),
            (NodeCounter::PlanGeneration, running.node.plan().generation),
            (NodeCounter::HandshakesOk, door.succeeded),
            (NodeCounter::HandshakesFailed, door.failed),
            (NodeCounter::HandshakesTimedOut, door.timed_out),
            (NodeCounter::HandshakesRefused, door.refused + door.turned_away),
            (NodeCounter::HalfOpen, door.half_open),
            (NodeCounter::Workers, running.link.workers.len() as u64),
            (NodeCounter::HeartbeatNs, monotonic_ns()),
            (NodeCounter::BaselinesKept, baselines.kept),
            (NodeCounter::BaselineBytes, baselines.kept_bytes),
            (NodeCounter::BaselinesNamed, baselines.named),
            (NodeCounter::BaselinesFound, baselines.found),
        ];
        for (counter, value) in counted {
            figures.set(counter, value);
        }
        self.figures.kernel.know(running.node.known_addresses());
        self.figures.kernel.publish(&mut figures, &running.link.node, monotonic_ns());
        running.link.node.stats_writer().publish(&figures);
        Ok(())
    }
}

fn listen(paths: &Paths) -> Result<UnixListener, ServeError> {
    let path = paths.runtime.join("dataplane.sock");
    let failed = |source| ServeError::Socket { path: path.clone(), source };
    fs::create_dir_all(&paths.runtime).map_err(failed)?;
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Random, so that peers and control can tell two lives of this process apart.
fn instance() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => start_unix_ns() ^ u64::from(std::process::id()),
    }
}

fn start_unix_ns() -> u64 {
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *START.get_or_init(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    })
}

fn monotonic_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
