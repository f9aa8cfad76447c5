//! What goes into an engine and what comes out.
#![expect(missing_docs, reason = "fields have the names of what the variant's sentence speaks of")]
use alloc::{string::String, vec::Vec};

use dwcp_abi::link::{Counts, JobState, Outcome};
use dwcp_abi::wire::{ChunkHead, Code, FrameHeader, Held, PackHead, TreeOptions};

/// Nanoseconds of a monotonic clock.
pub type Time = u64;

/// A BLAKE3 digest or chaining value.
pub type Hash = [u8; 32];

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident($integer:ty);)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $integer);
    )*};
}

ids! {
    /// A peer, as the driver numbers it; stable while the process lives.
    PeerId(u16);
    /// A lane of this worker, as the driver numbers it. Used again only after `LaneDown`.
    LaneId(u32);
    /// A large buffer of this worker.
    BufferId(u32);
    /// An open file of the process, as the driver numbers it.
    FileId(u64);
    /// A filled pack, the same for all workers, that the driver keeps until any of them says `DropPack`.
    PackId(u64);
    /// Something that this engine asked for and waits for.
    TaskId(u32);
}

/// Who numbered a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// This node.
    Local,
    /// The peer.
    Remote,
}

/// A job, unique among all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// With whom.
    pub peer: PeerId,
    /// Who numbered it.
    pub owner: Owner,
    /// The number.
    pub id: u64,
}

/// Which end of a lane this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEnd {
    /// It connected.
    Dialled,
    /// The peer did.
    Accepted,
}

/// Where a chunk's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the file.
    File,
    /// Nowhere: the range is a hole.
    Hole,
}

/// Which digest the driver shall make of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Size of the chunk's object: decides whether the chunk is all of it.
    pub object_size: u64,
}

/// A large file that a scanner found and announced in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundObject {
    /// Its number in the job.
    pub object: u64,
    /// The open file.
    pub file: FileId,
    /// Its size in bytes.
    pub size: u64,
    /// Parts that are not holes, sorted, on chunk borders (the last may end at `size`).
    pub extents: Vec<(u64, u64)>,
}

/// A place that the receiver's tree made for a large file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedObject {
    /// Its number in the job.
    pub object: u64,
    /// What became of it.
    pub place: Place,
    /// Its size in bytes.
    pub size: u64,
    /// What the open file holds of a former attempt: ranges of whole chunks, in order.
    pub held: Vec<(u64, u64)>,
    /// What there is under its name, which differences may be sent to.
    pub baseline: Held,
}

/// What shall become of what is incomplete when a receiving tree is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// It stays for the next attempt.
    Keep,
    /// Nothing of it remains.
    Remove,
}

/// What the receiver's tree did about an announced object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its bytes go to this open partial file.
    Open(FileId),
    /// The receiver holds it already, as it is to be.
    Held,
    /// It cannot be stored.
    Refused(Code),
}

/// What the driver found when it looked at a source once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalCheck {
    /// It is what it was.
    Unchanged,
    /// Size or times differ.
    Changed,
}

/// What a fetch wants of the peer, as it travels; the driver at the peer understands it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Paths, each behind a `u16` length.
    pub sources: Vec<u8>,
    /// What is left out, as in [`dwcp_abi::wire::filter_rules`].
    pub filters: Vec<u8>,
}

/// What a send says of itself to the receiver, as it travels; the driver there understands it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// Where it goes.
    pub destination: Vec<u8>,
    /// What is left out, as in [`dwcp_abi::wire::filter_rules`].
    pub filters: Vec<u8>,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Control orders a send. The driver keeps the sources under the key.
    Send {
        job: JobKey,
        attempt: u32,
        destination: &'a [u8],
        filters: &'a [u8],
        streams: u16,
        options: TreeOptions,
    },
    /// Control orders a fetch. The driver keeps the destination under the key.
    Fetch {
        job: JobKey,
        attempt: u32,
        sources: &'a [u8],
        filters: &'a [u8],
        streams: u16,
        options: TreeOptions,
    },
    /// Control gives up a job.
    Cancel { job: JobKey },
    /// Control ends an attempt; what arrived is kept for the next one.
    Pause { job: JobKey },
    /// A plan is in force: lanes for a job that does not say, most lanes of a session, and how long a job waits for a
    /// peer that is gone.
    Settings { initial_streams: u16, max_streams: u16, patience: Time },
    /// So many lanes are enough for the path to a peer, unless a job asks for a number of its own.
    PathLanes { peer: PeerId, lanes: u16 },
    /// Bytes went to a peer or came from it since this was said last, though no task may have become whole: a chunk takes a
    /// slow lane minutes.
    Alive { peer: PeerId },
    /// Whether differences to what a peer has are worth the time that finding them takes.
    Deltas { peer: PeerId, pay: bool },
    /// A peer cannot be reached; lanes that are up go on.
    DialFailed { peer: PeerId, text: &'a str },

    /// A lane stands. `instance` is the peer's, new at each of its starts. The end that accepted the lane is silent
    /// until it hears something.
    LaneUp { lane: LaneId, peer: PeerId, instance: u64, end: LaneEnd },
    /// Nothing more will be sent or received on the lane; its operations end by `LaneDown`.
    LaneClosing { lane: LaneId },
    /// The lane is gone and none of its operations is under way.
    LaneDown { lane: LaneId },
    /// What was being sent on the lane is with the kernel.
    Sent { lane: LaneId, bytes: u64 },
    /// A small frame.
    Frame { lane: LaneId, header: FrameHeader, payload: &'a [u8] },
    /// The header of a task: its payload needs a buffer.
    TaskHeader { lane: LaneId, header: FrameHeader },
    /// A chunk is in its buffer and its checksum fits.
    Chunk { lane: LaneId, header: FrameHeader, head: ChunkHead, buffer: BufferId },
    /// A chunk was received in vain: it is made of a baseline, and that is not what it should be.
    Unmade { lane: LaneId, header: FrameHeader, head: ChunkHead, buffer: BufferId },
    /// A pack is in its buffer and its checksum fits.
    Pack { lane: LaneId, header: FrameHeader, head: PackHead, buffer: BufferId },

    /// A chunk of a source is read and hashed.
    Read { task: TaskId, result: Result<Hash, Code> },
    /// A chunk is written and hashed.
    Written { task: TaskId, result: Result<Hash, Code>, text: &'a str },

    /// The scanner of a job is ready, or cannot be.
    ScannerOpened { job: JobKey, result: Result<(), (Code, &'a str)> },
    /// The next pack of a job is filled. It tells the receiver of the `failures`, too, and `entries` counts them.
    Filled {
        job: JobKey,
        pack: PackId,
        entries: u64,
        bytes: u64,
        objects: Vec<FoundObject>,
        failures: u64,
        end: bool,
    },
    /// The next pack of closing entries is filled.
    FinalsFilled { job: JobKey, pack: PackId, entries: u64, end: bool },
    /// What the receiver has of an object was looked for here. The driver knows what came of it.
    Prepared { job: JobKey, object: u64 },
    /// An object's source was looked at once more.
    SourceChecked { job: JobKey, object: u64, check: FinalCheck },

    /// The receiving tree of a job is ready, or cannot be.
    ReceiverOpened { job: JobKey, result: Result<(), (Code, &'a str)> },
    /// A pack is unpacked and what it held is durable.
    Unpacked {
        task: TaskId,
        entries: u64,
        bytes: u64,
        opened: Vec<OpenedObject>,
        failures: u64,
        fatal: Option<(Code, &'a str)>,
    },
    /// An early pack has waited long enough for its job.
    Unclaimed { task: TaskId },
    /// An object has its final name, or cannot have it.
    Committed { job: JobKey, object: u64, result: Result<(), (Code, &'a str)> },
    /// Everything of the job is durable, or cannot be. `changes` are [`dwcp_abi::wire::JobChanges`] or empty.
    Finished {
        job: JobKey,
        result: Result<(), (Code, &'a str)>,
        failures: u64,
        text: &'a str,
        changes: &'a [u8],
    },

    /// Another worker of this node says something.
    Told { worker: u16, tell: Tell },
    /// Time passed.
    Tick,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Have this many lanes with the peer, dialled and accepted together, over all workers.
    WantLanes { peer: PeerId, lanes: u16 },
    /// Send the small frames that [`crate::Engine::outbox`] holds; ends in `Sent`.
    SendOutbox { lane: LaneId },
    /// Send a chunk of `file` out of its buffer; ends in `Sent`. The driver fills lengths and checksums in.
    SendChunk {
        lane: LaneId,
        job: u64,
        flags: u8,
        sequence: u64,
        buffer: BufferId,
        file: FileId,
        head: ChunkHead,
    },
    /// Send a pack; ends in `Sent`.
    SendPack { lane: LaneId, job: u64, flags: u8, sequence: u64, pack: PackId, head: PackHead },
    /// Receive the announced task into the buffer; ends in `Chunk`, `Pack` or `LaneClosing`.
    Receive { lane: LaneId, buffer: BufferId },
    /// Close the lane; ends in `LaneDown`.
    CloseLane { lane: LaneId, code: Code, text: &'static str },

    /// Read and hash a chunk; ends in `Read`.
    Read {
        task: TaskId,
        file: FileId,
        offset: u64,
        length: u32,
        source: Source,
        buffer: BufferId,
        digest: Digest,
    },
    /// Hash and write a chunk; ends in `Written`. The bytes start behind the chunk's head.
    Write {
        task: TaskId,
        file: FileId,
        offset: u64,
        length: u32,
        source: Source,
        buffer: BufferId,
        digest: Digest,
    },

    /// Open the scanner of a job; ends in `ScannerOpened`. `asked` only for a peer's fetch.
    OpenScanner { job: JobKey, asked: Option<Asked>, options: TreeOptions },
    /// Fill the next pack; ends in `Filled`.
    Fill { job: JobKey },
    /// Fill the next pack of closing entries; ends in `FinalsFilled`.
    FillFinals { job: JobKey },
    /// A pack is acknowledged or not wanted any more.
    DropPack { pack: PackId },
    /// Look for what the receiver has under an object's name: its chunks may be sent as differences to that. Ends in
    /// `Prepared`.
    Prepare { job: JobKey, object: u64, file: FileId, baseline: Held },
    /// Send no more differences of this file: the receiver cannot use them.
    SendPlain { file: FileId },
    /// Look at an object's source once more; ends in `SourceChecked`.
    CheckSource { job: JobKey, object: u64, file: FileId },
    /// An object's file is not needed any more. With `keep`, the receiver has just this content of it, and differences
    /// to it will be worth sending.
    CloseFile { job: JobKey, object: u64, file: FileId, keep: Option<Hash> },
    /// The scanner of a job is not needed any more: nothing of it is fed from now on.
    CloseScanner { job: JobKey },

    /// Make the receiving tree of a job; ends in `ReceiverOpened`. `offered` only when the peer started the job. With
    /// `baselines`, the sender wants to know what there is already.
    OpenReceiver {
        job: JobKey,
        attempt: u32,
        offered: Option<Offered>,
        options: TreeOptions,
        baselines: bool,
    },
    /// Unpack the `length` bytes behind the pack's head; ends in `Unpacked`, with nothing in it where the tree is
    /// gone or another attempt's. An `early` one may come before its job, and waits a while for the tree, or ends in
    /// `Unclaimed`.
    Unpack { task: TaskId, job: JobKey, attempt: u32, early: bool, buffer: BufferId, length: u32 },
    /// Make an object durable under its final name; ends in `Committed`. With `verify`, only if the file has this
    /// digest: a part of it may have been written twice, or is of a former attempt. Nothing of it remains otherwise.
    Commit { job: JobKey, object: u64, digest: Hash, verify: bool },
    /// Give up an object: nothing of it remains. The text says why, for a person.
    Discard { job: JobKey, object: u64, text: String },
    /// Close the tree; ends in `Finished`.
    Finish { job: JobKey },
    /// Give up a job at the receiver: nothing of it is fed from now on but the ends of tasks.
    CloseReceiver { job: JobKey, leftovers: Leftovers },

    /// Where a local job is.
    Progress { job: JobKey, attempt: u32, state: JobState, scanned: bool, lanes: u16, counts: Counts },
    /// A job's end; `elapsed_ns` since its command.
    Ended {
        job: JobKey,
        attempt: u32,
        outcome: Outcome,
        lanes: u16,
        counts: Counts,
        elapsed_ns: u64,
        text: String,
        /// What the receiver said of them, or empty.
        changes: Vec<u8>,
    },
    /// Tell another worker of this node.
    Tell { worker: u16, tell: Tell },
}

/// What the workers of a node say to each other. A job lives at its home, the worker `id % workers`; the others
/// carry chunks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// A frame of a job arrived on another worker's lane.
    Frame { job: JobKey, header: FrameHeader, payload: Vec<u8> },
    /// Send this whole frame on any lane to the peer.
    Send { peer: PeerId, frame: Vec<u8> },
    /// So many lanes to this process of the peer are up here. A lane that died may have swallowed frames.
    Lanes { peer: PeerId, instance: u64, lanes: u16, lost: bool },

    /// Home: there is something to carry.
    Work { job: JobKey, attempt: u32 },
    /// Carrier: idle lanes want some.
    Want { job: JobKey, attempt: u32 },
    /// Home: carry this part.
    Part {
        job: JobKey,
        attempt: u32,
        object: u64,
        file: FileId,
        size: u64,
        start: u64,
        end: u64,
        source: Source,
    },
    /// Home: carry this pack.
    Pack { job: JobKey, attempt: u32, pack: PackId, number: u64, entries: u64, bytes: u64 },
    /// Home: nothing left; `Work` comes when there is again.
    NoWork { job: JobKey, attempt: u32 },
    /// Carrier: read and on its way.
    PartRead { job: JobKey, attempt: u32, object: u64, offset: u64, result: Result<Hash, Code> },
    /// Carrier: acknowledged. `wire` bytes were spent.
    PartDone { job: JobKey, attempt: u32, object: u64, length: u64, wire: u64 },
    /// Carrier: acknowledged. `wire` bytes were spent.
    PackDone { job: JobKey, attempt: u32, entries: u64, bytes: u64, wire: u64 },
    /// Carrier: `wire` bytes were spent in vain.
    Resent { job: JobKey, attempt: u32, wire: u64 },
    /// Carrier: its lanes died; carry it yourself.
    PartBack { job: JobKey, attempt: u32, object: u64, offset: u64, length: u64, source: Source },
    /// Carrier: its lanes died; carry it yourself.
    PackBack { job: JobKey, attempt: u32, pack: PackId, number: u64, entries: u64, bytes: u64 },
    /// Home: the job is over.
    JobGone { job: JobKey },

    /// Receiving home: chunks of this object go to this file.
    Object { job: JobKey, attempt: u32, object: u64, file: FileId, size: u64 },
    /// Receiving home: no more chunks of this object are welcome.
    ObjectGone { job: JobKey, attempt: u32, object: u64 },
    /// No write of the object is under way any more.
    ObjectQuiet { job: JobKey, attempt: u32, object: u64 },
    /// Receiver of a chunk: it is written, or cannot be.
    Wrote {
        job: JobKey,
        attempt: u32,
        object: u64,
        offset: u64,
        length: u64,
        result: Result<Hash, (Code, String)>,
    },
    /// Receiver of a chunk: it came in vain.
    Unmade { job: JobKey, attempt: u32, object: u64, offset: u64, length: u64 },
    /// Receiver of a pack: it is unpacked.
    Unpacked {
        job: JobKey,
        head: PackHead,
        entries: u64,
        bytes: u64,
        opened: Vec<OpenedObject>,
        failures: u64,
        fatal: Option<(Code, String)>,
    },
}

impl Output {
    /// The lane that it is for.
    pub(crate) fn lane(&self) -> Option<LaneId> {
        match self {
            Self::SendOutbox { lane }
            | Self::SendChunk { lane, .. }
            | Self::SendPack { lane, .. }
            | Self::Receive { lane, .. }
            | Self::CloseLane { lane, .. } => Some(*lane),
            Self::WantLanes { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::OpenScanner { .. }
            | Self::Fill { .. }
            | Self::FillFinals { .. }
            | Self::DropPack { .. }
            | Self::Prepare { .. }
            | Self::SendPlain { .. }
            | Self::CheckSource { .. }
            | Self::CloseFile { .. }
            | Self::CloseScanner { .. }
            | Self::OpenReceiver { .. }
            | Self::Unpack { .. }
            | Self::Commit { .. }
            | Self::Discard { .. }
            | Self::Finish { .. }
            | Self::CloseReceiver { .. }
            | Self::Progress { .. }
            | Self::Ended { .. }
            | Self::Tell { .. } => None,
        }
    }
}
