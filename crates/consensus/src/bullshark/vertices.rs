//! From a header to a vertex: proposing, voting, certifying, inserting.
use alloc::vec::Vec;

use super::messages::{Authors, Header, Message, Propose, Vertex, Vote, VoteRecord};
use super::{Bullshark, Own, RECORD_HEADER, RECORD_VOTE};
use crate::core::{Core, Kind, mutant};
use crate::crypto::Signature;
use crate::io::{Key, Output, Reached, Stage};
use crate::types::{ReplicaId, Time};
use crate::votes::Votes;
use crate::wire::Wire;

impl Bullshark {
    /// Whether payload is under way that only more rounds can order.
    pub(super) fn has_work(&self, core: &Core) -> bool {
        !self.pending.is_empty() || core.has_own_unproposed(&|author| self.is_gone(author))
    }

    /// Whether nothing came of an author in the last rounds.
    fn is_gone(&self, author: ReplicaId) -> bool {
        let complete = self.dag.complete_round();
        (complete.saturating_sub(GONE_ROUNDS)..=complete).all(|round| !self.dag.has(round, author))
    }

    pub(super) fn is_pending(&self, vertex: &Vertex) -> bool {
        !vertex.header.batches.is_empty() && !self.is_ordered(vertex.header.round, vertex.header.author)
    }

    /// When the next header is due, should nothing else happen.
    pub(super) fn proposes_at(&self, core: &Core) -> Time {
        let Some((round, since)) = self.complete_since.filter(|_| self.votes(core)) else { return Time::MAX };
        if round < self.round || round >= self.stable_round + 2 * core.config.dag_rounds_max {
            return Time::MAX;
        }
        let leader = if self.leader_is_in(core, round) { 0 } else { since + self.patience(core, round) };
        let pace = if round >= self.stable_round + core.config.dag_rounds_max {
            self.proposed_at + core.config.leader_timeout_max
        } else if self.has_work(core) || self.dag.highest_round() > round {
            self.proposed_at
        } else {
            self.proposed_at + core.config.idle_delay
        };
        leader.max(pace)
    }

    /// Longer the longer no leader was committed: how long messages take is not known beforehand.
    fn patience(&self, core: &Core, round: u64) -> Time {
        let doublings = (round.saturating_sub(self.committed) / 4).min(8);
        (core.config.leader_timeout << doublings).min(core.config.leader_timeout_max)
    }

    /// Whether a round has what its leader needs: in an even round the leader's vertex, in an odd one enough that follow
    /// the leader before, or too few ever to come.
    fn leader_is_in(&self, core: &Core, round: u64) -> bool {
        let committee = &core.config.committee;
        if round == 0 {
            return true;
        }
        if round.is_multiple_of(2) {
            let leader = leader(core, round);
            // Nobody waits for a leader of whom nothing came for long: each of its turns would cost a timeout.
            return self.dag.has(round, leader) || self.is_gone(leader);
        }
        let author = leader(core, round - 1);
        let followers = self.dag.followers(round - 1, author);
        let others = self.dag.count(round) - followers;
        round == 1 || followers >= committee.one_correct() || others >= committee.quorum()
    }

    /// Proposes the next header when it is its time; true where it did.
    pub(super) fn propose(&mut self, core: &mut Core) -> bool {
        let before = self.dag.complete_round();
        if self.complete_since.is_none_or(|(round, _)| round < before) {
            self.complete_since = Some((before, core.now));
        }
        if before < self.round || self.proposes_at(core) > core.now {
            return false;
        }
        let voted = self.voted.get(&core.config.me).map_or(0, |vote| vote.round);
        let parents = self.dag.authors(before);
        let sound = parents.count() >= core.config.committee.quorum() || before == 0;
        if before < voted || !sound {
            return false;
        }
        let mut batches =
            core.take_own_unproposed(core.config.block_batches_max, &|author| self.is_gone(author));
        batches.retain(|batch| !core.ledger.is_done(&batch.name));
        let header = Header { author: core.config.me, round: before + 1, batches, parents };
        self.round = header.round;
        self.proposed_at = core.now;
        if !header.batches.is_empty() {
            self.own_since.insert(header.round, core.now);
        }
        if !mutant!(core, HeaderUnpersisted) {
            let key = Key::Protocol { kind: RECORD_HEADER, number: 0 };
            core.put(Output::Persist { key, value: header.encoded() });
        }
        self.begin_own(core, header);
        self.send_header(core, None);
        self.certify_own(core);
        true
    }

    /// Counts the own vote for an own header.
    pub(super) fn begin_own(&mut self, core: &mut Core, header: Header) {
        let digest = header.digest();
        let me = core.config.me;
        let mut votes = Votes::default();
        let statement = core.statement(Kind::Header, [u64::from(me.0), header.round], &digest);
        votes.add_own(me, digest, core.crypto.sign(&statement));
        self.voted.insert(me, VoteRecord { round: header.round, digest });
        self.own = Some(Own { header, digest, votes, certified: false });
    }

    fn send_header(&self, core: &mut Core, only_to: Option<&[ReplicaId]>) {
        let Some(own) = &self.own else { return };
        let statement =
            core.statement(Kind::Header, [u64::from(core.config.me.0), own.header.round], &own.digest);
        let signature = core.crypto.sign(&statement);
        let message = Message::Propose(Propose { header: own.header.clone(), signature });
        match only_to {
            None => core.broadcast_protocol(&message),
            Some(peers) => peers.iter().for_each(|peer| core.send_protocol(*peer, &message)),
        }
    }

    pub(super) fn repeat_header(&mut self, core: &mut Core) {
        let Some(own) = self.own.as_ref().filter(|own| !own.certified) else { return };
        let me = core.config.me;
        let silent =
            core.config.committee.members().iter().filter(|peer| !own.votes.contains(**peer) && **peer != me);
        let silent: Vec<_> = silent.copied().collect();
        self.send_header(core, Some(&silent));
    }

    /// A header of its author: vote for it, once its history is here, if it is the first of its round.
    pub(super) fn handle_header(
        &mut self,
        core: &mut Core,
        from: ReplicaId,
        header: Header,
        signature: Signature,
    ) {
        let in_reach = header.round > self.floor(core) && header.round <= self.ceiling(core);
        if header.author != from || !core.config.committee.contains(from) {
            return core.refuse();
        }
        if !in_reach || !self.votes(core) {
            return;
        }
        let digest = header.digest();
        let voted = self.voted.get(&from).copied().unwrap_or(VoteRecord { round: 0, digest });
        if voted.round == header.round && voted.digest == digest {
            return self.send_vote(core, from, voted);
        }
        let is_late = voted.round >= header.round;
        if is_late && !mutant!(core, VotesTwice) {
            return;
        }
        if !is_sound(core, &header) {
            return core.refuse();
        }
        if self.missing_parents(core, &header).0 != 0 {
            let round = header.round;
            let newer = self.held.get(&from).is_none_or(|(held, _)| held.round < round);
            if newer {
                self.held.insert(from, (header, signature));
                self.fetch_parents_of(core, round, from, from);
            }
            return;
        }
        let record = VoteRecord { round: header.round, digest };
        self.voted.insert(from, record);
        if !mutant!(core, VotesUnpersisted) {
            let key = Key::Protocol { kind: RECORD_VOTE, number: u64::from(from.0) };
            core.put(Output::Persist { key, value: record.encoded() });
        }
        self.send_vote(core, from, record);
    }

    fn send_vote(&self, core: &mut Core, author: ReplicaId, vote: VoteRecord) {
        let VoteRecord { round, digest } = vote;
        let signature =
            core.crypto.sign(&core.statement(Kind::Header, [u64::from(author.0), round], &digest));
        core.send_protocol(author, &Message::Vote(Vote { round, digest, signature }));
    }

    pub(super) fn handle_vote(&mut self, core: &mut Core, from: ReplicaId, vote: Vote) {
        if !core.config.committee.contains(from) {
            return core.refuse();
        }
        let Some(own) = self.own.as_mut().filter(|own| own.header.round == vote.round) else { return };
        if own.digest != vote.digest {
            return core.refuse();
        }
        own.votes.add(from, vote.digest, vote.signature);
        self.certify_own(core);
    }

    fn certify_own(&mut self, core: &mut Core) {
        let quorum = core.config.committee.quorum() - usize::from(mutant!(core, HeaderQuorumSmall));
        let Some(own) = self.own.as_mut().filter(|own| !own.certified) else { return };
        let statement =
            core.statement(Kind::Header, [u64::from(core.config.me.0), own.header.round], &own.digest);
        let Some(certificate) = own.votes.certificate(&*core.crypto, quorum, &own.digest, &statement) else {
            return;
        };
        own.certified = true;
        let now = core.now;
        core.put(Output::Reached(Reached { stage: Stage::Quorum, took: now - self.proposed_at }));
        if self.certified_at > 0 {
            core.put(Output::Reached(Reached { stage: Stage::Round, took: now - self.certified_at }));
        }
        self.certified_at = now;
        let vertex = Vertex { header: own.header.clone(), certificate };
        core.broadcast_protocol(&Message::Vertex(vertex.clone()));
        self.insert(core, vertex);
        self.insert_waiting(core);
    }

    pub(super) fn handle_vertex(&mut self, core: &mut Core, vertex: Vertex) {
        let (round, author) = (vertex.header.round, vertex.header.author);
        let known = self.dag.has(round, author) || self.waiting.contains_key(&(round, author));
        if known || round <= self.floor(core) || round > self.ceiling(core) {
            return;
        }
        if !self.is_certified(core, &vertex) {
            return core.refuse();
        }
        if self.missing_parents(core, &vertex.header).0 == 0 || mutant!(core, ParentsUnawaited) {
            self.insert(core, vertex);
            self.insert_waiting(core);
        } else {
            self.waiting.insert((round, author), vertex);
            self.fetch_parents_of(core, round, author, author);
        }
    }

    fn is_certified(&self, core: &Core, vertex: &Vertex) -> bool {
        let header = &vertex.header;
        let statement =
            core.statement(Kind::Header, [u64::from(header.author.0), header.round], &header.digest());
        if mutant!(core, HeaderQuorumSmall) {
            return vertex.certificate.signatures.len() + 1 >= core.config.committee.quorum();
        }
        mutant!(core, VerticesUnchecked)
            || vertex.certificate.holds(&*core.crypto, &core.config.committee, &statement)
    }

    /// Parents that are not in the graph. Those that no leader to come reaches are not missed.
    pub(super) fn missing_parents(&self, core: &Core, header: &Header) -> Authors {
        let before = header.round - 1;
        if before == 0 || before <= self.floor(core) {
            return Authors::default();
        }
        Authors(header.parents.0 & !self.dag.authors(before).0)
    }

    fn insert(&mut self, core: &mut Core, vertex: Vertex) {
        let (round, author) = (vertex.header.round, vertex.header.author);
        core.put(Output::Persist { key: Self::vertex_key(round, author), value: vertex.encoded() });
        self.waiting.remove(&(round, author));
        self.pending.extend(self.is_pending(&vertex).then(|| vertex.place()));
        self.dag.insert(vertex);
        self.dag.note_complete(round, core.config.committee.quorum());
    }

    /// Inserts what waited for parents that are here now, and votes for headers that did.
    pub(super) fn insert_waiting(&mut self, core: &mut Core) {
        while let Some(place) = self.next_complete(core) {
            if let Some(vertex) = self.waiting.remove(&place) {
                self.insert(core, vertex);
            }
        }
        let ready: Vec<_> = self
            .held
            .iter()
            .filter(|(_, (header, _))| self.missing_parents(core, header).0 == 0)
            .map(|(author, _)| *author)
            .collect();
        for author in ready {
            if let Some((header, signature)) = self.held.remove(&author) {
                self.handle_header(core, author, header, signature);
            }
        }
    }

    fn next_complete(&self, core: &Core) -> Option<(u64, ReplicaId)> {
        let complete =
            self.waiting.iter().find(|(_, vertex)| self.missing_parents(core, &vertex.header).0 == 0);
        complete.map(|(place, _)| *place)
    }
}

/// Rounds without a vertex after which others propose an author's batches.
const GONE_ROUNDS: u64 = 4;

/// Who leads an even round.
pub(super) fn leader(core: &Core, round: u64) -> ReplicaId {
    core.config.committee.leader(round / 2)
}

/// Whether a header may be voted for, its parents aside.
fn is_sound(core: &Core, header: &Header) -> bool {
    let committee = &core.config.committee;
    let members = header.parents.iter().all(|author| committee.contains(author));
    let parents =
        if header.round == 1 { header.parents.0 == 0 } else { header.parents.count() >= committee.quorum() };
    (members && parents || mutant!(core, ParentsUncounted))
        && header.round > 0
        && header.batches.len() <= core.config.block_batches_max
        && header.batches.iter().all(|batch| core.is_certified(batch))
}
