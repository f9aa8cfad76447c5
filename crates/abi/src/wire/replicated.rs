//! What the members of a cluster put into their common order, and what they keep of it: commands, and the facts that a
//! snapshot of the state consists of, one behind the other. The same bytes at every member, so they are pinned.
use crate::codec::{messages, records};

/// Longest key of a replicated value.
pub const REPLICATED_KEY_BYTES_MAX: usize = 128;
/// Longest replicated value.
pub const REPLICATED_VALUE_BYTES_MAX: usize = 8 * 1024;

messages! {
    /// One command. An unknown one has no effect at any member.
    pub enum ReplicatedCommand<'a> {
        /// Changes nothing: whoever sees it applied has seen everything before it.
        Pass(u8) = 0,
        /// Sets a value.
        Put(ReplicatedPut<'a>) = 1,
        /// Removes a value.
        Delete(&'a [u8]) = 2,
        /// Admits a node, or admits it anew with other keys.
        Admit(ReplicatedNode<'a>) = 3,
        /// Lets the member of a number go.
        Remove(u16) = 4,
        /// Wants another protocol.
        Protocol(ReplicatedProtocol) = 5,
    }
}

messages! {
    /// One fact of a state.
    pub enum ReplicatedFact<'a> {
        /// Which protocol is wanted.
        Protocol(ReplicatedProtocol) = 0,
        /// A member.
        Seat(ReplicatedSeat<'a>) = 1,
        /// A value.
        Value(ReplicatedValue<'a>) = 2,
    }
}

records! {
    /// Sets a value.
    pub struct ReplicatedPut<'a> {
        /// Which.
        pub key: &'a [u8],
        /// To what.
        pub value: &'a [u8],
        /// Only where the present version is this; [`u64::MAX`] = whatever it is, 0 = only where there is none.
        pub expected: u64,
    }

    /// A node that is to be a member.
    pub struct ReplicatedNode<'a> {
        /// Public key of its signatures.
        pub signing: [u8; 32],
        /// Public key of its verifiable random function.
        pub random: [u8; 32],
        /// A [`super::ClusterAbout`], encoded.
        pub about: &'a [u8],
    }

    /// A protocol and how its committee rotates; both 0 where it does not.
    pub struct ReplicatedProtocol {
        /// As `crates/consensus` numbers it.
        pub protocol: u8,
        /// Positions of an epoch.
        pub positions: u64,
        /// Seats of the committee.
        pub seats: u16,
    }

    /// A member.
    pub struct ReplicatedSeat<'a> {
        /// Its number.
        pub replica: u16,
        /// What it is.
        pub node: ReplicatedNode<'a>,
    }

    /// A value.
    pub struct ReplicatedValue<'a> {
        /// Its key.
        pub key: &'a [u8],
        /// The position that set it last.
        pub version: u64,
        /// What it is.
        pub value: &'a [u8],
    }
}
