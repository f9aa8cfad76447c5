//! The thread that speaks with the dataplane: connects for ever, sends plans, moves commands into the rings and events
//! out of them. What they mean is decided by the app; a region of the other side is never trusted further than
//! `dwcp_abi::shm` checks it.
mod kernel;
mod limits;
mod plan;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Attached, Event};
use dwcp_abi::shm::{Consumer, Producer, PushError, RECORD_BYTES_MAX, RingError};
use dwcp_policy::Backoff;
use dwcp_sys::doorbell::Doorbell;
use dwcp_sys::link::{Link, LinkError, WorkerRegion};
use dwcp_sys::shm::Part;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::app::App;
use limits::Schedule;

/// What other threads may see of an attached dataplane: its statistics.
pub(crate) struct Attachment {
    pub(crate) attached: Attached,
    pub(crate) node: dwcp_sys::link::NodeRegion,
    pub(crate) workers: Vec<WorkerRegion>,
}

/// Why the dataplane is not attached.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no dataplane at {path}: {error}")]
    Connect { path: String, error: std::io::Error },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("link: {0}")]
    Ring(#[from] RingError),
    #[error("link: {0}")]
    Doorbell(#[from] dwcp_sys::doorbell::DoorbellError),
    #[error("link: {0}")]
    System(#[from] nix::errno::Errno),
    #[error("link: the dataplane closed the connection")]
    Closed,
    #[error("link: the dataplane said something after the set-up")]
    Chatty,
    #[error(
        "the dataplane did not turn any more and was given up: its service manager has to start another one"
    )]
    Stuck,
}

/// Starts the thread. It ends when the app stops.
pub(crate) fn start(app: Arc<App>, socket: PathBuf) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("link".into()).spawn(move || run(&app, &socket))
}

fn run(app: &Arc<App>, path: &PathBuf) {
    let mut backoff = Backoff::new(&RECONNECT_PAUSES);
    while !app.is_stopping() {
        app.note_link_alive();
        let ended = match attach(app, path) {
            Ok((socket, attached, link)) => {
                backoff.handle_success();
                let ended = serve(app, socket, attached, link);
                app.handle_detached();
                ended
            }
            Err(trouble) => Err(trouble),
        };
        let Err(trouble) = ended else { return };
        let is_version = matches!(&trouble, Trouble::Link(LinkError::Version { .. }));
        app.handle_link_trouble(&trouble.to_string(), is_version);
        wait(app, backoff.next_pause());
    }
}

fn attach(app: &App, path: &PathBuf) -> Result<(UnixStream, Attached, Link), Trouble> {
    let connect = UnixStream::connect(path);
    let socket = connect.map_err(|error| Trouble::Connect { path: path.display().to_string(), error })?;
    socket.set_read_timeout(Some(SETUP_TIMEOUT)).map_err(LinkError::from)?;
    socket.set_write_timeout(Some(SETUP_TIMEOUT)).map_err(LinkError::from)?;
    let config = &app.start_config;
    let cores = plan::cores(config);
    let listen = config.peer_listen.to_string();
    let (attached, link) = Link::request(&socket, plan::attach(config, &cores, &listen))?;
    Ok((socket, attached, link))
}

/// Until the dataplane goes away; `Ok` = the app stops.
fn serve(app: &Arc<App>, socket: UnixStream, attached: Attached, link: Link) -> Result<(), Trouble> {
    let mut generation = app.settings_generation();
    let mut schedule = Schedule::default();
    send_plan(app, &socket, &mut schedule, generation)?;
    socket.set_nonblocking(true).map_err(LinkError::from)?;
    let regions = link.workers.iter().map(|worker| worker.region.clone()).collect();
    let mut workers = link.workers.into_iter().map(Worker::new).collect::<Result<Vec<_>, _>>()?;
    app.handle_attached(Attachment { attached, node: link.node, workers: regions });
    loop {
        app.note_link_alive();
        if app.is_stopping() {
            return Ok(());
        }
        if app.takes_restart() {
            end(&socket, attached.pid)?;
            return Err(Trouble::Stuck);
        }
        if schedule.is_over(&app.settings().config, app.now()) {
            app.renew_plan();
        }
        if app.settings_generation() != generation {
            generation = app.settings_generation();
            socket.set_nonblocking(false).map_err(LinkError::from)?;
            send_plan(app, &socket, &mut schedule, generation)?;
            socket.set_nonblocking(true).map_err(LinkError::from)?;
        }
        let mut is_busy = false;
        for (index, worker) in workers.iter_mut().enumerate() {
            is_busy |= worker.take_events(app, index)?;
            worker.give_commands(app, index)?;
        }
        sleep(app, &socket, &workers, is_busy)?;
        expect_silence(&socket)?;
    }
}

fn send_plan(
    app: &App,
    socket: &UnixStream,
    schedule: &mut Schedule,
    generation: u64,
) -> Result<(), LinkError> {
    let settings = app.settings();
    let limits = schedule.begin(&settings.config, app.now());
    plan::send(socket, &settings.config, &app.tunnels_in_force(), limits, generation)
}

/// Ends the process at the other end of the socket. While the socket is connected, the process id that the kernel noted
/// with it belongs to nobody else. It must be the one that the dataplane said: whoever merely opened the socket for it
/// is left alone.
fn end(socket: &UnixStream, said: u32) -> Result<(), Trouble> {
    expect_silence(socket)?;
    let pid = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?.pid();
    if u32::try_from(pid) == Ok(said) {
        tracing::error!(component = "recovery", pid, "the dataplane does not turn any more: ending it");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    }
    Ok(())
}

/// Until there is something to do, or a second has passed.
fn sleep(app: &App, socket: &UnixStream, workers: &[Worker], is_busy: bool) -> Result<(), Trouble> {
    let is_quiet = !is_busy && workers.iter().all(|worker| worker.events.prepare_sleep());
    let timeout = match (is_quiet, app.has_commands()) {
        (false, _) => PollTimeout::ZERO,
        // A full ring rings no bell when it has room again.
        (true, true) => PollTimeout::from(FULL_RING_PAUSE_MS),
        (true, false) => PollTimeout::from(IDLE_PAUSE_MS),
    };
    let bells = workers.iter().map(|worker| worker.event_doorbell.as_fd());
    wait_for(app.wake.as_fd(), std::iter::once(socket.as_fd()).chain(bells), timeout)?;
    app.wake.answer()?;
    for worker in workers {
        worker.events.wake();
        worker.event_doorbell.answer()?;
    }
    Ok(())
}

fn wait(app: &App, pause: Duration) {
    let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::from(IDLE_PAUSE_MS));
    // Whatever goes wrong here ends in another attempt to connect.
    if wait_for(app.wake.as_fd(), std::iter::empty(), timeout).is_err() || app.wake.answer().is_err() {
        std::thread::park_timeout(pause);
    }
}

fn wait_for<'a>(
    wake: BorrowedFd<'a>,
    others: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: PollTimeout,
) -> Result<(), nix::errno::Errno> {
    let mut sources: Vec<PollFd<'_>> =
        std::iter::once(wake).chain(others).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut sources, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// After the set-up the dataplane says nothing on the socket: its end is all that can be read.
fn expect_silence(mut socket: &UnixStream) -> Result<(), Trouble> {
    match socket.read(&mut [0; 16]) {
        Ok(0) => Err(Trouble::Closed),
        Ok(_) => Err(Trouble::Chatty),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) =>
        {
            Ok(())
        }
        Err(error) => Err(LinkError::from(error).into()),
    }
}

/// Control's ends of one worker's rings.
struct Worker {
    commands: Producer<Part>,
    events: Consumer<Part>,
    command_doorbell: Doorbell,
    event_doorbell: Doorbell,
    buffer: Vec<u8>,
}

impl Worker {
    fn new(worker: dwcp_sys::link::WorkerLink) -> Result<Self, Trouble> {
        let commands = worker.region.command_producer()?;
        let events = worker.region.event_consumer()?;
        // What a control before this one left in the ring may not have been rung for.
        worker.command_doorbell.ring()?;
        let (command_doorbell, event_doorbell) = (worker.command_doorbell, worker.event_doorbell);
        Ok(Self { commands, events, command_doorbell, event_doorbell, buffer: vec![0; RECORD_BYTES_MAX] })
    }

    /// Whether there may be more.
    fn take_events(&mut self, app: &Arc<App>, index: usize) -> Result<bool, Trouble> {
        for _ in 0..EVENTS_PER_TURN {
            match self.events.pop(&mut self.buffer) {
                Ok(None) => return Ok(false),
                Ok(Some(length)) => match Event::decode(&self.buffer[..length]) {
                    Ok(event) => app.handle_event(index, &event),
                    Err(error) => app.handle_garbage(index, &error.to_string()),
                },
                Err(error @ (RingError::Corrupt { .. } | RingError::NoRoom { .. })) => {
                    self.events.reset();
                    app.handle_garbage(index, &error.to_string());
                }
                Err(error @ RingError::Shape { .. }) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn give_commands(&mut self, app: &App, index: usize) -> Result<(), Trouble> {
        while let Some(command) = app.next_command(index) {
            match self.commands.push(&command) {
                Ok(is_asleep) => {
                    app.handle_command_taken(index);
                    if is_asleep {
                        self.command_doorbell.ring()?;
                    }
                }
                Err(PushError::Full) => return Ok(()),
                Err(PushError::Corrupt { .. }) => {
                    // The worker finds out, empties its ring and says so, which ends in a snapshot.
                    self.command_doorbell.ring()?;
                    return Ok(());
                }
                Err(error @ PushError::TooLarge { .. }) => {
                    tracing::error!(component = "link", worker = index, %error, "command dropped");
                    app.handle_command_taken(index);
                }
            }
        }
        Ok(())
    }
}

const RECONNECT_PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];
const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
const EVENTS_PER_TURN: usize = 512;
const FULL_RING_PAUSE_MS: u8 = 20;
const IDLE_PAUSE_MS: u16 = 1000;
