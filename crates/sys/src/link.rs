//! The link between control and dataplane, below its messages: regions with their doorbells, how they are handed
//! over, and envelopes on the set-up socket. The dataplane [creates](Link::create) a link at start and
//! [offers](Link::offer) the same one to every control that attaches; control [requests](Link::request) it.
//! Decides nothing: what the messages mean is [`dwcp_abi::link`]'s and its callers' business.
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use dwcp_abi::codec::{CodecError, Encoded};
use dwcp_abi::link::{Attach, Attached, ENVELOPE_MAX, LINK_VERSION, Setup, envelope};
use dwcp_abi::shm::{
    COMMAND_RING, Consumer, EVENT_RING, Features, FeaturesWriter, Flows, FlowsWriter, NODE_FEATURES,
    NODE_FLOWS, NODE_KERNEL, NODE_STATS, NodeFigures, NodeStatsWriter, PageError, Producer, RegionError,
    RegionKind, RingError, Section, Traces, TracesWriter, WORKER_STATS, WORKER_TRACES, WORKERS_MAX,
    WorkerSnapshot, WorkerStatsWriter, check_header, write_header,
};

use crate::doorbell::{Doorbell, DoorbellError};
use crate::fds::{self, FdsError};
use crate::shm::{Part, SharedMemory, ShmError};

/// Everything that control and dataplane share.
#[derive(Debug)]
pub struct Link {
    /// The node's region.
    pub node: NodeRegion,
    /// One per worker, by index.
    pub workers: Vec<WorkerLink>,
}

/// What control shares with one worker.
#[derive(Debug)]
pub struct WorkerLink {
    /// Rings and statistics.
    pub region: WorkerRegion,
    /// Control rings it after a command, when `push` says so; the worker polls it.
    pub command_doorbell: Doorbell,
    /// The worker rings it after an event, when `push` says so; control polls it.
    pub event_doorbell: Doorbell,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("link: {0}")]
    Socket(#[from] std::io::Error),
    /// The other side closed the socket.
    #[error("link: the other side closed the connection")]
    Closed,
    /// A message cannot be read or written.
    #[error("link: {0}")]
    Message(#[from] CodecError),
    /// Descriptors were not sent or received.
    #[error("link: {0}")]
    Descriptors(#[from] FdsError),
    /// Shared memory cannot be had or trusted.
    #[error("link: {0}")]
    Memory(#[from] ShmError),
    /// A region's header is wrong.
    #[error("link: {0}")]
    Region(#[from] RegionError),
    /// A doorbell cannot be had or trusted.
    #[error("link: {0}")]
    Doorbell(#[from] DoorbellError),
    /// The dataplane speaks another version.
    #[error("link: dataplane speaks version {theirs}, control version {ours}: restart the older one")]
    Version {
        /// Version of control.
        ours: u32,
        /// Version of the dataplane.
        theirs: u32,
    },
    /// The number of workers or of descriptors is impossible.
    #[error("link: {descriptors} descriptors do not fit {workers} workers")]
    Count {
        /// Workers announced or wanted.
        workers: u16,
        /// Descriptors received.
        descriptors: usize,
    },
}

impl Link {
    /// Creates regions and doorbells for `workers` workers. `instance` is random, new at every start.
    ///
    /// # Errors
    /// [`LinkError::Count`] for none or more than [`WORKERS_MAX`]; what the system says.
    pub fn create(workers: u16, instance: u64) -> Result<Self, LinkError> {
        if workers == 0 || workers > WORKERS_MAX {
            return Err(LinkError::Count { workers, descriptors: 0 });
        }
        let node = NodeRegion { memory: create_region(RegionKind::Node, instance)? };
        let worker = |index| {
            let memory = create_region(RegionKind::Worker(index), instance)?;
            let (command_doorbell, event_doorbell) = (Doorbell::create()?, Doorbell::create()?);
            Ok(WorkerLink { region: WorkerRegion { memory }, command_doorbell, event_doorbell })
        };
        let workers = (0..workers).map(worker).collect::<Result<_, LinkError>>()?;
        Ok(Self { node, workers })
    }

    /// Dataplane: answers an `Attach` with `attached` and all descriptors. The message is far smaller than a
    /// socket's buffer.
    ///
    /// # Errors
    /// Any of the socket, the message or the descriptors.
    pub fn offer(&self, socket: &UnixStream, attached: &Attached) -> Result<(), LinkError> {
        let mut buffer = [0; ATTACHED_BYTES_MAX];
        let length = fill_envelope(&mut buffer, attached)?;
        let sent = fds::send(socket.as_fd(), &buffer[..length], &self.descriptors())?;
        let mut socket = socket;
        socket.write_all(&buffer[sent..length])?;
        Ok(())
    }

    /// Control: says `attach`, receives the answer and takes what it names. Blocks; the caller sets the socket's
    /// timeouts.
    ///
    /// # Errors
    /// Any [`LinkError`]; all descriptors are closed then.
    pub fn request(socket: &UnixStream, attach: Attach<'_>) -> Result<(Attached, Self), LinkError> {
        send_message(socket, &Setup::Attach(attach))?;
        let mut buffer = [0; ATTACHED_BYTES_MAX];
        let (mut length, descriptors) = fds::receive(socket.as_fd(), &mut buffer, fds::DESCRIPTORS_MAX)?;
        let mut wanted = 4;
        loop {
            if length >= 4 {
                wanted = 4 + envelope(&buffer)?;
            }
            if length >= wanted {
                break;
            }
            let room = buffer.get_mut(length..wanted).ok_or(CodecError::NoRoom)?;
            length += read_some(socket, room)?;
        }
        let attached = Attached::decode(&buffer[4..length])?;
        if attached.version != LINK_VERSION {
            return Err(LinkError::Version { ours: LINK_VERSION, theirs: attached.version });
        }
        let link = Self::open(&attached, descriptors)?;
        Ok((attached, link))
    }

    /// The descriptors in the order that [`Attached`] documents.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut descriptors = vec![self.node.memory.as_fd()];
        for worker in &self.workers {
            descriptors.push(worker.region.memory.as_fd());
            descriptors.push(worker.command_doorbell.as_fd());
            descriptors.push(worker.event_doorbell.as_fd());
        }
        descriptors
    }

    fn open(attached: &Attached, descriptors: Vec<OwnedFd>) -> Result<Self, LinkError> {
        let (workers, count) = (attached.workers, descriptors.len());
        let wrong = LinkError::Count { workers, descriptors: count };
        if workers == 0 || workers > WORKERS_MAX || count != 1 + 3 * usize::from(workers) {
            return Err(wrong);
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(LinkError::Count { workers, descriptors: count });
        let memory = open_region(next()?, RegionKind::Node, attached.instance)?;
        let node = NodeRegion { memory };
        let mut worker = |index| {
            let memory = open_region(next()?, RegionKind::Worker(index), attached.instance)?;
            let (command_doorbell, event_doorbell) = (Doorbell::open(next()?)?, Doorbell::open(next()?)?);
            Ok(WorkerLink { region: WorkerRegion { memory }, command_doorbell, event_doorbell })
        };
        let workers = (0..workers).map(&mut worker).collect::<Result<_, LinkError>>()?;
        Ok(Self { node, workers })
    }
}

/// A worker's region. Each of the four ring ends has one owner at a time; taking one again continues where the
/// former owner stopped.
#[derive(Debug, Clone)]
pub struct WorkerRegion {
    memory: Arc<SharedMemory>,
}

impl WorkerRegion {
    fn part(&self, section: &Section) -> Part {
        Part::new(&self.memory, section)
    }

    /// Control's end of the command ring. Ring the doorbell once after taking it.
    ///
    /// # Errors
    /// Never [`RingError::Corrupt`]: a damaged ring is started over.
    pub fn command_producer(&self) -> Result<Producer<Part>, RingError> {
        producer(|| self.part(&COMMAND_RING))
    }

    /// The worker's end of the command ring.
    ///
    /// # Errors
    /// Never [`RingError::Corrupt`]: a damaged ring is started over.
    pub fn command_consumer(&self) -> Result<Consumer<Part>, RingError> {
        consumer(|| self.part(&COMMAND_RING))
    }

    /// The worker's end of the event ring.
    ///
    /// # Errors
    /// Never [`RingError::Corrupt`]: a damaged ring is started over.
    pub fn event_producer(&self) -> Result<Producer<Part>, RingError> {
        producer(|| self.part(&EVENT_RING))
    }

    /// Control's end of the event ring.
    ///
    /// # Errors
    /// Never [`RingError::Corrupt`]: a damaged ring is started over.
    pub fn event_consumer(&self) -> Result<Consumer<Part>, RingError> {
        consumer(|| self.part(&EVENT_RING))
    }

    /// The worker's end of its statistics.
    #[must_use]
    pub fn stats_writer(&self) -> WorkerStatsWriter<Part> {
        WorkerStatsWriter::attach(self.part(&WORKER_STATS))
    }

    /// A consistent copy of the worker's statistics.
    ///
    /// # Errors
    /// [`PageError::Torn`] where the worker died while writing or misbehaves.
    pub fn stats(&self) -> Result<WorkerSnapshot, PageError> {
        WorkerSnapshot::read(self.part(&WORKER_STATS))
    }

    /// The worker's end of the chunks that it timed.
    #[must_use]
    pub fn traces_writer(&self) -> TracesWriter<Part> {
        TracesWriter::attach(self.part(&WORKER_TRACES))
    }

    /// A consistent copy of the chunks that the worker timed.
    ///
    /// # Errors
    /// [`PageError::Torn`] where the worker died while writing or misbehaves.
    pub fn traces(&self) -> Result<Traces, PageError> {
        Traces::read(self.part(&WORKER_TRACES))
    }
}

/// The node's region.
#[derive(Debug, Clone)]
pub struct NodeRegion {
    memory: Arc<SharedMemory>,
}

impl NodeRegion {
    /// The dataplane's end of the node's statistics.
    #[must_use]
    pub fn stats_writer(&self) -> NodeStatsWriter<Part> {
        NodeStatsWriter::attach(Part::new(&self.memory, &NODE_STATS))
    }

    /// The dataplane's end of the feature texts.
    #[must_use]
    pub fn features_writer(&self) -> FeaturesWriter<Part> {
        FeaturesWriter::attach(Part::new(&self.memory, &NODE_FEATURES))
    }

    /// The dataplane's end of the texts about the kernel.
    #[must_use]
    pub fn kernel_writer(&self) -> FeaturesWriter<Part> {
        FeaturesWriter::attach(Part::new(&self.memory, &NODE_KERNEL))
    }

    /// The dataplane's end of the busiest flows.
    #[must_use]
    pub fn flows_writer(&self) -> FlowsWriter<Part> {
        FlowsWriter::attach(Part::new(&self.memory, &NODE_FLOWS))
    }

    /// A consistent copy of the texts about the kernel.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn kernel(&self) -> Result<Features, PageError> {
        Features::read(Part::new(&self.memory, &NODE_KERNEL))
    }

    /// A consistent copy of the busiest flows.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn flows(&self) -> Result<Flows, PageError> {
        Flows::read(Part::new(&self.memory, &NODE_FLOWS))
    }

    /// A consistent copy of the node's statistics.
    ///
    /// # Errors
    /// [`PageError::Torn`] where the dataplane died while writing or misbehaves.
    pub fn figures(&self) -> Result<NodeFigures, PageError> {
        NodeFigures::read(Part::new(&self.memory, &NODE_STATS))
    }

    /// A consistent copy of the feature texts.
    ///
    /// # Errors
    /// Any [`PageError`].
    pub fn features(&self) -> Result<Features, PageError> {
        Features::read(Part::new(&self.memory, &NODE_FEATURES))
    }
}

/// Writes one message in its envelope.
///
/// # Errors
/// [`LinkError::Message`] where it exceeds [`ENVELOPE_MAX`]; [`LinkError::Socket`].
pub fn send_message<'a>(mut socket: &UnixStream, message: &impl Encoded<'a>) -> Result<(), LinkError> {
    let mut buffer = vec![0; 4 + ENVELOPE_MAX];
    let length = fill_envelope(&mut buffer, message)?;
    socket.write_all(&buffer[..length])?;
    Ok(())
}

/// Reads one envelope into `buffer` and gives its body; `None` = the other side closed between two messages.
///
/// # Errors
/// [`LinkError::Closed`] inside a message, [`LinkError::Message`] for an impossible length, [`LinkError::Socket`].
pub fn receive_message<'b>(
    mut socket: &UnixStream,
    buffer: &'b mut Vec<u8>,
) -> Result<Option<&'b [u8]>, LinkError> {
    let mut length = [0; 4];
    let first = match read_some(socket, &mut length) {
        Err(LinkError::Closed) => return Ok(None),
        first => first?,
    };
    socket.read_exact(&mut length[first..]).map_err(closed)?;
    buffer.resize(envelope(&length)?, 0);
    socket.read_exact(buffer).map_err(closed)?;
    Ok(Some(buffer))
}

fn read_some(mut socket: &UnixStream, buffer: &mut [u8]) -> Result<usize, LinkError> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err(LinkError::Closed),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return Ok(read?),
        }
    }
}

fn closed(error: std::io::Error) -> LinkError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { LinkError::Closed } else { error.into() }
}

fn fill_envelope<'a>(buffer: &mut [u8], message: &impl Encoded<'a>) -> Result<usize, CodecError> {
    let (head, body) = buffer.split_first_chunk_mut().ok_or(CodecError::NoRoom)?;
    let length = message.encode(body)?;
    *head = u32::try_from(length).map_err(|_| CodecError::NoRoom)?.to_le_bytes();
    Ok(4 + length)
}

fn create_region(kind: RegionKind, instance: u64) -> Result<Arc<SharedMemory>, LinkError> {
    let name = match kind {
        RegionKind::Worker(_) => c"dwcp-worker",
        RegionKind::Node => c"dwcp-node",
    };
    let memory = SharedMemory::create(name, kind.region_bytes())?;
    write_header(memory.words(), kind, instance)?;
    Ok(Arc::new(memory))
}

fn open_region(descriptor: OwnedFd, kind: RegionKind, instance: u64) -> Result<Arc<SharedMemory>, LinkError> {
    let memory = SharedMemory::open(descriptor, kind.region_bytes())?;
    check_header(memory.words(), kind, instance)?;
    Ok(Arc::new(memory))
}

fn producer(part: impl Fn() -> Part) -> Result<Producer<Part>, RingError> {
    match Producer::attach(part()) {
        Err(error @ RingError::Corrupt { .. }) => {
            tracing::warn!(%error, "ring is damaged: producer starts over");
            Producer::start_over(part())
        }
        attached => attached,
    }
}

fn consumer(part: impl Fn() -> Part) -> Result<Consumer<Part>, RingError> {
    match Consumer::attach(part()) {
        Err(error @ RingError::Corrupt { .. }) => {
            tracing::warn!(%error, "ring is damaged: consumer starts over");
            Consumer::start_over(part())
        }
        attached => attached,
    }
}

/// More than any [`Attached`] of this version takes.
const ATTACHED_BYTES_MAX: usize = 256;
