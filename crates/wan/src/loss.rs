//! Which segments a link loses, whatever they carry: one answer a segment, in the order of their arrival, so that a
//! seed loses the same ones however the kernel packs them. Called by `direction`.
use crate::chance::Chance;

/// What is known of a link's losses. Probabilities are of 0.0..=1.0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each segment on its own.
    Random {
        /// Of a segment.
        probability: f64,
    },
    /// Each segment may begin a run of losses.
    Bursts {
        /// That a run begins with this segment.
        probability: f64,
        /// Segments of a run.
        length: u32,
    },
    /// Two states with a loss rate each, changed at random after each segment (Gilbert: Capacity of a Burst-Noise
    /// Channel, 1960; Elliott: Estimates of Error Rates for Codes on Burst-Noise Channels, 1963).
    GilbertElliott {
        /// From the good state to the bad one.
        to_bad: f64,
        /// From the bad state to the good one.
        to_good: f64,
        /// Loss in the good state.
        loss_good: f64,
        /// Loss in the bad state.
        loss_bad: f64,
    },
}

impl Loss {
    /// Share of segments that are lost in the long run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::None => 0.0,
            Self::Random { probability } => probability,
            // A run begins only outside of another: renewal of one good stretch and one run.
            Self::Bursts { probability, length } => {
                let run = probability * f64::from(length);
                run / (run + 1.0 - probability)
            }
            Self::GilbertElliott { to_bad, to_good, loss_good, loss_bad } => {
                let changes = to_bad + to_good;
                let bad = if changes > 0.0 { to_bad / changes } else { 0.0 };
                bad * loss_bad + (1.0 - bad) * loss_good
            }
        }
    }
}

/// A loss process under way.
#[derive(Debug, Clone)]
pub(crate) struct Losses {
    loss: Loss,
    chance: Chance,
    /// Segments of the present run that are still to be lost.
    left_of_run: u32,
    in_bad_state: bool,
}

impl Losses {
    pub(crate) fn new(loss: Loss, chance: Chance) -> Self {
        Self { loss, chance, left_of_run: 0, in_bad_state: false }
    }

    /// Whether the next segment is lost.
    pub(crate) fn next(&mut self) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Random { probability } => self.chance.happens(probability),
            Loss::Bursts { probability, length } => {
                if self.left_of_run == 0 && self.chance.happens(probability) {
                    self.left_of_run = length;
                }
                let is_lost = self.left_of_run > 0;
                self.left_of_run = self.left_of_run.saturating_sub(1);
                is_lost
            }
            Loss::GilbertElliott { to_bad, to_good, loss_good, loss_bad } => {
                let is_lost = self.chance.happens(if self.in_bad_state { loss_bad } else { loss_good });
                self.in_bad_state ^= self.chance.happens(if self.in_bad_state { to_good } else { to_bad });
                is_lost
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(loss: Loss, segments: usize) -> Vec<bool> {
        let mut losses = Losses::new(loss, Chance::new(5, 0));
        (0..segments).map(|_| losses.next()).collect()
    }

    fn share(loss: Loss) -> f64 {
        lost(loss, 400_000).into_iter().filter(|&is_lost| is_lost).count() as f64 / 400_000.0
    }

    #[test]
    fn each_model_loses_its_mean() {
        let models = [
            Loss::None,
            Loss::Random { probability: 0.01 },
            Loss::Bursts { probability: 0.002, length: 8 },
            Loss::GilbertElliott { to_bad: 0.02, to_good: 0.2, loss_good: 0.0001, loss_bad: 0.5 },
            Loss::GilbertElliott { to_bad: 0.0, to_good: 0.0, loss_good: 0.02, loss_bad: 1.0 },
        ];
        for loss in models {
            let (share, mean) = (share(loss), loss.mean());
            assert!((share - mean).abs() <= 0.1 * mean, "{loss:?}: {share} instead of {mean}");
        }
    }

    #[test]
    fn bursts_have_their_length() {
        let lost = lost(Loss::Bursts { probability: 0.001, length: 5 }, 100_000);
        let runs: Vec<usize> =
            lost.split(|&is_lost| !is_lost).map(<[bool]>::len).filter(|&length| length > 0).collect();
        assert!(runs.len() > 50 && runs.iter().all(|length| length % 5 == 0), "{runs:?}");
    }

    #[test]
    fn a_bad_state_lasts() {
        let loss = Loss::GilbertElliott { to_bad: 0.01, to_good: 0.05, loss_good: 0.0, loss_bad: 1.0 };
        let lost = lost(loss, 100_000);
        let runs = lost.split(|&is_lost| !is_lost).filter(|run| !run.is_empty()).count() as f64;
        let losses = lost.iter().filter(|&&is_lost| is_lost).count() as f64;
        assert!((15.0..25.0).contains(&(losses / runs)), "mean run {}", losses / runs);
    }
}
