//! What is kept of a job, in memory and in the store. Shared by jobs, store and HTTP; decides nothing.
use std::sync::Arc;

use dwcp_api::{
    Counts, Direction, PathText, Transfer, TransferId, TransferOptions, TransferRequest, TransferState,
};

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRecord {
    pub(crate) id: u64,
    /// Under which a repeated order finds it.
    pub(crate) key: Option<String>,
    pub(crate) request: Arc<JobRequest>,
    pub(crate) state: TransferState,
    /// 0 = never given to a dataplane.
    pub(crate) attempt: u32,
    /// The dataplane that has the current attempt.
    pub(crate) instance: u64,
    /// Somebody asked for its end.
    pub(crate) is_cancelled: bool,
    /// Somebody wants it to rest until it is resumed.
    pub(crate) is_paused: bool,
    pub(crate) is_scanned: bool,
    pub(crate) lanes: u16,
    pub(crate) counts: Counts,
    pub(crate) created_ms: u64,
    pub(crate) started_ms: Option<u64>,
    pub(crate) finished_ms: Option<u64>,
    pub(crate) error: Option<String>,
    /// As the dataplane said it at the end, or empty.
    pub(crate) changes: Box<[u8]>,
}

/// What was asked for; never changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRequest {
    pub(crate) direction: Direction,
    pub(crate) peer: String,
    pub(crate) sources: Vec<PathText>,
    pub(crate) destination: PathText,
    pub(crate) options: TransferOptions,
}

/// Figures of a running job that are computed, not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pace {
    pub(crate) rate_bytes_per_s: u64,
}

impl From<TransferRequest> for JobRequest {
    fn from(request: TransferRequest) -> Self {
        let TransferRequest { direction, peer, sources, destination, options } = request;
        Self { direction, peer, sources, destination, options }
    }
}

impl JobRecord {
    /// A job that was just accepted.
    pub(crate) fn new(id: u64, request: Arc<JobRequest>, created_ms: u64) -> Self {
        Self {
            id,
            key: None,
            request,
            state: TransferState::Queued,
            attempt: 0,
            instance: 0,
            is_cancelled: false,
            is_paused: false,
            is_scanned: false,
            lanes: 0,
            counts: Counts::default(),
            created_ms,
            started_ms: None,
            finished_ms: None,
            error: None,
            changes: Box::default(),
        }
    }

    /// Whether what was changed is a part of the answer.
    fn tells_changes(&self) -> bool {
        self.request.options.delete || self.request.options.dry_run
    }

    /// The document for the API. `pace` is that of a running job.
    pub(crate) fn document(&self, pace: Pace, now_ms: u64) -> Transfer {
        let timestamp = dwcp_api::Timestamp::from_unix_ms;
        let end_ms = self.finished_ms.unwrap_or(now_ms);
        let elapsed_seconds =
            self.started_ms.map_or(0.0, |start| end_ms.saturating_sub(start) as f64 / 1000.0);
        let rate = if self.state.is_final() && elapsed_seconds > 0.0 {
            (self.counts.bytes_done as f64 / elapsed_seconds) as u64
        } else {
            pace.rate_bytes_per_s
        };
        let left = self.counts.bytes_total.saturating_sub(self.counts.bytes_done);
        let has_end = self.is_scanned && rate > 0 && !self.state.is_final();
        Transfer {
            schema: Transfer::SCHEMA,
            id: TransferId(self.id),
            direction: self.request.direction,
            peer: self.request.peer.clone(),
            sources: self.request.sources.clone(),
            destination: self.request.destination.clone(),
            options: self.request.options.clone(),
            state: self.state,
            attempt: self.attempt.max(1),
            scanned: self.is_scanned,
            lanes: self.lanes,
            counts: self.counts,
            rate_bytes_per_s: rate,
            ratio: ratio(
                self.counts.bytes_done.saturating_sub(self.counts.bytes_resumed),
                self.counts.bytes_wire,
            ),
            eta_seconds: has_end.then(|| left.div_ceil(rate.max(1))),
            created_at: timestamp(self.created_ms),
            started_at: self.started_ms.map(timestamp),
            finished_at: self.finished_ms.map(timestamp),
            elapsed_seconds,
            error: self.error.clone(),
            failures: Vec::new(),
            changes: self.tells_changes().then(|| super::encode::changes(&self.changes)).flatten(),
            notes: super::encode::notes(&self.changes),
        }
    }
}

/// Plain by wire bytes, once there are some of both.
fn ratio(plain: u64, wire: u64) -> Option<f64> {
    (plain > 0 && wire > 0).then(|| plain as f64 / wire as f64)
}
