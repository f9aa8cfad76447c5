//! One connection on its way to a finished greeting: whose it is, how far it is, and what it waits for. A record
//! for [`super::turn`], which does everything with it.
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use nix::poll::PollFlags;

use super::Direction;
use super::dial::Dial;
use super::handshake::{Handshake, Progress};
use super::parting::Parting;

/// One connection without a finished greeting.
pub(super) struct Attempt {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) origin: Origin,
    pub(super) phase: Phase,
}

pub(super) enum Origin {
    Dialled(Dial),
    Accepted,
    /// Its end has been reported.
    Over(Direction),
}

pub(super) enum Phase {
    /// This address may take until then.
    Connecting {
        until: Instant,
    },
    Greeting {
        handshake: Box<Handshake>,
        wanted: Progress,
    },
    Parting(Parting),
}

impl Attempt {
    pub(super) fn direction(&self) -> Direction {
        self.origin.direction()
    }

    /// When it will have taken too long.
    pub(super) fn due(&self) -> Instant {
        match self.phase {
            Phase::Connecting { until } => until.min(self.deadline),
            Phase::Greeting { .. } | Phase::Parting(_) => self.deadline,
        }
    }

    pub(super) fn interest(&self) -> PollFlags {
        match &self.phase {
            Phase::Connecting { .. } | Phase::Greeting { wanted: Progress::Writable, .. } => {
                PollFlags::POLLOUT
            }
            Phase::Greeting { wanted: Progress::Readable | Progress::Complete, .. } | Phase::Parting(_) => {
                PollFlags::POLLIN
            }
        }
    }
}

impl Origin {
    pub(super) fn direction(&self) -> Direction {
        match self {
            Self::Dialled(_) => Direction::Dialled,
            Self::Accepted => Direction::Accepted,
            Self::Over(direction) => *direction,
        }
    }
}
