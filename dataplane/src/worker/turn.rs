//! The loop of a worker.
use std::time::{Duration, Instant};

use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_engine::Input;
use dwcp_sys::proactor::{Errno, Wait};

use super::coding::Coding;
use super::{Token, Worker};
use crate::node::Inbox;

/// Outputs of one turn before the kernel gets its turn.
const OUTPUT_BATCH: usize = 4096;
/// Between two looks at lanes that say nothing, files that nobody uses, and figures.
const CHORES_INTERVAL: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn run(&mut self) {
        while !self.stopping {
            self.turn();
        }
        self.close_all_lanes();
    }

    /// Commands, completions, messages; then what the engine makes of them; then sleep.
    ///
    /// Completions are gathered before messages are handled and handled after them: whatever another worker said
    /// before a frame left is known here before the frame's answer is looked at.
    fn turn(&mut self) {
        let busy_since = Instant::now();
        self.now = busy_since;
        self.take_commands();
        self.take_messages();
        let mut completions = core::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.completed(completion.token, completion.result);
        }
        self.completions = completions;
        if self.now >= self.next_chores {
            self.chores();
        }
        if self.now >= self.next_pace {
            self.pace();
        }
        self.carry_out(OUTPUT_BATCH);
        self.note_all_written();
        self.engine.flush();
        let more = self.carry_out(OUTPUT_BATCH);
        self.note_all_written();
        self.report.ring();
        self.figures.add(Counter::Turns, 1);
        self.figures.add(Counter::BusyNs, busy_since.elapsed().as_nanos() as u64);
        self.sleep(more);
    }

    fn sleep(&mut self, more: bool) {
        let quiet = !self.takes_orders() || self.report.may_sleep();
        let idle = !more && self.inbox.is_empty() && quiet;
        let wait = if idle {
            Wait::Until(self.next_chores.min(self.next_pace).saturating_duration_since(Instant::now()))
        } else {
            Wait::Now
        };
        let mut completions = core::mem::take(&mut self.completions);
        if let Err(error) = self.proactor.turn(wait, &mut completions) {
            // Nothing can be sent or received any more: control sees the heartbeat stop and starts us anew.
            tracing::error!(worker = self.index, %error, "a worker lost its kernel interface");
            self.stopping = true;
        }
        self.completions = completions;
        self.report.wake();
    }

    /// Takes every message that is there already: one left behind might be what a completion is the consequence of.
    fn take_messages(&mut self) {
        for _ in 0..self.inbox.len() {
            let Ok(message) = self.inbox.try_recv() else { return };
            match message {
                Inbox::Tell { worker, tell } => self.engine_input(Input::Told { worker, tell }),
                Inbox::Tree { serial, reply } => self.tree_reply(serial, reply),
                Inbox::Lane(lane) => self.lane_ready(*lane),
                Inbox::DialFailed { peer, text } => {
                    let peer = self.node.peer_id(&peer);
                    self.engine_input(Input::DialFailed { peer, text: &text });
                }
                Inbox::Pong { token, rtt_ns, text } => self.report.pong(token, rtt_ns, &text),
                Inbox::Tunnels(report) => self.report.tunnels(&report),
                Inbox::Stop => self.stopping = true,
            }
        }
    }

    fn completed(&mut self, token: u64, result: Result<u32, Errno>) {
        match Token::unpack(token) {
            Some(Token::Receive(lane)) => self.received(lane, result),
            Some(Token::Send(lane)) => self.sent(lane, result),
            Some(Token::Read(task)) => self.chunk_read(task, result),
            Some(Token::Write(task)) => self.chunk_written(task, result),
            // The commands are taken at the start of every turn.
            Some(Token::Command) | None => {}
        }
    }

    fn chores(&mut self) {
        self.next_chores = self.now + CHORES_INTERVAL;
        self.report.damaged = false;
        self.engine_input(Input::Tick);
        self.watch_lanes();
        self.close_unused_files();
        self.forget_baselines();
        self.give_up_early_packs();
        self.follow_codecs();
        self.level_figures();
        self.figures.set(Counter::HeartbeatNs, monotonic_ns());
        self.report.publish(&self.figures);
        if let Some(traces) = self.timing.take_news() {
            self.report.show_traces(traces);
        }
    }
}

impl Worker {
    /// Takes over codecs of a new plan.
    fn follow_codecs(&mut self) {
        let plan = self.node.plan();
        if plan.generation != self.coding_generation {
            self.coding_generation = plan.generation;
            self.coding = Coding::new(&plan.transport, self.node.worker_count());
        }
    }
}

/// The monotonic clock of the host, which control reads as well.
pub(super) fn monotonic_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    nix::time::clock_gettime(clock)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
