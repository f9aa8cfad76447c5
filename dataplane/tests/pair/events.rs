//! What the test hears in control's place.
use std::time::Instant;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::{Counts, Event, JobProgress, Outcome, TunnelState};
use dwcp_abi::shm::{Consumer, RECORD_BYTES_MAX};

use crate::node::{Control, Node, PATIENCE};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
    pub(crate) counts: Counts,
    pub(crate) lanes: u16,
    /// [`dwcp_abi::wire::JobChanges`] or empty.
    pub(crate) changes: Vec<u8>,
}

/// An event that outlives its record.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Progress(JobProgress),
    Finished(u64),
    Lane,
    SnapshotEnd(u64),
    RingReset,
    Tunnel { listen: String, state: TunnelState, text: String },
    TunnelPeer { lanes: u16, lanes_lost: u64 },
    Pong(u64, u64, String),
}

impl End {
    /// The job arrived, whole.
    #[track_caller]
    pub(crate) fn assert_done(&self) {
        assert_eq!((self.outcome, self.text.as_str(), self.counts.failures), (Outcome::Done, "", 0));
        assert_eq!(self.counts.bytes_done, self.counts.bytes_total);
    }

    #[track_caller]
    pub(crate) fn assert_says(&self, outcome: Outcome, words: &[&str]) {
        assert_eq!(self.outcome, outcome, "{self:?}");
        for word in words {
            assert!(self.text.contains(word), "{word:?} is missing in {:?}", self.text);
        }
    }
}

impl Node {
    /// Waits for a job's end.
    #[track_caller]
    pub(crate) fn end_of(&mut self, job: u64) -> End {
        if !self.ends.contains_key(&job) {
            self.hear(
                &format!("the end of job {job}"),
                |heard| matches!(heard, Heard::Finished(id) if *id == job),
            );
        }
        self.ends.remove(&job).unwrap()
    }

    /// Waits until a job's bytes move.
    pub(crate) fn progress_of(&mut self, job: u64) -> JobProgress {
        let heard = self.hear(
            "progress",
            |heard| matches!(heard, Heard::Progress(at) if at.job == job && at.counts.bytes_done > 0),
        );
        match heard {
            Heard::Progress(progress) => progress,
            other => unreachable!("{other:?}"),
        }
    }

    /// Waits for the first event that is so. Ends of jobs on the way are kept.
    #[track_caller]
    pub(crate) fn hear(&mut self, what: &str, so: impl Fn(&Heard) -> bool) -> Heard {
        let deadline = Instant::now() + PATIENCE;
        let mut record = vec![0; RECORD_BYTES_MAX];
        loop {
            for worker in 0..self.control().events.len() {
                while let Some(length) = self.control().events[worker].pop(&mut record).unwrap() {
                    let heard = self.note(&Event::decode(&record[..length]).unwrap());
                    if so(&heard) {
                        return heard;
                    }
                }
            }
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.assert_alive();
            self.control().wait_for_event();
        }
    }

    fn note(&mut self, event: &Event<'_>) -> Heard {
        match event {
            Event::Finished(end) => {
                let text = String::from_utf8_lossy(end.text).into_owned();
                let (attempt, outcome, counts, lanes) = (end.attempt, end.outcome, end.counts, end.lanes);
                let changes = end.changes.to_vec();
                self.ends.insert(end.job, End { attempt, outcome, text, counts, lanes, changes });
                Heard::Finished(end.job)
            }
            Event::Progress(progress) => Heard::Progress(*progress),
            Event::Lane(_) | Event::Path(_) => Heard::Lane,
            Event::Tunnel(tunnel) => Heard::Tunnel {
                listen: String::from_utf8_lossy(tunnel.listen).into_owned(),
                state: tunnel.state,
                text: String::from_utf8_lossy(tunnel.text).into_owned(),
            },
            Event::Pong(pong) => {
                Heard::Pong(pong.token, pong.rtt_ns, String::from_utf8_lossy(pong.text).into_owned())
            }
            Event::TunnelPeer(peer) => Heard::TunnelPeer { lanes: peer.lanes, lanes_lost: peer.lanes_lost },
            Event::SnapshotEnd(end) => Heard::SnapshotEnd(end.token),
            Event::RingReset(_) => Heard::RingReset,
        }
    }
}

impl Control {
    fn wait_for_event(&self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let idle = self.events.iter().all(Consumer::prepare_sleep);
        if idle {
            let doorbells = self.link.workers.iter().map(|worker| worker.event_doorbell.as_fd());
            let mut polled: Vec<PollFd<'_>> =
                doorbells.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut polled, PollTimeout::from(1000u16)).unwrap();
        }
        for (worker, events) in self.link.workers.iter().zip(&self.events) {
            events.wake();
            worker.event_doorbell.answer().unwrap();
        }
    }
}
