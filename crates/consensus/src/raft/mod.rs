//! Raft (Ongaro and Ousterhout, USENIX ATC 2014, with the pre-vote of Ongaro's thesis, section 9.6) over the shared
//! mempool: for members that stop and never lie. A majority decides, in two hops from the leader.
//!
//! It is a protocol like the others, and no library: so its steps into and out of other protocols, its checkpoints and
//! its exactly-once application are those that all have, and the simulator runs it as it is.
//!
//! Obligations, and where they are met:
//! - One vote for each term, restarts included, and only for who has at least the voter's log: [`election`].
//! - A leader never changes its log, and a follower's agrees with the leader's up to where it says so: [`replication`].
//! - A leader counts as committed only what a majority has and ends with an entry of its own term.
//! - Who forgot its records neither votes nor says that it has anything, until the epoch ends.
//!
//! Membership is the epoch's, so that no two configurations ever overlap.
mod election;
mod log;
pub(crate) mod messages;
mod replication;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::core::{COUNT_MAX, Core, Status};
use crate::io::{Corrupt, Key, Output};
use crate::node::Protocol;
use crate::types::{Digest, ReplicaId, Time, domain};
use crate::wire::{Reader, Wire};
use log::Log;
use messages::{Entry, Message, TermRecord};
use replication::Follower;

/// The order by Raft.
#[derive(Debug)]
pub(crate) struct Raft {
    term: u64,
    voted: Option<ReplicaId>,
    role: Role,
    /// Who leads this term, where that is known.
    leader: Option<ReplicaId>,
    log: Log,
    commit: u64,
    /// The highest slot that is handed to the ledger.
    delivered: u64,
    /// When this replica stands for leader, should it hear of none.
    stands_at: Time,
    /// When a leader was heard of last.
    heard: Time,
    /// Elections since something was committed.
    tries: u32,
    /// When own entries were put into the log, for metrics.
    since: BTreeMap<u64, Time>,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Asks for votes, or only whether it would get them.
    Candidate {
        only_asks: bool,
        votes: Vec<ReplicaId>,
    },
    Leader {
        followers: BTreeMap<ReplicaId, Follower>,
        beats_at: Time,
    },
}

/// Kinds of records.
const RECORD_TERM: u8 = 1;
const RECORD_ENTRY: u8 = 2;

impl Protocol for Raft {
    type Message = Message;

    fn new(core: &mut Core, records: &[(Key, Vec<u8>)]) -> Result<Self, Corrupt> {
        let stable = core.checkpoints.stable_position();
        let mut term = TermRecord { term: 0, voted: None };
        let mut entries = BTreeMap::new();
        for (key, value) in records {
            match key {
                Key::Protocol { kind: RECORD_TERM, .. } => {
                    term = TermRecord::decoded(value)?;
                    if term.term > COUNT_MAX {
                        return Err(Corrupt);
                    }
                }
                Key::Protocol { kind: RECORD_ENTRY, number } => {
                    entries.insert(*number, Entry::decoded(value)?);
                }
                Key::Stable
                | Key::Batch { .. }
                | Key::Protocol { .. }
                | Key::Epoch
                | Key::Origin { .. }
                | Key::Link { .. } => {}
            }
        }
        let mut raft = Self {
            term: term.term,
            voted: term.voted,
            role: Role::Follower,
            leader: None,
            log: Log::new(stable, entries),
            commit: stable,
            delivered: stable,
            stands_at: 0,
            heard: 0,
            tries: 0,
            since: BTreeMap::new(),
        };
        raft.wait_for_leader(core);
        Ok(raft)
    }

    fn handle_message(&mut self, core: &mut Core, from: ReplicaId, message: Message) {
        if !core.config.committee.contains(from) || message.term() > COUNT_MAX {
            return core.refuse();
        }
        match message {
            Message::Append(append) => self.handle_append(core, from, append),
            Message::Appended(answer) => self.handle_appended(core, from, &answer),
            Message::AskVote(ask) => self.handle_ask_vote(core, from, &ask),
            Message::Voted(voted) => self.handle_voted(core, from, &voted),
        }
    }

    fn handle_status(&mut self, _core: &mut Core, _from: ReplicaId, _status: &Status) {}

    fn advance(&mut self, core: &mut Core) {
        self.watch(core);
        self.propose(core);
        self.beat(core);
        self.deliver(core);
    }

    fn retry(&mut self, _core: &mut Core) {}

    fn handle_stable(&mut self, core: &mut Core, position: u64) {
        if let Some(term) = self.log.term(position) {
            self.rebase(core, position, term);
        }
    }

    fn handle_restored(&mut self, core: &mut Core, position: u64, order_state: &[u8]) {
        let term = Reader::new(order_state).take(8).ok().and_then(|bytes| u64::decoded(bytes).ok());
        self.rebase(core, position, term.unwrap_or_default());
        self.commit = self.commit.max(position);
        self.delivered = position;
        self.deliver(core);
    }

    fn mark(&self) -> u64 {
        2 * self.term + u64::from(self.leader.is_some())
    }

    fn is_busy(&self, core: &Core) -> bool {
        self.log.last().0 > self.commit || core.mempool.is_waiting()
    }

    fn timeout(&self, core: &Core) -> Time {
        match &self.role {
            Role::Leader { beats_at, .. } => *beats_at,
            Role::Follower | Role::Candidate { .. } if self.votes(core) => self.stands_at,
            Role::Follower | Role::Candidate { .. } => Time::MAX,
        }
    }

    fn sizes(&self) -> (usize, usize) {
        (self.log.len(), 0)
    }
}

impl Raft {
    /// Whether this replica may vote and say what it has.
    fn votes(&self, core: &Core) -> bool {
        core.is_member() && !core.lost
    }

    /// Begins to wait for a leader anew. Half of the time at random, so that seldom two stand at once; longer after
    /// elections that came to nothing, as how long messages and disks take is not known.
    fn wait_for_leader(&mut self, core: &Core) {
        let patience = self.patience(core);
        let mut bytes = core.config.me.encoded();
        (self.term, core.now).write(&mut bytes);
        let Digest([a, b, c, d, ..]) = Digest::of(domain::LOTS, &bytes);
        let share = u64::from(u32::from_le_bytes([a, b, c, d]));
        self.stands_at = core.now + patience + (((patience / 2) * share) >> 32);
    }

    fn patience(&self, core: &Core) -> Time {
        (core.config.leader_timeout << (self.tries / 2).min(16)).min(core.config.leader_timeout_max)
    }

    fn persist_term(&self, core: &mut Core) {
        let record = TermRecord { term: self.term, voted: self.voted };
        let key = Key::Protocol { kind: RECORD_TERM, number: 0 };
        core.put(Output::Persist { key, value: record.encoded() });
    }

    fn persist_entry(&self, core: &mut Core, slot: u64) {
        let Some(entry) = self.log.get(slot) else { return };
        let key = Key::Protocol { kind: RECORD_ENTRY, number: slot };
        core.put(Output::Persist { key, value: entry.encoded() });
    }

    fn rebase(&mut self, core: &mut Core, position: u64, term: u64) {
        for number in self.log.rebase(position, term) {
            core.put(Output::Forget { key: Key::Protocol { kind: RECORD_ENTRY, number } });
        }
        self.since = self.since.split_off(&(position + 1));
    }

    /// Hands committed blocks to the ledger.
    fn deliver(&mut self, core: &mut Core) {
        while self.delivered < self.commit
            && let Some(entry) = self.log.get(self.delivered + 1)
        {
            self.delivered += 1;
            core.order(self.delivered, entry.block.batches.clone(), entry.term.encoded());
        }
    }
}
