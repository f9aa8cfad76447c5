//! The thread that a replica lives in: takes what comes, makes records durable, carries the rest out, answers sessions.
//!
//! One rule makes it safe: nothing of a turn leaves before all records of the turn are on disk. Many inputs share a
//! turn and its flush. Where the disk fails, the replica is gone as in a crash, and comes back from what is durable.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dwcp_consensus::{
    Anchor, Apply, Config, Crypto, Digest, Ed25519, EpochParts, Epochs, Input, MILLISECOND, Maker, Output,
    Plan, Refusal, Replica, ReplicaId, Start, Time, TransactionId,
};
use tokio::sync::{oneshot, watch};

use super::links::Links;
use super::state::State;
use super::store::{Change, Identity, Store, StoreError};
use super::view::View;
use super::{Answer, SubmitError};

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// A message of a member.
    Message { from: ReplicaId, bytes: Vec<u8> },
    /// A command for the order.
    Submit(Submission),
    /// Ends the thread.
    Stop,
}

/// A command, and who waits for it.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) command: Vec<u8>,
    /// The caller's own name for it: the same name is applied once.
    pub(super) name: Option<TransactionId>,
    /// Then read this value.
    pub(super) then: Option<String>,
    pub(super) reply: oneshot::Sender<Result<Answer, SubmitError>>,
}

/// Everything the thread has.
pub(super) struct Driver {
    pub(super) file: PathBuf,
    pub(super) identity: Identity,
    pub(super) inbox: Receiver<Request>,
    pub(super) links: Arc<Links>,
    pub(super) view: Arc<Mutex<View>>,
    pub(super) anchor: watch::Sender<Anchor>,
    /// Client number of this process: commands of a former life have another.
    pub(super) client: u64,
}

/// Settings and keys of each epoch.
#[derive(Debug)]
struct Seat {
    identity: Identity,
}

impl Maker for Seat {
    fn config(&self, plan: &Plan, binding: Digest) -> Option<Config> {
        Config::of_plan(ReplicaId(self.identity.replica), plan, binding, Digest(self.identity.cluster))
    }

    fn crypto(&self, plan: &Plan) -> Box<dyn Crypto> {
        let Identity { signing, random, .. } = &self.identity;
        // Whose commands they are is the members' own business: each admits what its clients may do.
        let keys = Ed25519::new(signing, random, &plan.members, |_| true);
        Box::new(keys.expect("keys are checked before their member is admitted"))
    }
}

struct Turn {
    store: Store,
    epochs: Epochs,
    state: State,
    sessions: Sessions,
    wish: Option<Plan>,
    probe: Option<Instant>,
    next_probe: Instant,
}

impl Driver {
    /// Runs until it is told to stop or nobody can tell it any more.
    pub(super) fn run(mut self) {
        let start = Instant::now();
        let mut sessions = Sessions { client: self.client, ..Sessions::default() };
        loop {
            match self.live(start, &mut sessions) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(component = "acp", %error, "replica stopped; it comes back from its records");
                    self.view().trouble = Some(error.to_string());
                }
            }
            if self.wait_out(Duration::from_secs(1)) {
                return;
            }
        }
    }

    /// Lets a second pass; true where the end was asked for.
    fn wait_out(&mut self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Ok(Request::Submit(submission)) => drop(submission.reply.send(Err(SubmitError::Busy))),
                Ok(Request::Message { .. }) => {}
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One life of the replica.
    fn live(&mut self, start: Instant, sessions: &mut Sessions) -> Result<(), StoreError> {
        let Some((store, identity)) = Store::open(&self.file)? else { return Ok(()) };
        let records = store.records()?;
        let found = if records.is_empty() { Start::Fresh } else { Start::Resume(records) };
        let parts = EpochParts {
            me: ReplicaId(identity.replica),
            maker: Box::new(Seat { identity: identity.clone() }),
            anchor: identity.anchor.clone(),
            start: found,
        };
        let state = State::of_plan(&identity.anchor.plan);
        let epochs = Epochs::start(parts, time(start)).map_err(|_| store.damaged("what the replica kept"))?;
        let now = Instant::now();
        let sessions = std::mem::take(sessions);
        let mut turn = Turn { store, epochs, state, sessions, wish: None, probe: None, next_probe: now };
        self.view().trouble = None;
        self.carry_out(&mut turn, start)?;
        loop {
            let now = time(start);
            let due = turn.epochs.poll_timeout().min(now + 50 * MILLISECOND);
            let wait = Duration::from_nanos(due.saturating_sub(now));
            match self.inbox.recv_timeout(wait) {
                Ok(first) => {
                    for request in std::iter::once(first).chain(self.inbox.try_iter().take(REQUESTS_MAX)) {
                        if !take(&mut turn, request, time(start)) {
                            return Ok(());
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if turn.epochs.poll_timeout() <= time(start) {
                turn.epochs.handle(time(start), Input::Tick);
            }
            turn.probe(&self.view, time(start));
            turn.submit_again(time(start));
            self.wish(&mut turn, time(start));
            self.carry_out(&mut turn, start)?;
            self.publish(&turn);
        }
    }

    /// What the members want is what the state says: the same at all of them.
    fn wish(&self, turn: &mut Turn, now: Time) {
        let wanted = turn.state.wanted(turn.epochs.plan());
        if wanted.is_some() && wanted != turn.wish {
            turn.wish.clone_from(&wanted);
            if let Some(plan) = wanted {
                turn.epochs.handle(now, Input::Succeed(plan));
            }
        }
    }

    /// Makes records durable, then does the rest, until nothing is left to do.
    fn carry_out(&self, turn: &mut Turn, start: Instant) -> Result<(), StoreError> {
        loop {
            let mut changes = Vec::new();
            let mut rest = Vec::new();
            while let Some(output) = turn.epochs.poll_output() {
                match output {
                    Output::Persist { key, value } => changes.push(Change::Put(key, value)),
                    Output::Forget { key } => changes.push(Change::Remove(key)),
                    other => rest.push(other),
                }
            }
            if changes.is_empty() && rest.is_empty() {
                return Ok(());
            }
            if !changes.is_empty() {
                turn.store.commit(&changes)?;
            }
            for output in rest {
                self.perform(turn, output, start)?;
            }
        }
    }

    fn perform(&self, turn: &mut Turn, output: Output, start: Instant) -> Result<(), StoreError> {
        match output {
            Output::Send { to, bytes } => self.links.send(to, bytes),
            Output::Apply(apply) => turn.apply(&apply, &self.view),
            Output::TakeSnapshot { position } => {
                let state = turn.state.snapshot().into();
                turn.epochs.handle(time(start), Input::Snapshot { position, state });
            }
            Output::Restore { position, state } => {
                turn.state = match state {
                    None => State::of_plan(&self.identity.anchor.plan),
                    Some(state) => State::from_snapshot(&state)
                        .map_err(|_| turn.store.damaged("the state of a checkpoint"))?,
                };
                tracing::info!(component = "acp", position, "state taken over");
            }
            Output::Refused { transaction, refusal } => turn.sessions.refused(transaction, refusal),
            Output::Evidence(evidence) => {
                let culprit = evidence.culprit.0;
                if self.view().suspects.insert(culprit) {
                    tracing::error!(
                        component = "acp",
                        culprit,
                        "a member signed two statements that exclude each other"
                    );
                }
            }
            Output::Began(began) => {
                let (epoch, protocol) = (began.plan.epoch, began.plan.protocol.name());
                let (members, voting) = (began.plan.members.len(), began.plan.committee.len());
                tracing::info!(component = "acp", epoch, protocol, members, voting, "epoch began");
                self.links.use_plan(ReplicaId(self.identity.replica), &began.plan);
                let mut view = self.view();
                view.switches += u64::from(view.plan.as_ref().is_some_and(|plan| plan.epoch < epoch));
                view.began(&began);
                drop(view);
                turn.wish = None;
                self.anchor.send_replace(turn.epochs.anchor().clone());
            }
            Output::Probable(probable) => {
                let mut view = self.view();
                view.forecasts += 1;
                for name in &probable.transactions {
                    if let Some(waiting) = turn.sessions.waiting.get(name) {
                        view.probable_after.observe(waiting.since.elapsed());
                    }
                }
            }
            Output::Reached(reached) => self.view().reached(reached),
            Output::Persist { .. } | Output::Forget { .. } | Output::Ended(_) => {}
        }
        Ok(())
    }

    fn publish(&self, turn: &Turn) {
        let mut view = self.view();
        view.figures = turn.epochs.figures();
        view.is_running = turn.epochs.is_running();
        view.waiting = turn.sessions.waiting.len();
        view.values = turn.state.values.len();
    }
}

/// False where the end is asked for.
fn take(turn: &mut Turn, request: Request, now: Time) -> bool {
    match request {
        Request::Message { from, bytes } => {
            turn.epochs.handle(now, Input::Message { from, bytes: &bytes });
        }
        Request::Submit(submission) => turn.submit(submission, now),
        Request::Stop => return false,
    }
    true
}

impl Turn {
    fn submit(&mut self, submission: Submission, now: Time) {
        if self.sessions.waiting.len() >= WAITING_MAX {
            drop(submission.reply.send(Err(SubmitError::Busy)));
            return;
        }
        let name = submission.name.unwrap_or_else(|| self.sessions.next());
        let waiting = self.sessions.waiting.entry(name).or_insert_with(|| Waiting {
            command: submission.command,
            replies: Vec::new(),
            since: Instant::now(),
            said: now,
        });
        waiting.replies.push((submission.then, submission.reply));
        if waiting.replies.len() == 1 {
            self.epochs.handle(now, Input::Submit { transaction: name, payload: &waiting.command });
        }
    }

    /// What was not answered is submitted again, and given up when nobody waits for it any more.
    fn submit_again(&mut self, now: Time) {
        self.sessions.waiting.retain(|_, waiting| {
            waiting.replies.retain(|(_, reply)| !reply.is_closed());
            !waiting.replies.is_empty()
        });
        for (name, waiting) in &mut self.sessions.waiting {
            if waiting.said + SUBMITTED_AGAIN <= now {
                waiting.said = now;
                self.epochs.handle(now, Input::Submit { transaction: *name, payload: &waiting.command });
            }
        }
    }

    fn apply(&mut self, apply: &Apply, view: &Mutex<View>) {
        let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, command) in apply.transactions() {
            let outcome = self.state.apply(apply.position, command);
            view.applied[self.epochs.plan().protocol as usize] += 1;
            let Some(waiting) = self.sessions.waiting.remove(&name) else { continue };
            view.latency.observe(waiting.since.elapsed());
            for (then, reply) in waiting.replies {
                let answer = match then {
                    None => Answer::Outcome(outcome.clone()),
                    Some(key) => Answer::Value(self.state.values.get(&key).cloned()),
                };
                // Who went away needs no answer.
                drop(reply.send(Ok(answer)));
            }
        }
    }

    /// A command that changes nothing, now and then: whether the cluster still decides, and how fast.
    fn probe(&mut self, view: &Mutex<View>, at: Time) {
        let now = Instant::now();
        if self.probe.is_some_and(|since| now > since + PROBE_PATIENCE) {
            (self.probe, self.sessions.probe_answer) = (None, None);
            let mut view = view.lock().unwrap_or_else(PoisonError::into_inner);
            view.failures += 1;
            view.is_deciding = false;
        }
        let name = TransactionId { client: self.sessions.client, sequence: self.sessions.probe };
        if self.probe.is_some() && !self.sessions.waiting.contains_key(&name) {
            self.probe = None;
            view.lock().unwrap_or_else(PoisonError::into_inner).is_deciding = true;
        }
        if now >= self.next_probe && self.probe.is_none() {
            self.next_probe = now + PROBE_INTERVAL;
            self.probe = Some(now);
            let (reply, answer) = oneshot::channel();
            self.sessions.probe_answer = Some(answer);
            let name = self.sessions.next();
            self.sessions.probe = name.sequence;
            let command = vec![0, 0];
            self.submit(Submission { command, name: Some(name), then: None, reply }, at);
        }
    }
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Sessions {
    client: u64,
    used: u64,
    waiting: BTreeMap<TransactionId, Waiting>,
    probe: u64,
    /// Held so that somebody waits for the probe.
    probe_answer: Option<oneshot::Receiver<Result<Answer, SubmitError>>>,
}

type Reply = (Option<String>, oneshot::Sender<Result<Answer, SubmitError>>);

#[derive(Debug)]
struct Waiting {
    command: Vec<u8>,
    replies: Vec<Reply>,
    since: Instant,
    said: Time,
}

impl Sessions {
    fn next(&mut self) -> TransactionId {
        self.used += 1;
        TransactionId { client: self.client, sequence: self.used }
    }

    fn refused(&mut self, name: TransactionId, refusal: Refusal) {
        let answer = match refusal {
            // It is submitted again.
            Refusal::Busy => return,
            Refusal::Repeated => Ok(Answer::Repeated),
            Refusal::TooLarge => Err(SubmitError::TooLarge),
        };
        let replies = self.waiting.remove(&name).map(|waiting| waiting.replies).unwrap_or_default();
        for (_, reply) in replies {
            drop(reply.send(match &answer {
                Ok(_) => Ok(Answer::Repeated),
                Err(_) => Err(SubmitError::TooLarge),
            }));
        }
    }
}

/// Nanoseconds since the thread began; never 0.
fn time(start: Instant) -> Time {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(Time::MAX).saturating_add(1)
}

/// Requests of one turn, and of one flush.
const REQUESTS_MAX: usize = 512;
/// Commands that wait at a time. The counts of a client that are told apart are 256.
const WAITING_MAX: usize = 128;
const SUBMITTED_AGAIN: Time = 2000 * MILLISECOND;
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_PATIENCE: Duration = Duration::from_secs(15);
