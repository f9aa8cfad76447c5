//! The book of slots: which of the other end's are free to be written, which of ours are full. Pure: no device, no
//! memory. What the other end says is checked against what was agreed; a breach costs the lane.
use std::collections::VecDeque;

/// The other end has said something that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// Slots are filled in order.
    #[error("slot {got} was filled where slot {due} was due")]
    Slot {
        /// The slot that was named.
        got: u16,
        /// The one that was due.
        due: u16,
    },
    /// A slot holds at least one byte and at most its size.
    #[error("{got} bytes were said to be in a slot of {most}")]
    Length {
        /// Bytes that were named.
        got: u32,
        /// Size of a slot.
        most: u32,
    },
    /// The device has counted other bytes than the other end.
    #[error("{said} bytes were announced and {written} written")]
    Written {
        /// Bytes that were named.
        said: u32,
        /// Bytes that the device saw.
        written: u32,
    },
    /// More was written than there is room for.
    #[error("a slot was filled that was not free")]
    Overrun,
    /// More slots came back than were filled.
    #[error("{got} slots were given back of {most} that were filled")]
    Returned {
        /// Slots that came back at once.
        got: u32,
        /// Slots that the other end had.
        most: u32,
    },
}

/// The other end's slots.
#[derive(Debug)]
pub(crate) struct Window {
    slots: u16,
    slot_bytes: u32,
    filled: u32,
    returned: u32,
}

/// Where a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Slot of the other end.
    pub(crate) slot: u16,
    /// Bytes to write, at least one.
    pub(crate) length: u32,
}

impl Window {
    /// All slots are free.
    pub(crate) fn new(slots: u16, slot_bytes: u32) -> Self {
        Self { slots, slot_bytes, filled: 0, returned: 0 }
    }

    /// Slots that are free.
    pub(crate) fn free(&self) -> u32 {
        u32::from(self.slots) - self.outstanding()
    }

    /// Takes the next slot for at most so many bytes; none where no slot is free or nothing is wanted.
    pub(crate) fn take(&mut self, bytes: u32) -> Option<Piece> {
        if self.free() == 0 || bytes == 0 {
            return None;
        }
        let slot = (self.filled % u32::from(self.slots)) as u16;
        self.filled = wrapped(self.filled + 1);
        Some(Piece { slot, length: bytes.min(self.slot_bytes) })
    }

    /// The other end has taken out so many slots in all, modulo 2^31.
    ///
    /// # Errors
    /// [`Breach::Returned`].
    pub(crate) fn give_back(&mut self, total: u32) -> Result<(), Breach> {
        let got = wrapped(total.wrapping_sub(self.returned));
        let most = self.outstanding();
        if got > most {
            return Err(Breach::Returned { got, most });
        }
        self.returned = wrapped(self.returned + got);
        Ok(())
    }

    fn outstanding(&self) -> u32 {
        wrapped(self.filled.wrapping_sub(self.returned))
    }
}

/// Our slots.
#[derive(Debug)]
pub(crate) struct Inbox {
    slots: u16,
    slot_bytes: u32,
    arrived: u32,
    taken: u32,
    announced: u32,
    /// Bytes of the slots that are full, oldest first.
    full: VecDeque<u32>,
    /// Bytes that are gone from the first of them.
    start: u32,
}

/// Bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Our slot.
    pub(crate) slot: u16,
    /// First byte in it.
    pub(crate) start: u32,
    /// How many bytes there are.
    pub(crate) length: u32,
}

impl Inbox {
    /// All slots are empty.
    pub(crate) fn new(slots: u16, slot_bytes: u32) -> Self {
        let full = VecDeque::with_capacity(usize::from(slots));
        Self { slots, slot_bytes, arrived: 0, taken: 0, announced: 0, full, start: 0 }
    }

    /// The other end says that it filled a slot, and the device how many bytes it wrote.
    ///
    /// # Errors
    /// [`Breach`].
    pub(crate) fn arrived(&mut self, slot: u16, said: u32, written: u32) -> Result<(), Breach> {
        let due = (self.arrived % u32::from(self.slots)) as u16;
        if slot != due {
            return Err(Breach::Slot { got: slot, due });
        }
        if said == 0 || said > self.slot_bytes {
            return Err(Breach::Length { got: said, most: self.slot_bytes });
        }
        if said != written {
            return Err(Breach::Written { said, written });
        }
        // What was taken out and not given back is not free for the other end, whatever we know better.
        if wrapped(self.arrived.wrapping_sub(self.announced)) >= u32::from(self.slots) {
            return Err(Breach::Overrun);
        }
        self.arrived = wrapped(self.arrived + 1);
        self.full.push_back(said);
        Ok(())
    }

    /// The next bytes, of one slot.
    pub(crate) fn front(&self) -> Option<Part> {
        let length = *self.full.front()?;
        let slot = (self.taken % u32::from(self.slots)) as u16;
        Some(Part { slot, start: self.start, length: length - self.start })
    }

    /// So many of the front's bytes were taken out.
    pub(crate) fn take(&mut self, bytes: u32) {
        let Some(&length) = self.full.front() else { return };
        self.start += bytes;
        assert!(self.start <= length, "more was taken out of a slot than was in it");
        if self.start == length {
            self.start = 0;
            self.full.pop_front();
            self.taken = wrapped(self.taken + 1);
        }
    }

    /// What is to be said of slots that are free again, once it is worth a message: a quarter of them.
    pub(crate) fn owes(&self) -> Option<u32> {
        let unsaid = wrapped(self.taken.wrapping_sub(self.announced));
        (unsaid >= u32::from(self.slots / 4).max(1)).then_some(self.taken)
    }

    /// It was said.
    pub(crate) fn announce(&mut self) {
        self.announced = self.taken;
    }
}

/// Totals have 31 bits. Numbers of slots are powers of two, so that they go round evenly with the totals.
const fn wrapped(total: u32) -> u32 {
    total & (u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_order_and_only_while_they_are_free() {
        let mut window = Window::new(4, 100);
        let pieces: Vec<_> = std::iter::from_fn(|| window.take(250)).collect();
        assert_eq!(pieces, [0, 1, 2, 3].map(|slot| Piece { slot, length: 100 }));
        assert_eq!(window.give_back(2), Ok(()));
        assert_eq!(window.take(7), Some(Piece { slot: 0, length: 7 }));
        assert_eq!(window.take(0), None);
        assert_eq!((window.free(), window.take(1)), (1, Some(Piece { slot: 1, length: 1 })));
        assert_eq!(window.take(1), None);
    }

    #[test]
    fn more_than_was_filled_cannot_come_back() {
        let mut window = Window::new(4, 100);
        assert_eq!(window.give_back(1), Err(Breach::Returned { got: 1, most: 0 }));
        window.take(1);
        window.take(1);
        assert_eq!(window.give_back(3), Err(Breach::Returned { got: 3, most: 2 }));
        assert_eq!(window.give_back(2), Ok(()));
        // Backwards is far forwards.
        assert_eq!(window.give_back(1), Err(Breach::Returned { got: (1 << 31) - 1, most: 0 }));
        assert_eq!(window.give_back(2), Ok(()), "said twice");
    }

    #[test]
    fn hostile_words_are_named() {
        let mut inbox = Inbox::new(4, 100);
        assert_eq!(inbox.arrived(1, 5, 5), Err(Breach::Slot { got: 1, due: 0 }));
        assert_eq!(inbox.arrived(127, 5, 5), Err(Breach::Slot { got: 127, due: 0 }));
        assert_eq!(inbox.arrived(0, 0, 0), Err(Breach::Length { got: 0, most: 100 }));
        assert_eq!(inbox.arrived(0, 101, 101), Err(Breach::Length { got: 101, most: 100 }));
        assert_eq!(inbox.arrived(0, 50, 49), Err(Breach::Written { said: 50, written: 49 }));
        for slot in 0..4 {
            assert_eq!(inbox.arrived(slot, 1, 1), Ok(()));
        }
        assert_eq!(inbox.arrived(0, 1, 1), Err(Breach::Overrun));
        inbox.take(1);
        assert_eq!(inbox.arrived(0, 1, 1), Err(Breach::Overrun), "it was not given back");
        assert_eq!(inbox.owes(), Some(1));
        inbox.announce();
        assert_eq!(inbox.arrived(0, 1, 1), Ok(()));
    }

    #[test]
    fn bytes_come_out_in_parts() {
        let mut inbox = Inbox::new(2, 100);
        assert_eq!(inbox.front(), None);
        inbox.arrived(0, 10, 10).unwrap();
        inbox.arrived(1, 20, 20).unwrap();
        inbox.take(4);
        assert_eq!(inbox.front(), Some(Part { slot: 0, start: 4, length: 6 }));
        assert_eq!(inbox.owes(), None);
        inbox.take(6);
        assert_eq!(inbox.front(), Some(Part { slot: 1, start: 0, length: 20 }));
        assert_eq!(inbox.owes(), Some(1));
    }

    /// Both ends of a lane, with what was said on its way for a while: totals wrap, slots go round, nothing is lost.
    #[test]
    fn two_ends_agree_for_ever() {
        for slots in [2, 4, 32, 128] {
            let (mut window, mut inbox) = (Window::new(slots, 8), Inbox::new(slots, 8));
            // A little before the totals wrap, at a multiple of every number of slots.
            let start = (1 << 31) - 1024;
            (window.filled, window.returned) = (start, start);
            (inbox.arrived, inbox.taken, inbox.announced) = (start, start, start);
            let (mut sent, mut received, mut state) = (0u32, 0u32, 1u32);
            let mut back: VecDeque<u32> = VecDeque::new();
            while received < 20_000 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match state >> 30 {
                    0 | 1 => {
                        if let Some(piece) = window.take(1 + state % 8) {
                            inbox.arrived(piece.slot, piece.length, piece.length).unwrap();
                            sent += piece.length;
                        }
                    }
                    2 => {
                        if let Some(part) = inbox.front() {
                            let bytes = 1 + state % part.length;
                            inbox.take(bytes);
                            received += bytes;
                        }
                        if let Some(total) = inbox.owes() {
                            inbox.announce();
                            back.push_back(total);
                        }
                    }
                    _ => back.pop_front().into_iter().for_each(|total| window.give_back(total).unwrap()),
                }
                assert!(received <= sent && window.free() <= u32::from(slots));
            }
        }
    }
}
