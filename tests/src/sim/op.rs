//! Operations under way, and what a worker collects of them: owned twins of the engine's outputs and inputs.
use dwcp_abi::wire::{Code, TreeOptions};
use dwcp_engine::{
    BufferId, FileId, FinalCheck, FoundObject, Hash, JobKey, LaneEnd, LaneId, OpenedObject, PackId, PeerId,
    Source, TaskId,
};

/// A chunk's place on disk and in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) task: TaskId,
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) source: Source,
    pub(super) buffer: BufferId,
    pub(super) object_size: u64,
}

/// A disk or tree operation. `serial` names the scanner or tree that it was started on.
#[derive(Debug)]
pub(super) enum Op {
    Read(Piece),
    Write(Piece),
    OpenScanner { job: JobKey, serial: u64, sources: Option<Vec<u8>> },
    Fill { job: JobKey, serial: u64 },
    FillFinals { job: JobKey, serial: u64 },
    Prepare { job: JobKey, serial: u64, object: u64, file: FileId },
    CheckSource { job: JobKey, serial: u64, object: u64 },
    OpenReceiver { job: JobKey, serial: u64, destination: Option<Vec<u8>> },
    Unpack { task: TaskId, job: JobKey, attempt: u32, patience: u32, buffer: BufferId, length: u32 },
    Commit { job: JobKey, serial: u64, object: u64, verify: Option<Hash> },
    Finish { job: JobKey, serial: u64 },
}

/// Something that a worker finds at its next turn.
#[derive(Debug)]
pub(super) enum Completion {
    Send {
        job: JobKey,
        attempt: u32,
        destination: Vec<u8>,
        streams: u16,
        options: TreeOptions,
    },
    Fetch {
        job: JobKey,
        attempt: u32,
        sources: Vec<u8>,
        streams: u16,
        options: TreeOptions,
    },
    Cancel {
        job: JobKey,
    },
    Pause {
        job: JobKey,
    },
    DialFailed {
        peer: PeerId,
    },
    LaneUp {
        lane: LaneId,
        peer: PeerId,
        instance: u64,
        end: LaneEnd,
    },
    LaneClosing {
        lane: LaneId,
    },
    LaneDown {
        lane: LaneId,
    },
    Sent {
        lane: LaneId,
        bytes: u64,
    },
    Arrived {
        lane: LaneId,
    },
    Read {
        task: TaskId,
        result: Result<Hash, Code>,
    },
    Written {
        task: TaskId,
        result: Result<Hash, Code>,
    },
    ScannerOpened {
        job: JobKey,
        serial: u64,
        result: Result<(), Code>,
    },
    Filled {
        job: JobKey,
        serial: u64,
        pack: PackId,
        entries: u64,
        bytes: u64,
        objects: Vec<FoundObject>,
        failures: u64,
        end: bool,
    },
    FinalsFilled {
        job: JobKey,
        serial: u64,
        pack: PackId,
        entries: u64,
        end: bool,
    },
    Prepared {
        job: JobKey,
        serial: u64,
        object: u64,
    },
    SourceChecked {
        job: JobKey,
        serial: u64,
        object: u64,
        check: FinalCheck,
    },
    ReceiverOpened {
        job: JobKey,
        serial: u64,
        result: Result<(), Code>,
    },
    Unpacked {
        task: TaskId,
        entries: u64,
        bytes: u64,
        opened: Vec<OpenedObject>,
        failures: u64,
        fatal: Option<Code>,
    },
    Unclaimed {
        task: TaskId,
    },
    Committed {
        job: JobKey,
        serial: u64,
        object: u64,
        result: Result<(), Code>,
    },
    Finished {
        job: JobKey,
        serial: u64,
        failures: u64,
        text: String,
    },
}
