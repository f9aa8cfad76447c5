//! What is said again because a lane may have swallowed it, and when to give a job up.
//!
//! Nothing but tasks is acknowledged on the wire. So whenever a lane comes or goes, and whenever the other end has been
//! silent for a while, each end of a job asks whether the job lives there, and the sender says again what it waits for
//! an answer to. An end that does not know the job says so, and the job is over or tried again.
use alloc::string::String;
use alloc::vec::Vec;

use dwcp_abi::link::{JobState, Outcome};
use dwcp_abi::wire::{ChunkRanges, FrameKind, Held, JobAccept, ObjectOpened};

use super::{Engine, receiving, sending};
use crate::io::{JobKey, Output, Owner, PeerId, Time};

/// Questions that a silent peer gets before a job is given up.
const QUESTIONS: Time = 4;

impl Engine {
    /// Says again what lanes that came or went, and peers that asked, call for: once for a batch, however many.
    pub(super) fn resync_all(&mut self) {
        let sends: Vec<JobKey> = self.sends.keys().copied().collect();
        let receives: Vec<JobKey> = self.receives.keys().copied().collect();
        let is_due = |engine: &Self, peer| engine.peers.get(&peer).is_some_and(|peer| peer.resync);
        for job in sends {
            let due = is_due(self, job.peer);
            let Some(send) = self.sends.get_mut(&job) else { continue };
            let asked = core::mem::take(&mut send.restate);
            if due {
                self.resync_send(job);
            } else if asked {
                self.restate(job);
            }
        }
        for job in receives {
            if is_due(self, job.peer) {
                self.resync_receive(job);
            }
        }
        for peer in self.peers.values_mut() {
            peer.resync = false;
        }
    }

    fn resync_send(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        match send.stage {
            _ if send.accepted => {
                self.ask((job, send.attempt));
                self.restate(job);
            }
            sending::Stage::Opening if job.owner == Owner::Remote => {}
            sending::Stage::Opening
            | sending::Stage::Running
            | sending::Stage::Finals
            | sending::Stage::Ending => self.send_job_open(job),
        }
    }

    fn resync_receive(&mut self, job: JobKey) {
        let Some(receive) = self.receives.get(&job) else { return };
        match receive.stage {
            receiving::Stage::Asking => self.send_fetch(job),
            receiving::Stage::Opening => {}
            receiving::Stage::Running | receiving::Stage::Finishing => self.ask((job, receive.attempt)),
        }
    }

    fn ask(&mut self, job: (JobKey, u32)) {
        self.send_frame(job, FrameKind::JobAccept, &JobAccept { question: true });
    }

    /// Says again what the receiver may not have heard, or may have answered in vain.
    fn restate(&mut self, job: JobKey) {
        let Some(send) = self.sends.get(&job) else { return };
        let (attempt, ending) = (send.attempt, send.stage == sending::Stage::Ending);
        let objects: Vec<(u64, bool)> =
            send.objects.iter().map(|(&object, state)| (object, state.opened)).collect();
        for (object, opened) in objects {
            if opened {
                self.send_object_end(job, object);
            } else {
                let (chunks, baseline) = (ChunkRanges::NONE, Held::NOTHING);
                let question = ObjectOpened { object, held: false, chunks, baseline };
                self.send_frame((job, attempt), FrameKind::ObjectOpened, &question);
            }
        }
        if ending {
            self.send_job_end(job);
        }
    }

    /// The peer's process is another one: it knows none of the jobs that the former one had accepted.
    pub(super) fn peer_restarted(&mut self, peer: PeerId) {
        let text = "the peer was started anew";
        // Its numbers may begin anew as well: what a former process was told is not for this one.
        self.past.retain(|(job, _, _)| job.peer != peer);
        let sends: Vec<JobKey> = (self.sends.iter())
            .filter(|(job, send)| {
                // What went ahead is lost with the process that took it.
                let waits = !send.accepted && send.packs_filled == 0;
                job.peer == peer && !(waits && job.owner == Owner::Local)
            })
            .map(|(&job, _)| job)
            .collect();
        for job in sends {
            self.end_send(job, Outcome::Interrupted, String::from(text));
        }
        let receives: Vec<JobKey> = (self.receives.iter())
            .filter(|(job, receive)| job.peer == peer && receive.stage != receiving::Stage::Asking)
            .map(|(&job, _)| job)
            .collect();
        for job in receives {
            self.interrupt_receive(job, String::from(text));
        }
    }

    /// Why nothing is heard of a job's other end, for a person.
    fn silence(&self, peer: PeerId) -> String {
        if self.lanes_of(peer) > 0 {
            return String::from("the peer is connected but says nothing about this job; see the peer's log");
        }
        self.trouble(peer)
    }

    /// When bytes moved between here and there last. It puts off giving up, and no question: only the peer's answer says
    /// whether a job still lives there.
    fn alive(&self, peer: PeerId) -> Time {
        self.peers.get(&peer).map_or(0, |peer| peer.alive)
    }

    pub(super) fn watch_sends(&mut self) {
        let jobs: Vec<JobKey> = self.sends.keys().copied().collect();
        for job in jobs {
            let lanes = self.lanes_of(job.peer);
            let (now, patience) = (self.now, self.config.patience);
            let alive = self.alive(job.peer);
            let Some(send) = self.sends.get_mut(&job) else { continue };
            send.lanes_most = send.lanes_most.max(lanes);
            if now.saturating_sub(send.heard.max(alive)) > patience {
                let text = self.silence(job.peer);
                self.end_send(job, Outcome::Interrupted, text);
                continue;
            }
            let ask = now.saturating_sub(send.heard.max(send.asked)) > patience / QUESTIONS;
            if ask {
                send.asked = now;
            }
            if job.owner == Owner::Local {
                let is_sent = send.objects.is_empty() && send.packs_open == 0;
                let state = match send.stage {
                    _ if !send.accepted => JobState::Connecting,
                    sending::Stage::Finals | sending::Stage::Ending if is_sent => JobState::Finishing,
                    _ => JobState::Running,
                };
                let (attempt, scanned, counts) = (send.attempt, send.scanned, send.counts);
                self.outputs.push_back(Output::Progress { job, attempt, state, scanned, lanes, counts });
            }
            if ask {
                self.resync_send(job);
            }
            self.want_lanes_again(job.peer, lanes);
        }
    }

    pub(super) fn watch_receives(&mut self) {
        let jobs: Vec<JobKey> = self.receives.keys().copied().collect();
        for job in jobs {
            let lanes = self.lanes_of(job.peer);
            let (now, patience) = (self.now, self.config.patience);
            let alive = self.alive(job.peer);
            let Some(receive) = self.receives.get_mut(&job) else { continue };
            receive.lanes_most = receive.lanes_most.max(lanes);
            // Its tree is being made here: the peer is not to blame.
            if receive.stage == receiving::Stage::Opening {
                receive.heard = now;
            }
            if now.saturating_sub(receive.heard.max(alive)) > patience {
                let text = self.silence(job.peer);
                self.interrupt_receive(job, text);
                continue;
            }
            let ask = now.saturating_sub(receive.heard.max(receive.asked)) > patience / QUESTIONS;
            if ask {
                receive.asked = now;
            }
            if job.owner == Owner::Local {
                let state = match receive.stage {
                    receiving::Stage::Asking | receiving::Stage::Opening => JobState::Connecting,
                    receiving::Stage::Running => JobState::Running,
                    receiving::Stage::Finishing => JobState::Finishing,
                };
                let (attempt, scanned, counts) = (receive.attempt, receive.end.is_some(), receive.counts);
                self.outputs.push_back(Output::Progress { job, attempt, state, scanned, lanes, counts });
                self.want_lanes_again(job.peer, lanes);
            }
            if ask {
                self.resync_receive(job);
            }
        }
    }

    fn want_lanes_again(&mut self, peer: PeerId, lanes: u16) {
        let wanted = self.peers.get(&peer).map_or(0, |peer| peer.wanted);
        if lanes < wanted {
            self.outputs.push_back(Output::WantLanes { peer, lanes: wanted });
        }
    }
}
