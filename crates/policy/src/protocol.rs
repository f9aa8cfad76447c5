//! Which protocol a cluster should use: by where its members stand, how many they are and how much they order. Pure; the
//! caller brings the time and puts the answer to the cluster, which decides.
//!
//! A change costs an epoch, so it is not made on a whim: the same wish must hold for several looks in a row, and for a
//! while after a change there is none. No choice makes a cluster available that is not: where a quorum is missing, no
//! change can be agreed on either.
use core::time::Duration;

/// A protocol that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// Few members, short delays.
    Pbft,
    /// Much to order: every member proposes at once.
    Bullshark,
    /// Many members, of whom the most trusted decide.
    TPbft,
    /// Very many members, all of whom vote, each before a sample of the others.
    ProBft,
    /// Members that stop and never lie.
    Raft,
}

/// What is assumed of members that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAssumption {
    /// They stop, and say nothing false: one owner, one site.
    Crash,
    /// They may do anything.
    Byzantine,
}

/// What is seen of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClusterSight {
    /// What is assumed of its members.
    pub faults: FaultAssumption,
    /// How many they are.
    pub members: usize,
    /// Commands applied in a second.
    pub commands_per_s: f64,
}

/// Bounds between the choices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProtocolLimits {
    /// From so many members on a committee decides. Messages of PBFT grow with their square.
    pub committee_from: usize,
    /// From so many members on samples decide. Of 50, samples of 36 hear a vote that all would hear else; and what a
    /// committee of ten bears, three faulty members, is little among so many.
    pub samples_from: usize,
    /// From so many commands in a second on all propose.
    pub load_from_per_s: f64,
    /// A choice is left again only below this share of the bound that led to it.
    pub leave_below: f64,
    /// So often in a row the same must be wanted.
    pub looks: u32,
    /// After a change there is none for so long.
    pub dwell: Duration,
}

impl Default for ProtocolLimits {
    /// A committee of ten says less than sixteen members among themselves from about there on; PBFT over the shared
    /// mempool orders some thousand commands before its leader matters.
    fn default() -> Self {
        Self {
            committee_from: 16,
            samples_from: 50,
            load_from_per_s: 2000.0,
            leave_below: 0.5,
            looks: 3,
            dwell: Duration::from_secs(300),
        }
    }
}

/// Chooses, and remembers what it needs for not choosing too often.
#[derive(Debug, Clone)]
pub struct ProtocolSelector {
    limits: ProtocolLimits,
    present: ProtocolChoice,
    changed: Option<Duration>,
    wanted: Option<(ProtocolChoice, u32)>,
}

impl ProtocolSelector {
    /// A selector for a cluster that uses `present`.
    #[must_use]
    pub fn new(limits: ProtocolLimits, present: ProtocolChoice) -> Self {
        Self { limits, present, changed: None, wanted: None }
    }

    /// The cluster uses this protocol now, whoever chose it.
    pub fn handle_present(&mut self, present: ProtocolChoice, now: Duration) {
        if present != self.present {
            (self.present, self.changed, self.wanted) = (present, Some(now), None);
        }
    }

    /// One look; a protocol where the cluster should change to it now.
    pub fn handle_sight(&mut self, sight: &ClusterSight, now: Duration) -> Option<ProtocolChoice> {
        let best = self.best(sight);
        if best == self.present {
            self.wanted = None;
            return None;
        }
        let looks = match self.wanted {
            Some((wanted, looks)) if wanted == best => looks.saturating_add(1),
            _ => 1,
        };
        self.wanted = Some((best, looks));
        let rests = self.changed.is_some_and(|changed| now < changed + self.limits.dwell);
        if looks < self.limits.looks || rests {
            return None;
        }
        // Whether the cluster follows is told by `handle_present`; until then nothing more is wanted for a while.
        (self.changed, self.wanted) = (Some(now), None);
        Some(best)
    }

    fn best(&self, sight: &ClusterSight) -> ProtocolChoice {
        let limits = &self.limits;
        let held =
            |choice, bound: f64| if self.present == choice { bound * limits.leave_below } else { bound };
        let many = held(ProtocolChoice::TPbft, limits.committee_from as f64);
        let samples = held(ProtocolChoice::ProBft, limits.samples_from as f64);
        let much = held(ProtocolChoice::Bullshark, limits.load_from_per_s);
        // Members that only stop need a majority and two steps. With much to order every one of them proposes.
        if sight.faults == FaultAssumption::Byzantine && sight.members as f64 >= samples {
            return ProtocolChoice::ProBft;
        }
        if sight.faults == FaultAssumption::Byzantine && sight.members as f64 >= many {
            return ProtocolChoice::TPbft;
        }
        match sight.faults {
            _ if sight.commands_per_s >= much => ProtocolChoice::Bullshark,
            FaultAssumption::Crash => ProtocolChoice::Raft,
            FaultAssumption::Byzantine => ProtocolChoice::Pbft,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(members: usize, commands_per_s: f64) -> ClusterSight {
        ClusterSight { faults: FaultAssumption::Byzantine, members, commands_per_s }
    }

    fn selector() -> ProtocolSelector {
        ProtocolSelector::new(ProtocolLimits::default(), ProtocolChoice::Pbft)
    }

    fn choices(
        selector: &mut ProtocolSelector,
        sight: &ClusterSight,
        seconds: core::ops::Range<u64>,
    ) -> usize {
        let mut changes = 0;
        for second in seconds {
            let now = Duration::from_secs(second);
            if let Some(choice) = selector.handle_sight(sight, now) {
                selector.handle_present(choice, now);
                changes += 1;
            }
        }
        changes
    }

    #[test]
    fn size_and_load_decide() {
        for (sight, wanted) in [
            (sight(4, 10.0), None),
            (sight(4, 5000.0), Some(ProtocolChoice::Bullshark)),
            (sight(30, 10.0), Some(ProtocolChoice::TPbft)),
            (sight(60, 10.0), Some(ProtocolChoice::ProBft)),
            (ClusterSight { faults: FaultAssumption::Crash, ..sight(30, 10.0) }, Some(ProtocolChoice::Raft)),
            (
                ClusterSight { faults: FaultAssumption::Crash, ..sight(3, 9e3) },
                Some(ProtocolChoice::Bullshark),
            ),
        ] {
            let mut selector = selector();
            let last = (0..3).map(|second| selector.handle_sight(&sight, Duration::from_secs(second))).last();
            assert_eq!(last, Some(wanted), "{sight:?}");
        }
    }

    #[test]
    fn one_look_is_not_enough() {
        let mut selector = selector();
        for second in 0..100 {
            let load = if second % 3 == 2 { 0.0 } else { 5000.0 };
            assert_eq!(selector.handle_sight(&sight(4, load), Duration::from_secs(second)), None);
        }
    }

    /// However the load swings, there is at most one change in each time of rest.
    #[test]
    fn flapping_is_bounded() {
        let mut selector = selector();
        let mut changes = 0;
        for round in 0..360 {
            let load = if round % 2 == 0 { 5000.0 } else { 0.0 };
            changes += choices(&mut selector, &sight(4, load), 10 * round..10 * (round + 1));
        }
        assert!((1..=12).contains(&changes), "{changes} changes in an hour");
    }

    #[test]
    fn a_load_between_the_bounds_changes_nothing() {
        let mut selector = selector();
        assert_eq!(choices(&mut selector, &sight(4, 1500.0), 0..1000), 0);
        assert_eq!(choices(&mut selector, &sight(4, 3000.0), 1000..1010), 1);
        assert_eq!(choices(&mut selector, &sight(4, 1500.0), 1010..5000), 0);
        assert_eq!(choices(&mut selector, &sight(4, 900.0), 5000..5010), 1);
    }
}
