//! Which numbers a peer has used for connections: a frame that asks for one may come twice, over two lanes, and the
//! second must not connect again. A sliding window of bits, as receivers of IPsec know replayed packets by (RFC 4303
//! §3.4.3): whatever lies before it counts as used.
use alloc::boxed::Box;

/// Numbers that were used.
#[derive(Debug)]
pub(super) struct Seen {
    highest: u32,
    bits: Box<[u64; WORDS]>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { highest: 0, bits: Box::new([0; WORDS]) }
    }
}

impl Seen {
    /// Notes a number; false where it was used before, or may have been.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        if number > self.highest {
            self.advance(number);
        } else if self.highest - number >= WINDOW {
            return false;
        }
        let (word, bit) = (number % WINDOW / 64, number % 64);
        let word = &mut self.bits[word as usize];
        let is_new = *word & 1 << bit == 0;
        *word |= 1 << bit;
        is_new
    }

    /// Moves the window so that it ends at `number`.
    fn advance(&mut self, number: u32) {
        if number - self.highest >= WINDOW {
            *self.bits = [0; WORDS];
        } else {
            for passed in self.highest + 1..=number {
                self.bits[(passed % WINDOW / 64) as usize] &= !(1 << (passed % 64));
            }
        }
        self.highest = number;
    }
}

const WORDS: usize = 256;
/// Far more than the connections that can be on their way at once.
const WINDOW: u32 = WORDS as u32 * 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_once_in_any_order() {
        let mut seen = Seen::default();
        for number in [1, 5, 3, 2, 9_000, 4, 20_000, 19_999] {
            assert!(seen.insert(number), "{number}");
            assert!(!seen.insert(number), "{number} again");
        }
        assert!(!seen.insert(20_000 - WINDOW), "before the window");
        assert!(seen.insert(20_000 - WINDOW + 1));
        assert!(seen.insert(u32::MAX) && !seen.insert(u32::MAX) && !seen.insert(20_001));
    }

    #[test]
    fn the_window_forgets_what_it_leaves() {
        let mut seen = Seen::default();
        for number in 1..=3 * WINDOW {
            assert!(seen.insert(number), "{number}");
        }
    }
}
