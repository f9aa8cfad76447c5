//! Commands: control to one worker, through that worker's command ring.
use crate::codec::{messages, records};
use crate::wire::TreeOptions;

messages! {
    /// One order to a worker. Jobs go to the worker `job % workers`, which stays their home.
    pub enum Command<'a> {
        /// Start sending local paths to a peer.
        Send(SendJob<'a>) = 1,
        /// Start fetching a peer's paths into a local directory.
        Fetch(FetchJob<'a>) = 2,
        /// Stop a job; ends in a `Finished` event with `Outcome::Cancelled`.
        Cancel(CancelJob) = 3,
        /// Control has stored the job's end: the worker may forget it.
        Forget(ForgetJob) = 4,
        /// Report every job that the worker knows, then `SnapshotEnd`.
        Snapshot(Snapshot) = 5,
        /// Measure one round trip to a peer; ends in a `Pong` event.
        Ping(Ping<'a>) = 6,
        /// End a job's attempt and keep what arrived; ends in a `Finished` event with `Outcome::Interrupted`.
        Pause(PauseJob) = 7,
    }
}

records! {
    /// What a job may differ in.
    pub struct JobOptions {
        /// Lanes wanted for the job's session; 0 = the plan's `initial_streams`.
        pub streams: u16,
        /// How the tree is treated.
        pub tree: TreeOptions,
    }

    /// Start sending. `sources` are absolute local paths, each behind a `u16` length.
    pub struct SendJob<'a> {
        /// Durable id that control chose; unique on this node for ever.
        pub job: u64,
        /// 1 at first, one more at each new try.
        pub attempt: u32,
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
        /// Path at the peer: `/absolute/below/an/export` or `export-name/below`.
        pub destination: &'a [u8],
        /// Options.
        pub options: JobOptions,
        /// What is left out, as in [`crate::wire::filter_rules`].
        pub filters: &'a [u8],
        /// Paths, each `u16` length and bytes, one after the other.
        pub sources: &'a [u8],
    }

    /// Start fetching. `sources` are paths at the peer, in the same form as in [`SendJob`].
    pub struct FetchJob<'a> {
        /// Durable id that control chose.
        pub job: u64,
        /// 1 at first, one more at each new try.
        pub attempt: u32,
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
        /// Absolute local path that receives.
        pub destination: &'a [u8],
        /// Options.
        pub options: JobOptions,
        /// What is left out, as in [`crate::wire::filter_rules`].
        pub filters: &'a [u8],
        /// Paths, each `u16` length and bytes, one after the other.
        pub sources: &'a [u8],
    }

    /// Stop a job.
    pub struct CancelJob {
        /// Its id.
        pub job: u64,
    }

    /// End a job's attempt until the next one.
    pub struct PauseJob {
        /// Its id.
        pub job: u64,
    }

    /// Forget a finished job.
    pub struct ForgetJob {
        /// Its id.
        pub job: u64,
    }

    /// Measure a round trip over an authenticated connection to a peer.
    pub struct Ping<'a> {
        /// Comes back in `Pong`.
        pub token: u64,
        /// Name of the peer in the plan.
        pub peer: &'a [u8],
    }

    /// Ask for the state of all jobs.
    pub struct Snapshot {
        /// Comes back in `SnapshotEnd`.
        pub token: u64,
    }
}
