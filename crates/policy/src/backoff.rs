//! Pauses before tries: those of the configuration, then the last one for ever. Called by whoever reconnects or
//! restarts.
use alloc::vec::Vec;
use core::time::Duration;

/// A sequence of pauses.
#[derive(Debug, Clone)]
pub struct Backoff {
    pauses: Vec<Duration>,
    tries: u32,
}

impl Backoff {
    /// Pauses in order; the last one repeats. Without any, one second.
    #[must_use]
    pub fn new(pauses: &[Duration]) -> Self {
        let pauses = if pauses.is_empty() { Vec::from([Duration::from_secs(1)]) } else { pauses.to_vec() };
        Self { pauses, tries: 0 }
    }

    /// The pause before the next try.
    pub fn next_pause(&mut self) -> Duration {
        let index = (self.tries as usize).min(self.pauses.len() - 1);
        self.tries = self.tries.saturating_add(1);
        self.pauses[index]
    }

    /// Tries since the last success.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// A try worked: begin again with the first pause.
    pub fn handle_success(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_the_last_repeats() {
        let mut backoff = Backoff::new(&[1, 2, 4].map(Duration::from_secs));
        let seconds: Vec<u64> = (0..5).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!((seconds, backoff.tries()), (Vec::from([1, 2, 4, 4, 4]), 5));
        backoff.handle_success();
        assert_eq!(backoff.next_pause(), Duration::from_secs(1));
    }
}
