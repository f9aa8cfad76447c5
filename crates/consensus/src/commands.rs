//! What replicas themselves put into the order, beside clients: that the epoch shall end, what they think of each other,
//! who lied. Executed by the core at its place in the order, never seen by the application.
//!
//! Such a command is a transaction of a client number that only the batch's author may use. The author is known: a
//! quorum promised to keep the batch and took it from nobody else.
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::core::{Core, Kind};
use crate::crypto::Signature;
use crate::plan::Plan;
use crate::trust::{Opinion, Rated, Trust};
use crate::types::{Digest, ReplicaId, TransactionId, domain};
use crate::wire::{Reader, Wire, WireError, wire_enum, wire_struct};

wire_enum! {
    /// A command of a replica.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Command {
        /// Wants the epoch to end and this one to follow.
        0 => Succeed(Plan),
        /// Rates others.
        1 => Rate(Rating),
        /// Shows that a replica lied.
        2 => Accuse(Accusation),
    }
}

wire_struct! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Rating {
        rated: Vec<Rated>,
    }
}

wire_struct! {
    /// Two signatures of one replica under statements that exclude each other.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Accusation {
        pub(crate) culprit: ReplicaId,
        pub(crate) kind: u8,
        pub(crate) numbers: (u64, u64),
        pub(crate) first: (Digest, Signature),
        pub(crate) second: (Digest, Signature),
    }
}

/// What the replicas' commands have come to: the same at every replica at the same position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Matters {
    /// What each member wants to follow this epoch.
    wishes: BTreeMap<ReplicaId, Plan>,
    pub(crate) trust: Trust,
}

/// What this replica wants to say, and saw of others.
#[derive(Debug, Default)]
pub(crate) struct Opinions {
    wish: Option<Plan>,
    /// When the wish was said last.
    wished_at: Option<crate::types::Time>,
    /// The last number of an own command.
    said: u64,
    seen: BTreeMap<ReplicaId, Opinion>,
    has_rated: bool,
    accused: Vec<ReplicaId>,
}

/// Clients from here on are replicas: this plus a replica's number.
pub const REPLICA_CLIENTS_FIRST: u64 = u64::MAX - 0xffff;

/// The client number of a replica's commands.
fn client_of(replica: ReplicaId) -> u64 {
    REPLICA_CLIENTS_FIRST + u64::from(replica.0)
}

impl TransactionId {
    /// Whether it is a replica's command and no client's transaction.
    #[must_use]
    pub fn is_command(&self) -> bool {
        self.client >= REPLICA_CLIENTS_FIRST
    }
}

impl Matters {
    /// A plan that so many members of a committee want that one of them is correct.
    fn agreed(&self, core: &Core) -> Option<Plan> {
        let committee = &core.config.committee;
        let wanted = |plan: &Plan| {
            let wish = |member: &&ReplicaId| self.wishes.get(*member) == Some(plan);
            committee.members().iter().filter(wish).count()
        };
        self.wishes.values().find(|plan| wanted(plan) >= committee.one_correct()).cloned()
    }

    /// What the next epoch begins with.
    pub(crate) fn inherited(mut self, plan: &Plan) -> Self {
        self.trust.age(plan);
        self.wishes.clear();
        self
    }
}

impl Wire for Matters {
    fn write(&self, out: &mut Vec<u8>) {
        self.wishes.keys().copied().collect::<Vec<_>>().write(out);
        self.wishes.values().cloned().collect::<Vec<_>>().write(out);
        self.trust.write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let members: Vec<ReplicaId> = Wire::read(input)?;
        let plans: Vec<Plan> = Wire::read(input)?;
        let rising = members.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || members.len() != plans.len() {
            return Err(WireError::Invalid);
        }
        Ok(Self { wishes: members.into_iter().zip(plans).collect(), trust: Wire::read(input)? })
    }
}

impl Core {
    /// Executes a command at its place in the order. What makes no sense has no effect.
    pub(crate) fn execute_command(&mut self, author: ReplicaId, id: TransactionId, bytes: &[u8]) {
        if id.client != client_of(author) || !self.config.plan.contains(author) {
            return;
        }
        match Command::decoded(bytes) {
            Ok(Command::Succeed(plan)) if self.may_follow(&plan) => {
                self.ledger.matters.wishes.insert(author, plan);
            }
            Ok(Command::Rate(rating)) => self.ledger.matters.trust.rate(author, &rating.rated),
            Ok(Command::Accuse(accusation)) if self.is_proven(&accusation) => {
                self.ledger.matters.trust.exclude(accusation.culprit);
            }
            Ok(Command::Succeed(_) | Command::Accuse(_)) | Err(_) => {}
        }
    }

    /// The plan that follows this epoch, where it ends with the position executed last.
    pub(crate) fn successor(&self) -> Option<Plan> {
        if let Some(plan) = self.ledger.matters.agreed(self) {
            return Some(plan);
        }
        let plan = &self.config.plan;
        let rotation = plan.rotation?;
        if self.ledger.position() < rotation.positions {
            return None;
        }
        let mut trust = self.ledger.matters.trust.clone();
        if crate::core::mutant!(self, TrustsItself) {
            trust.rate(self.config.me, &self.opinions.rating());
        }
        let seed = self.ledger.seed(domain::LOTS);
        let committee = trust.next_committee(plan, &seed);
        Some(Plan { epoch: plan.epoch + 1, committee, ..plan.clone() })
    }

    /// Whether a plan can be this epoch's successor. One of another epoch, said again, cannot.
    pub(crate) fn may_follow(&self, plan: &Plan) -> bool {
        plan.epoch == self.config.epoch + 1 && plan.is_sound()
    }

    /// This replica wants the epoch to end.
    pub(crate) fn handle_wish(&mut self, plan: Plan) {
        if self.may_follow(&plan) && self.opinions.wish.as_ref() != Some(&plan) {
            self.opinions.wish = Some(plan);
            self.opinions.wished_at = None;
            self.say_wish();
        }
    }

    /// Says the wish, and again where it did not arrive in the order.
    pub(crate) fn say_wish(&mut self) {
        let Some(wish) = self.opinions.wish.clone() else { return };
        let patience = 4 * self.config.leader_timeout;
        let is_known = self.ledger.matters.wishes.get(&self.config.me) == Some(&wish);
        let is_said = self.opinions.wished_at.is_some_and(|at| self.now < at + patience);
        if !is_known && !is_said && !self.checkpoints.is_over() {
            self.opinions.wished_at = Some(self.now);
            self.say(&Command::Succeed(wish));
        }
    }

    /// What a member did was seen: good or bad.
    pub(crate) fn observe(&mut self, member: ReplicaId, is_good: bool) {
        let opinion = self.opinions.seen.entry(member).or_default();
        let count = if is_good { &mut opinion.satisfied } else { &mut opinion.unsatisfied };
        *count = count.saturating_add(1);
    }

    /// Says what was seen of others, once in an epoch that ends by itself, in time for it.
    pub(crate) fn rate_in_time(&mut self) {
        let Some(rotation) = self.config.plan.rotation else { return };
        let due = self.ledger.position() >= rotation.positions.div_ceil(2) && !self.opinions.seen.is_empty();
        if due && !self.opinions.has_rated {
            self.opinions.has_rated = true;
            let rated = self.opinions.rating();
            self.say(&Command::Rate(Rating { rated }));
        }
    }

    /// Shows everybody that a replica lied, once, where trust decides anything.
    pub(crate) fn denounce(&mut self, accusation: Accusation) {
        if self.config.plan.rotation.is_some() && !self.opinions.accused.contains(&accusation.culprit) {
            self.opinions.accused.push(accusation.culprit);
            self.say(&Command::Accuse(accusation));
        }
    }

    fn is_proven(&self, accusation: &Accusation) -> bool {
        let Accusation { culprit, kind, numbers, first, second } = accusation;
        let exclusive = [Kind::Prepare, Kind::Commit, Kind::Header, Kind::Piece];
        let Some(kind) = exclusive.into_iter().find(|known| *known as u8 == *kind) else { return false };
        let holds = |(digest, signature): &(Digest, Signature)| {
            self.verify(*culprit, &self.statement(kind, [numbers.0, numbers.1], digest), signature)
        };
        first.0 != second.0 && holds(first) && holds(second)
    }

    fn say(&mut self, command: &Command) {
        let client = client_of(self.config.me);
        let sequence = self.opinions.said.max(self.ledger.client_high(client)) + 1;
        self.opinions.said = sequence;
        self.take_transaction(TransactionId { client, sequence }, &command.encoded());
    }
}

impl Opinions {
    fn rating(&self) -> Vec<Rated> {
        self.seen.iter().map(|(member, opinion)| Rated { member: *member, opinion: *opinion }).collect()
    }
}
