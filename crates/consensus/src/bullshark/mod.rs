//! Bullshark (Spiegelman et al., CCS 2022; the partially synchronous rule of arXiv 2209.05633) over the shared mempool,
//! with Narwhal's certified DAG (Danezis et al., EuroSys 2022): every member proposes in every round, and the order is
//! read off the graph without another message.
//!
//! Proof obligations, and where they are met:
//! - One certified vertex per author and round: a member votes for one header of each, restarts included, as [`vertices`]
//!   persists votes before it sends them; and for its own header likewise.
//! - Whoever has a vertex has its history: [`dag`] inserts no vertex before its parents, down to a round that no leader
//!   to come reaches.
//! - All commit the same leaders in the same order: `one_correct` vertices of the next round name a committed leader, and
//!   any quorum of parents after that meets one of them, so every later leader has a path to it ([`commit`]).
//! - What a leader takes along depends on nothing but the leader's history and the rounds kept, which all have.
//! - Rounds held are bounded: beyond `dag_rounds_max` above its stable checkpoint a member proposes as slowly as the
//!   longest patience, beyond twice that not at all. It must not stop at the first bound: with no leader committed so far,
//!   only more rounds commit one.
mod commit;
mod dag;
pub(crate) mod messages;
mod sync;
mod vertices;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::core::{Core, Status};
use crate::io::{Corrupt, Key, Output};
use crate::node::Protocol;
use crate::types::{Digest, ReplicaId, Time};
use crate::votes::Votes;
use crate::wire::Wire;
use dag::Dag;
use messages::{Header, Message, OrderState, Vertex, VoteRecord};

/// The order by Bullshark.
#[derive(Debug)]
pub(crate) struct Bullshark {
    dag: Dag,
    /// The own header of the latest round.
    own: Option<Own>,
    /// The round that the own header is for; 0 before the first.
    round: u64,
    /// Since when the round before the next header has a quorum.
    complete_since: Option<(u64, Time)>,
    proposed_at: Time,
    /// When the own vertex before was certified; 0 before the first.
    certified_at: Time,
    /// When own headers were made that are not ordered, by round.
    own_since: BTreeMap<u64, Time>,
    /// The last vote for each author: never one for the same round or an earlier one.
    voted: BTreeMap<ReplicaId, VoteRecord>,
    /// Headers that wait for their parents, the latest of each author.
    held: BTreeMap<ReplicaId, (Header, crate::crypto::Signature)>,
    /// Certified vertices that wait for their parents.
    waiting: BTreeMap<(u64, ReplicaId), Vertex>,
    /// The last committed leader's round.
    committed: u64,
    /// How many leaders were committed.
    position: u64,
    /// Rounds of leaders that are committed and not stable yet.
    leaders: BTreeMap<u64, u64>,
    /// The round of the leader at the stable checkpoint.
    stable_round: u64,
    /// Vertices that are ordered, by round.
    ordered: BTreeMap<u64, u128>,
    /// Vertices with batches that are not ordered.
    pending: BTreeSet<(u64, ReplicaId)>,
    /// After a loss: where others were when they were asked.
    heard: BTreeMap<ReplicaId, u64>,
    attempts: usize,
}

#[derive(Debug)]
struct Own {
    header: Header,
    digest: Digest,
    votes: Votes,
    certified: bool,
}

/// Kinds of records.
const RECORD_HEADER: u8 = 1;
const RECORD_VOTE: u8 = 2;
const RECORD_VERTEX: u8 = 3;

impl Protocol for Bullshark {
    type Message = Message;

    fn new(core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<Self, Corrupt> {
        let mut bullshark = Self {
            dag: Dag::default(),
            own: None,
            round: 0,
            complete_since: None,
            certified_at: 0,
            own_since: BTreeMap::new(),
            proposed_at: core.now,
            voted: BTreeMap::new(),
            held: BTreeMap::new(),
            waiting: BTreeMap::new(),
            committed: 0,
            position: 0,
            leaders: BTreeMap::new(),
            stable_round: 0,
            ordered: BTreeMap::new(),
            pending: BTreeSet::new(),
            heard: BTreeMap::new(),
            attempts: 0,
        };
        bullshark.resume(core, records)?;
        Ok(bullshark)
    }

    fn handle_message(&mut self, core: &mut Core, from: ReplicaId, message: Message) {
        match message {
            Message::Propose(propose) => self.handle_header(core, from, propose.header, propose.signature),
            Message::Vote(vote) => self.handle_vote(core, from, vote),
            Message::Vertex(vertex) => self.handle_vertex(core, vertex),
            Message::Fetch(wish) => self.handle_fetch(core, from, wish),
        }
    }

    fn handle_status(&mut self, core: &mut Core, from: ReplicaId, status: &Status) {
        self.learn_after_loss(core, from, status);
        self.help(core, from, status);
    }

    fn advance(&mut self, core: &mut Core) {
        self.commit(core);
        while self.propose(core) {
            self.commit(core);
        }
    }

    fn retry(&mut self, core: &mut Core) {
        self.repeat_header(core);
        self.fetch_parents(core);
    }

    fn handle_stable(&mut self, core: &mut Core, position: u64) {
        if let Some(round) = self.leaders.get(&position).copied() {
            self.stable_round = round;
        }
        self.leaders = self.leaders.split_off(&(position + 1));
        self.forget_rounds(core);
    }

    fn handle_restored(&mut self, core: &mut Core, position: u64, order_state: &[u8]) {
        let Ok(state) = OrderState::decoded(order_state) else {
            // A quorum signed what is no state of this protocol.
            core.figures.conflicts += 1;
            return;
        };
        self.position = position;
        self.committed = state.committed;
        self.stable_round = state.committed;
        self.ordered = state.ordered.into_iter().map(|ordered| (ordered.round, ordered.authors)).collect();
        self.leaders.clear();
        self.forget_rounds(core);
        self.pending = self
            .dag
            .above(self.floor(core))
            .filter(|vertex| self.is_pending(vertex))
            .map(Vertex::place)
            .collect();
        core.ledger.forget_ordered();
        self.insert_waiting(core);
        self.propose_given_up_again(core);
        self.commit(core);
    }

    fn mark(&self) -> u64 {
        self.dag.complete_round()
    }

    fn is_busy(&self, core: &Core) -> bool {
        core.mempool.is_busy() || core.lost || self.has_work(core) || !self.waiting.is_empty()
    }

    fn timeout(&self, core: &Core) -> Time {
        self.proposes_at(core)
    }

    fn sizes(&self) -> (usize, usize) {
        (self.dag.rounds(), self.held.len() + self.waiting.len())
    }
}

impl Bullshark {
    /// Whether this replica may vote.
    fn votes(&self, core: &Core) -> bool {
        core.is_member() && !core.lost
    }

    /// Rounds up to this one are of no use to any leader to come.
    fn floor(&self, core: &Core) -> u64 {
        self.committed.saturating_sub(core.config.dag_rounds_kept)
    }

    /// The highest round that is looked at. Beyond it this replica is so far behind that it needs a snapshot.
    fn ceiling(&self, core: &Core) -> u64 {
        self.stable_round + 2 * core.config.dag_rounds_max + core.config.dag_rounds_kept
    }

    fn vertex_key(round: u64, author: ReplicaId) -> Key {
        Key::Protocol { kind: RECORD_VERTEX, number: round << 16 | u64::from(author.0) }
    }

    /// Lets go of rounds that neither this replica needs nor one that begins at the stable checkpoint.
    fn forget_rounds(&mut self, core: &mut Core) {
        let kept = core.config.dag_rounds_kept;
        let end = self.stable_round.min(self.committed).saturating_sub(kept) + 1;
        for (round, author) in self.dag.forget_below(end) {
            core.put(Output::Forget { key: Self::vertex_key(round, author) });
        }
        let floor = self.floor(core);
        self.waiting.retain(|(round, _), _| *round > floor);
        self.held.retain(|_, (header, _)| header.round > floor);
        self.pending = self.pending.split_off(&(floor + 1, ReplicaId(0)));
        self.dag.skip_to(floor);
    }

    fn resume(&mut self, core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<(), Corrupt> {
        for (key, value) in records {
            match key {
                Key::Protocol { kind: RECORD_HEADER, .. } => {
                    let header = Header::decoded(value)?;
                    self.round = header.round;
                    self.begin_own(core, header);
                }
                Key::Protocol { kind: RECORD_VOTE, number } => {
                    let record = VoteRecord::decoded(value)?;
                    let vote = self.voted.entry(ReplicaId(*number as u16)).or_insert(record);
                    *vote = if vote.round < record.round { record } else { *vote };
                }
                Key::Protocol { kind: RECORD_VERTEX, .. } => {
                    let vertex = Vertex::decoded(value)?;
                    let round = vertex.header.round;
                    self.pending.extend(self.is_pending(&vertex).then(|| vertex.place()));
                    self.dag.insert(vertex);
                    self.dag.note_complete(round, core.config.committee.quorum());
                }
                Key::Stable
                | Key::Batch { .. }
                | Key::Protocol { .. }
                | Key::Epoch
                | Key::Origin { .. }
                | Key::Link { .. } => {}
            }
        }
        if let Some(own) = &mut self.own {
            own.certified = self.dag.has(own.header.round, core.config.me);
        }
        Ok(())
    }
}
