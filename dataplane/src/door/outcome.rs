//! How connections end, well or badly: lanes handed over, failures counted, reported and let go. The second half of
//! [`super::turn`]; it decides nothing about when.
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::attempt::{Attempt, Origin, Phase};
use super::counters::Verdict;
use super::dial::{Dial, Waiting};
use super::handshake::{Greeted, HandshakeError};
use super::parting::{PARTING_TIME, Parting};
use super::plan::PeerName;
use super::report::{self, Dialled};
use super::turn::Turn;
use super::{DialFailed, DialFailure, LaneReady, Purpose};

impl Turn {
    pub(super) fn finish_greeting(&mut self, attempt: Attempt) {
        let Attempt { stream, remote, origin, phase, .. } = attempt;
        let Phase::Greeting { handshake, .. } = phase else { return };
        let finished = handshake.finish().and_then(|greeted| {
            stream.set_nonblocking(false)?;
            Ok(greeted)
        });
        match finished {
            Ok(greeted) => self.hand_over(stream, remote, &origin, greeted),
            Err(error) => self.report_failure(&origin, remote, &error),
        }
    }

    fn hand_over(&mut self, stream: TcpStream, remote: SocketAddr, origin: &Origin, greeted: Greeted) {
        let Greeted { fingerprint, agreement, secrets, pair } = greeted;
        let peer = self.plan.by_fingerprint(&fingerprint).map(|peer| peer.name.clone());
        let expected = match origin {
            Origin::Dialled(dial) => Some(&dial.peer.name),
            Origin::Accepted | Origin::Over(_) => peer.as_ref(),
        };
        let Some(peer) = peer.as_ref().filter(|peer| Some(*peer) == expected) else {
            // The plan has changed since the greeting began.
            let error = HandshakeError::Identity { presented: fingerprint };
            return self.report_failure(origin, remote, &error);
        };
        self.parts.counters.count_success();
        self.parts.sink.lane_ready(LaneReady {
            fd: stream.into(),
            peer: peer.clone(),
            direction: origin.direction(),
            purpose: Purpose::of(agreement.features),
            instance: agreement.instance,
            token: agreement.token,
            version: agreement.version,
            features: agreement.features,
            chunk_length_max: agreement.chunk_length_max,
            credit_bytes: agreement.credit_bytes,
            secrets,
            pair,
            remote,
        });
    }

    pub(super) fn fail_greeting(&mut self, id: u64, attempt: Attempt, error: &HandshakeError) {
        let Attempt { stream, remote, started, deadline, origin, .. } = attempt;
        self.report_failure(&origin, remote, error);
        let Some(parting) = Parting::begin(&stream) else { return };
        let deadline = deadline.min(Instant::now() + PARTING_TIME);
        let origin = Origin::Over(origin.direction());
        let phase = Phase::Parting(parting);
        self.attempts.insert(id, Attempt { stream, remote, started, deadline, origin, phase });
        self.advance(id);
    }

    fn report_failure(&mut self, origin: &Origin, remote: SocketAddr, error: &HandshakeError) {
        if let (HandshakeError::Rdma(why), Origin::Dialled(dial)) = (error, origin) {
            self.rdma().broke(&dial.peer.name, &why.to_string(), Instant::now());
        }
        let verdict = report::verdict(error);
        self.parts.counters.count(verdict);
        match origin {
            Origin::Dialled(dial) => {
                let dialled = Dialled { peer: &dial.peer, remote, own: self.own };
                let (failure, reason) = report::handshake_failed(dialled, error);
                self.fail_dial(dial, failure, reason);
            }
            Origin::Accepted if verdict == Verdict::Refused => {
                self.warn(|| tracing::warn!(%remote, %error, "a connection was refused"));
            }
            Origin::Accepted | Origin::Over(_) => tracing::debug!(%remote, %error, "a connection failed"),
        }
    }

    pub(super) fn fail_dial(&mut self, dial: &Dial, failure: DialFailure, reason: String) {
        if failure.concerns_peer() {
            for waiting in self.queue.take_of_peer(&dial.peer.name) {
                self.drop_waiting(waiting, failure, reason.clone());
            }
        }
        let (peer, token, purpose) = (dial.peer.name.clone(), dial.token, dial.purpose);
        self.parts.sink.dial_failed(DialFailed { peer, token, purpose, lanes: 1, failure, reason });
    }

    pub(super) fn drop_waiting(&mut self, waiting: Waiting, failure: DialFailure, reason: String) {
        let Waiting { token, purpose, lanes, .. } = waiting;
        let peer = waiting.peer.name.clone();
        self.parts.sink.dial_failed(DialFailed { peer, token, purpose, lanes, failure, reason });
    }

    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        for waiting in self.queue.take_overdue(now) {
            let reason = report::unresolved(&waiting.peer, "no answer in time");
            self.drop_waiting(waiting, DialFailure::Unresolved, reason);
        }
        let overdue = self.attempts.iter().filter(|(_, attempt)| attempt.due() <= now);
        for id in overdue.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(attempt) = self.attempts.remove(&id) else { continue };
            match (&attempt.origin, &attempt.phase) {
                (Origin::Dialled(_), Phase::Connecting { .. }) if now < attempt.deadline => {
                    self.connect_failed(attempt, &io::ErrorKind::TimedOut.into());
                }
                (Origin::Dialled(dial), _) => {
                    self.parts.counters.count(Verdict::TimedOut);
                    let seconds = attempt.deadline.duration_since(attempt.started).as_secs_f32();
                    let tried = [dial.failures(), &[attempt.remote.to_string()]].concat().join("; ");
                    let reason = report::timed_out(&dial.peer.name, &tried, seconds);
                    self.fail_dial(dial, DialFailure::TimedOut, reason);
                }
                (Origin::Accepted, _) => {
                    self.parts.counters.count(Verdict::TimedOut);
                    tracing::debug!(remote = %attempt.remote, "a connection was not complete in time");
                }
                (Origin::Over(_), _) => {}
            }
        }
    }

    /// Everything unfinished ends here, and whoever waits for it hears so.
    pub(super) fn close(mut self) {
        let reason = |peer: &PeerName| format!("this node is stopping: no lane to the peer `{peer}`");
        for attempt in std::mem::take(&mut self.attempts).into_values() {
            if let Origin::Dialled(dial) = &attempt.origin {
                self.fail_dial(dial, DialFailure::Busy, reason(&dial.peer.name));
            }
        }
        for waiting in self.queue.take_all() {
            let reason = reason(&waiting.peer.name);
            self.drop_waiting(waiting, DialFailure::Busy, reason);
        }
        self.parts.counters.set_half_open(0);
    }
}
