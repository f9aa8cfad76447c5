//! What a replica may use and how long it waits. Made by the driver; equal at all replicas of an epoch but for `me`.
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::plan::{Member, Plan, ProtocolKind};
use crate::probft::SamplingRule;
use crate::types::{Committee, Digest, ReplicaId, Time, domain};
use crate::wire::Wire;

/// Settings of one replica in one epoch.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is.
    pub me: ReplicaId,
    /// What the epoch is made of. Members outside the committee follow.
    pub plan: Plan,
    /// Whose votes count.
    pub committee: Committee,
    /// Of the plan and of the state that the epoch begins with.
    pub binding: Digest,
    /// The cluster's name.
    pub cluster: Digest,
    /// Counts committed changes of protocol, members or committee, from 0.
    pub epoch: u64,
    /// A batch is closed when it has so many bytes.
    pub batch_bytes_max: usize,
    /// A batch is closed so long after its first transaction.
    pub batch_delay: Time,
    /// Batches of one author that are not executed yet.
    pub batches_in_flight_max: u64,
    /// Batches in one block.
    pub block_batches_max: usize,
    /// Positions between two checkpoints.
    pub checkpoint_interval: u64,
    /// Largest snapshot that is taken from a peer, in bytes.
    pub snapshot_bytes_max: usize,
    /// Clients whose counts are remembered. Beyond it the one that was silent longest is forgotten.
    pub clients_max: usize,
    /// Between two attempts at the same thing: sending again, asking the next peer.
    pub retry: Time,
    /// How long a leader may take before it is replaced; doubles while nothing gets done.
    pub leader_timeout: Time,
    /// The doubling ends there.
    pub leader_timeout_max: Time,
    /// How ProBFT draws who hears a vote, and from how many members on.
    pub sampling: SamplingRule,
    /// So long a ProBFT leader gathers what is decided by samples before everybody makes it certain.
    pub seal_delay: Time,
    /// Between two rounds of a DAG without work.
    pub idle_delay: Time,
    /// Rounds below a committed leader that it still takes along. What is older is given up and proposed again.
    pub dag_rounds_kept: u64,
    /// Rounds that may stand above the last stable checkpoint; then the DAG waits for it.
    pub dag_rounds_max: u64,
}

/// One millisecond of [`Time`].
pub const MILLISECOND: Time = 1_000_000;

impl Config {
    /// Usual settings for a replica in a first epoch of `replicas`, all of them in the committee. `None` where there are
    /// none or too many.
    #[must_use]
    pub fn new(me: ReplicaId, replicas: u16, cluster: Digest) -> Option<Self> {
        let member =
            |number| Member { replica: ReplicaId(number), keys: Default::default(), about: Arc::from([]) };
        let plan = Plan::composed(0, ProtocolKind::Pbft, (0..replicas).map(member).collect(), None)?;
        Self::of_plan(me, &plan, Digest::default(), cluster)
    }

    /// Usual settings for a replica in the epoch of a plan. `None` where the plan is not sound.
    #[must_use]
    pub fn of_plan(me: ReplicaId, plan: &Plan, binding: Digest, cluster: Digest) -> Option<Self> {
        if !plan.is_sound() {
            return None;
        }
        Some(Self {
            me,
            plan: plan.clone(),
            committee: plan.voters()?,
            binding,
            cluster,
            epoch: plan.epoch,
            batch_bytes_max: 500_000,
            batch_delay: 10 * MILLISECOND,
            batches_in_flight_max: 64,
            block_batches_max: 64,
            checkpoint_interval: 64,
            snapshot_bytes_max: 64 << 20,
            clients_max: 1 << 16,
            retry: 200 * MILLISECOND,
            leader_timeout: 1000 * MILLISECOND,
            leader_timeout_max: 16_000 * MILLISECOND,
            sampling: SamplingRule::default(),
            seal_delay: 100 * MILLISECOND,
            idle_delay: 1000 * MILLISECOND,
            dag_rounds_kept: 50,
            dag_rounds_max: 500,
        })
    }

    /// What every signature is bound to: cluster, epoch, committee, and what the epoch began with. A message of another
    /// epoch proves nothing here.
    pub(crate) fn context(&self) -> Digest {
        let mut bytes = Vec::new();
        self.cluster.write(&mut bytes);
        self.epoch.write(&mut bytes);
        self.committee.members().to_vec().write(&mut bytes);
        self.binding.write(&mut bytes);
        Digest::of(domain::CONTEXT, &bytes)
    }

    /// Positions above the last stable checkpoint that may be worked on.
    pub(crate) fn window(&self) -> u64 {
        2 * self.checkpoint_interval
    }

    /// Everybody else.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ReplicaId> {
        self.plan.members.iter().map(|member| member.replica).filter(|peer| *peer != self.me)
    }
}
