//! Events: one worker to control, through that worker's event ring.
use crate::codec::{codes, messages, records};

messages! {
    /// One report of a worker.
    pub enum Event<'a> {
        /// Where a running job is; several a second at most, may be dropped when the ring is full.
        Progress(JobProgress) = 1,
        /// A job's end. Repeated in every snapshot until control says `Forget`; never dropped.
        Finished(JobFinished<'a>) = 2,
        /// A lane came up or went down.
        Lane(LaneChange<'a>) = 3,
        /// All that a `Snapshot` asked for has been said.
        SnapshotEnd(SnapshotEnd) = 4,
        /// The command ring held something impossible and was emptied: control must take a snapshot and repeat.
        RingReset(RingReset) = 5,
    }
}

codes! {
    /// How far a job is.
    pub enum JobState: u8 {
        /// Waiting for a lane or for the peer's answer.
        Connecting = 1,
        /// Data is moving.
        Running = 2,
        /// All data is at the receiver, which makes it durable.
        Finishing = 3,
    }

    /// How a job ended.
    pub enum Outcome: u8 {
        /// Everything is durable at the receiver.
        Done = 1,
        /// Everything that could be read and written is durable; `failures` says how many entries are not.
        Partial = 2,
        /// Nothing more will happen; the text says why and what to do.
        Failed = 3,
        /// As ordered.
        Cancelled = 4,
        /// The peer or all lanes went away: the same job may be tried again.
        Interrupted = 5,
    }
}

records! {
    /// What a job has moved.
    pub struct Counts {
        /// Files, directories, links that are complete at the receiver.
        pub entries_done: u64,
        /// Entries found so far.
        pub entries_total: u64,
        /// Plain bytes acknowledged by the receiver.
        pub bytes_done: u64,
        /// Plain bytes found so far.
        pub bytes_total: u64,
        /// Bytes that crossed the wire for it, frames included.
        pub bytes_wire: u64,
        /// Bytes that had to be sent again.
        pub bytes_resent: u64,
        /// Entries that failed.
        pub failures: u64,
    }

    /// Where a job is.
    pub struct JobProgress {
        /// Its id.
        pub job: u64,
        /// Its attempt.
        pub attempt: u32,
        /// State.
        pub state: JobState,
        /// 1 when `*_total` will not grow any more.
        pub scanned: bool,
        /// Lanes of its session.
        pub lanes: u16,
        /// Figures.
        pub counts: Counts,
    }

    /// A job's end.
    pub struct JobFinished<'a> {
        /// Its id.
        pub job: u64,
        /// Its attempt.
        pub attempt: u32,
        /// How.
        pub outcome: Outcome,
        /// Most lanes that its session had.
        pub lanes: u16,
        /// Figures.
        pub counts: Counts,
        /// From command to end, in nanoseconds.
        pub elapsed_ns: u64,
        /// For a person: names the object and the way out. Empty when done. UTF-8, lossy.
        pub text: &'a [u8],
    }

    /// A lane came up or went down.
    pub struct LaneChange<'a> {
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
        /// 1 = up, 0 = down.
        pub up: bool,
        /// Lanes of the session on this worker now.
        pub lanes: u16,
        /// 1 when its payload is encrypted.
        pub encrypted: bool,
        /// Why it went down; empty when up or closed in good order.
        pub text: &'a [u8],
    }

    /// End of a snapshot.
    pub struct SnapshotEnd {
        /// The token of the command.
        pub token: u64,
    }

    /// The command ring was emptied.
    pub struct RingReset {
        /// How many times since the worker started.
        pub count: u64,
    }
}
