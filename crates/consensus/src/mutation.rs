//! Deliberate protocol bugs for the mutation check: each must be found by the simulator. Compiled only with the
//! `mutations` feature, which no product build has.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Batches are ordered without a quorum's promise to keep them.
    UncertifiedBatches,
    /// A transaction that was applied before is applied again.
    AppliesRepeated,
    /// A stable checkpoint is taken without comparing it with the own state.
    CheckpointUncompared,
    /// A state is taken from a peer without comparing its digest.
    SnapshotUnchecked,
    /// One vote too few prepares.
    PrepareQuorumSmall,
    /// One vote too few commits.
    CommitQuorumSmall,
    /// Votes leave before they are on disk, and never get there.
    VotesUnpersisted,
    /// Proofs that something was prepared are not kept.
    PreparedUnpersisted,
    /// Who lost its records votes at once.
    LostVotesAtOnce,
    /// A view change says nothing about what was prepared.
    ViewChangeForgets,
    /// A view change's claims are believed without proof.
    PreparedUnchecked,
    /// The new view takes what was prepared in the lowest view.
    LowestViewWins,
    /// The new view begins one slot short.
    NewViewDropsLast,
    /// A leader is elected whatever its log lacks.
    ElectsAnybody,
    /// Entries are taken whatever the log before them is.
    AppendsBlindly,
    /// A vote for a piece leaves before it is on disk, and never gets there.
    PieceUnpersisted,
    /// A random proof is believed unseen, and so is whom it draws.
    RandomProofUnchecked,
    /// A vote counts also where it was not drawn to come here.
    SampleUnchecked,
    /// One vote too few makes a sampled quorum.
    SampledQuorumSmall,
    /// A report says nothing about prepared pieces.
    ReportsNothing,
    /// An own header leaves before it is on disk, and never gets there.
    HeaderUnpersisted,
    /// Every header is voted for, also the second of a round.
    VotesTwice,
    /// One vote too few certifies a header.
    HeaderQuorumSmall,
    /// A vertex enters the graph before its parents.
    ParentsUnawaited,
    /// A vertex's certificate is believed unseen.
    VerticesUnchecked,
    /// A header may follow fewer vertices than a quorum.
    ParentsUncounted,
    /// A leader is committed with one follower too few.
    CommitSupportSmall,
    /// Earlier leaders are committed without a path to them.
    LeaderPathUnchecked,
    /// Earlier leaders are passed over.
    LeadersSkipped,
    /// Positions after the last one of an epoch are executed too.
    EndIgnored,
    /// Neither messages nor signatures are bound to an epoch.
    EpochUnbound,
    /// A new epoch does not remember which transactions were applied before it.
    SessionsForgotten,
    /// The end of an epoch is believed without a quorum's signatures.
    EndUnproven,
    /// A new epoch begins with any state that a peer gives.
    OriginUnchecked,
    /// The next committee follows from what a replica saw itself.
    TrustsItself,
}
