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
        /// What is known of the path to a peer; about once a second while there is traffic, may be dropped.
        Path(PathFigures<'a>) = 6,
        /// A tunnel's listener; about once a second while it changes, may be dropped.
        Tunnel(TunnelFigures<'a>) = 7,
        /// All tunnelled connections with a peer; likewise.
        TunnelPeer(TunnelPeerFigures<'a>) = 8,
        /// What became of a `Ping`. Not said where nobody answered: control's patience is the limit.
        Pong(Pong<'a>) = 9,
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

codes! {
    /// What decides how fast a path is now.
    pub enum PathLimit: u8 {
        /// Nothing was measured yet.
        Unknown = 0,
        /// The path is short: the kernel's congestion control is left alone.
        Short = 1,
        /// No queue has built up yet: the lanes' own congestion control is the limit, and still grows.
        Searching = 2,
        /// A queue had built up at the bottleneck: the rate was lowered.
        Queue = 3,
        /// Much more was lost than is usual on this path: the rate was lowered.
        Loss = 4,
        /// There is room: the rate is being raised.
        Room = 5,
        /// There is not always something to send.
        Demand = 6,
    }
}

codes! {
    /// Whether a tunnel's listener stands.
    pub enum TunnelState: u8 {
        /// It does.
        Listening = 1,
        /// It does not; the text says why. It is tried again every few seconds.
        Failed = 2,
    }
}

records! {
    /// A tunnel's listener. Totals since the dataplane started or the tunnel came.
    pub struct TunnelFigures<'a> {
        /// `address:port`, as in the plan.
        pub listen: &'a [u8],
        /// Name of the peer.
        pub peer: &'a [u8],
        /// The target at the peer.
        pub target: &'a [u8],
        /// Whether it listens.
        pub state: TunnelState,
        /// Connections that stand.
        pub open: u32,
        /// Connections that were begun.
        pub opened: u64,
        /// Of those, not connected to the target.
        pub refused: u64,
        /// Bytes to the target.
        pub bytes_sent: u64,
        /// Bytes from it.
        pub bytes_received: u64,
        /// Why the last connection was refused, or why it does not listen. UTF-8.
        pub text: &'a [u8],
    }

    /// Tunnelled connections with a peer. Totals since the dataplane started.
    pub struct TunnelPeerFigures<'a> {
        /// Name of the peer.
        pub peer: &'a [u8],
        /// Lanes for tunnels that stand.
        pub lanes: u16,
        /// Round-trip time of a tunnel's lane in microseconds; 0 = not measured.
        pub rtt_us: u32,
        /// Connections of the peer that stand here.
        pub accepted_open: u32,
        /// Connections that the peer asked for.
        pub accepted: u64,
        /// Of those, refused: forbidden, or their target did not answer.
        pub refused: u64,
        /// Bytes from targets here to the peer.
        pub bytes_sent: u64,
        /// Bytes from the peer to targets here.
        pub bytes_received: u64,
        /// Lanes lost while connections stood, which went on.
        pub lanes_lost: u64,
    }

    /// What became of a ping.
    pub struct Pong<'a> {
        /// The token of the command.
        pub token: u64,
        /// The round trip in nanoseconds; 0 = there was none.
        pub rtt_ns: u64,
        /// Why there was none; empty otherwise. UTF-8.
        pub text: &'a [u8],
    }

    /// What is known of a path.
    pub struct PathFigures<'a> {
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
        /// 1 = long: its lanes are paced together.
        pub internet: bool,
        /// What decides its rate.
        pub limit: PathLimit,
        /// Round-trip time of the busy lanes in microseconds; 0 = none is busy.
        pub rtt_us: u32,
        /// The least seen of any lane, in microseconds.
        pub rtt_min_us: u32,
        /// Share of bytes that were sent again lately, in millionths.
        pub resent_millionths: u32,
        /// Bytes per second that the peer acknowledges.
        pub delivered_bytes_per_s: u64,
        /// Ceiling of all lanes together in bytes per second; 0 = none.
        pub ceiling_bytes_per_s: u64,
        /// Lanes with something to send.
        pub busy: u16,
        /// Times that the path was found to be of the other kind.
        pub transitions: u32,
    }

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
        /// Plain bytes that the receiver held of a former attempt: done, and not sent.
        pub bytes_resumed: u64,
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
        /// [`crate::wire::JobChanges`] where the job was to tell them; else empty.
        pub changes: &'a [u8],
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
