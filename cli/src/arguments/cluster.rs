//! Arguments of `cluster`.
use clap::{Args, Subcommand, ValueEnum};

/// What to do about clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Begin a cluster with this node as its only member
    Init(ClusterSelf),
    /// Have this node admitted by a member that made a token
    Join {
        /// Where that member listens for others, as `dwcp cluster token` says
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// The token
        #[arg(long)]
        token: String,
        #[command(flatten)]
        node: ClusterSelf,
    },
    /// Have the others let this node go
    Leave,
    /// Let another member go, one that is gone for good or was shown to lie
    Remove {
        /// Its name
        node: String,
    },
    /// List the members
    List,
    /// Make a token that admits one node, at this member, within an hour
    Token,
    /// Have the members agree in another way
    Algorithm {
        /// How
        #[arg(value_enum)]
        algorithm: AlgorithmName,
    },
    /// Print a value as it is after everything that any member was told is done
    Get {
        /// Its key
        key: String,
    },
    /// Set a value at all members
    Set {
        /// Its key
        key: String,
        /// To what
        value: String,
    },
    /// Remove a value at all members
    Unset {
        /// Its key
        key: String,
    },
}

/// How this node presents itself to a cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterSelf {
    /// Its name [default: node.name, else the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_id: Option<String>,
    /// Where the others reach it [default: consensus.address, else consensus.listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Where it stands; for people
    #[arg(long)]
    pub(crate) region: Option<String>,
}

/// Ways to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmName {
    /// Few nodes, short delays
    Pbft,
    /// Much to order
    Bullshark,
    /// Many nodes, of whom the most trusted decide
    Tpbft,
    /// Very many nodes, all of whom vote before samples of the others
    Probft,
    /// Nodes that stop and never lie
    Raft,
}

impl AlgorithmName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pbft => "pbft",
            Self::Bullshark => "bullshark",
            Self::Tpbft => "tpbft",
            Self::Probft => "probft",
            Self::Raft => "raft",
        }
    }
}
