//! What a completion belongs to, packed into the 64 bits that the kernel carries for us.
use dwcp_engine::{LaneId, TaskId};

/// An operation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// Bytes for a lane.
    Receive(LaneId),
    /// Bytes of a lane.
    Send(LaneId),
    /// A chunk from a source.
    Read(TaskId),
    /// A chunk into a partial object.
    Write(TaskId),
    /// Control rang.
    Command,
}

impl Token {
    pub(super) const fn pack(self) -> u64 {
        match self {
            Self::Receive(lane) => 1 << 32 | lane.0 as u64,
            Self::Send(lane) => 2 << 32 | lane.0 as u64,
            Self::Read(task) => 3 << 32 | task.0 as u64,
            Self::Write(task) => 4 << 32 | task.0 as u64,
            Self::Command => 5 << 32,
        }
    }

    pub(super) const fn unpack(token: u64) -> Option<Self> {
        let low = token as u32;
        match token >> 32 {
            1 => Some(Self::Receive(LaneId(low))),
            2 => Some(Self::Send(LaneId(low))),
            3 => Some(Self::Read(TaskId(low))),
            4 => Some(Self::Write(TaskId(low))),
            5 => Some(Self::Command),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back() {
        for token in [
            Token::Receive(LaneId(0)),
            Token::Send(LaneId(u32::MAX)),
            Token::Read(TaskId(7)),
            Token::Write(TaskId(1 << 31)),
            Token::Command,
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(0), None);
    }
}
