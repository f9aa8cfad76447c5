//! The keeper of lanes: how many lanes each peer should have, has, and when to dial again. Workers say what they want;
//! whoever asks gets the number of lanes to dial now. No clock of its own.
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::door::PeerName;

/// Lanes of all peers.
#[derive(Debug, Default)]
pub struct Keeper {
    peers: HashMap<PeerName, Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    wanted: HashMap<u16, u16>,
    up: u16,
    dialling: u16,
    failures: u32,
    not_before: Option<Instant>,
}

/// First pause after a failed dial; doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LAST: Duration = Duration::from_secs(8);

impl Keeper {
    /// A worker wants so many lanes to a peer in all. Says how many to dial now.
    pub fn want(&mut self, peer: &PeerName, worker: u16, lanes: u16, now: Instant) -> u16 {
        let kept = self.peers.entry(peer.clone()).or_default();
        kept.wanted.insert(worker, lanes);
        if kept.not_before.is_some_and(|instant| now < instant) {
            return 0;
        }
        let wanted = kept.wanted.values().copied().max().unwrap_or(0);
        let missing = wanted.saturating_sub(kept.up + kept.dialling);
        // After a failure one lane tries whether the peer is back.
        let missing = if kept.failures > 0 { missing.min(1) } else { missing };
        kept.dialling += missing;
        missing
    }

    /// A lane that was dialled stands.
    pub fn dialled(&mut self, peer: &PeerName) {
        let kept = self.peers.entry(peer.clone()).or_default();
        kept.dialling = kept.dialling.saturating_sub(1);
        kept.failures = 0;
        kept.not_before = None;
        kept.up += 1;
    }

    /// A lane that the peer dialled stands.
    pub fn accepted(&mut self, peer: &PeerName) {
        self.peers.entry(peer.clone()).or_default().up += 1;
    }

    /// A dial failed.
    pub fn failed(&mut self, peer: &PeerName, now: Instant) {
        let kept = self.peers.entry(peer.clone()).or_default();
        kept.dialling = kept.dialling.saturating_sub(1);
        let pause = PAUSE_FIRST.saturating_mul(1 << kept.failures.min(8)).min(PAUSE_LAST);
        kept.failures = kept.failures.saturating_add(1);
        kept.not_before = Some(now + pause);
    }

    /// A lane is gone.
    pub fn down(&mut self, peer: &PeerName) {
        let kept = self.peers.entry(peer.clone()).or_default();
        kept.up = kept.up.saturating_sub(1);
    }

    /// Lanes that stand, to all peers.
    #[must_use]
    pub fn lanes_of_all(&self) -> u32 {
        self.peers.values().map(|kept| u32::from(kept.up)).sum()
    }

    /// Lanes that stand, and lanes that somebody wants.
    #[must_use]
    pub fn lanes(&self, peer: &PeerName) -> (u16, u16) {
        self.peers
            .get(peer)
            .map_or((0, 0), |kept| (kept.up, kept.wanted.values().copied().max().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn dials_what_is_missing_once_and_backs_off_after_failures() {
        let (mut keeper, start) = (Keeper::default(), Instant::now());
        let peer = PeerName(Arc::from(&b"b"[..]));
        assert_eq!(keeper.want(&peer, 0, 4, start), 4);
        assert_eq!(keeper.want(&peer, 1, 6, start), 2);
        assert_eq!(keeper.want(&peer, 0, 4, start), 0);
        keeper.dialled(&peer);
        keeper.failed(&peer, start);
        assert_eq!(keeper.want(&peer, 0, 6, start), 0, "not before the pause is over");
        assert_eq!(keeper.want(&peer, 0, 6, start + PAUSE_FIRST), 1, "one lane tries");
        keeper.dialled(&peer);
        assert_eq!(keeper.want(&peer, 0, 6, start + PAUSE_FIRST), 0, "four are still being dialled");
        keeper.down(&peer);
        assert_eq!(keeper.want(&peer, 0, 6, start + PAUSE_FIRST), 1);
        assert_eq!(keeper.lanes(&peer), (1, 6));
    }
}
