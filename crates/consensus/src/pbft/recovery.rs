//! The way back of a replica that lost its records (after the proactive recovery of Castro and Liskov, TOCS 2002): it
//! follows, and votes again only when the stable checkpoint has passed every slot that it may have voted for.
//!
//! Let `s` be the last stable checkpoint it knew before. A quorum signed `s`, so among any quorum of others at least one
//! correct replica executed `s`, and its own stable checkpoint is at most one window below. Votes reached one window
//! above `s`. So two windows above the highest stable checkpoint of a quorum is beyond all that was forgotten.
use alloc::collections::BTreeMap;

use super::Pbft;
use crate::core::{Core, Status, mutant};
use crate::types::{ReplicaId, Time};

#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Stable checkpoints of others, as they say.
    heard: BTreeMap<ReplicaId, u64>,
    /// Votes begin when this position is stable.
    votes_after: Option<u64>,
    /// Until when somebody else's recovery is helped with empty blocks.
    helps_until: Time,
    /// Empty blocks that may still be proposed before the next retry.
    fillers: u64,
}

impl Recovery {
    pub(super) fn is_helping(&self, core: &Core) -> bool {
        core.now < self.helps_until
    }

    /// Whether an empty block is due.
    pub(super) fn take_filler(&mut self, core: &Core) -> bool {
        let due = self.fillers > 0 && self.is_helping(core);
        self.fillers -= u64::from(due);
        due
    }
}

impl Pbft {
    pub(super) fn handle_recovery_status(&mut self, core: &mut Core, from: ReplicaId, status: &Status) {
        if !core.config.committee.contains(from) {
            return;
        }
        if status.lost {
            self.recovery.helps_until = core.now + HELP_RETRIES * core.config.retry;
            self.recovery.fillers = core.config.checkpoint_interval;
        }
        if !core.lost || !core.is_member() {
            return;
        }
        if mutant!(core, LostVotesAtOnce) {
            return core.recover();
        }
        if self.recovery.votes_after.is_some() || status.lost {
            return;
        }
        self.recovery.heard.insert(from, status.stable);
        // What a peer says counts once there is a certificate for it; until then somebody may be boasting.
        let proven = core.checkpoints.best_position();
        let counted = self.recovery.heard.values().filter(|stable| **stable <= proven).count();
        if counted >= core.config.committee.quorum().min(core.config.committee.members().len() - 1) {
            self.recovery.votes_after = Some(proven + 2 * core.config.window());
        }
    }

    pub(super) fn end_recovery(&mut self, core: &mut Core) {
        let passed =
            self.recovery.votes_after.is_some_and(|after| core.checkpoints.stable_position() >= after);
        if core.lost && passed {
            core.recover();
            // What was accepted without a vote is kept from here on, and voted for.
            for number in self.slots.keys().copied().collect::<alloc::vec::Vec<_>>() {
                self.persist_slot(core, number);
            }
            self.vote_again(core);
        }
    }
}

/// How long one cry for help is answered, in retries.
const HELP_RETRIES: u64 = 20;
