//! Where packets wait: one ring of bytes, filled in the order of arrival and emptied nearly in that order. A packet is
//! read into it once and written out of it, whole or in parts, as often as its segments leave. Called by `relay`.
use std::collections::VecDeque;

use crate::direction::PacketId;
use crate::packet::Shape;

/// The ring.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: Vec<u8>,
    /// Where the next packet begins.
    head: usize,
    /// Packets from the oldest that is still needed on.
    slots: VecDeque<Slot>,
    /// Name of the first slot.
    first: PacketId,
}

#[derive(Debug)]
struct Slot {
    offset: usize,
    shape: Shape,
    /// Segments that are still to leave.
    left: u32,
}

impl Arena {
    /// Room for so many bytes.
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self {
            bytes: vec![0; capacity_bytes.max(2 * PACKET_BYTES_MAX)],
            head: 0,
            slots: VecDeque::new(),
            first: 0,
        }
    }

    /// Room for a packet of any size; `None` = full.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let Some(oldest) = self.slots.front() else {
            self.head = 0;
            return self.bytes.get_mut(..PACKET_BYTES_MAX);
        };
        let tail = oldest.offset;
        // Full and empty would look alike if the head ever met the tail.
        if self.head > tail && self.bytes.len() - self.head < PACKET_BYTES_MAX {
            if tail <= PACKET_BYTES_MAX {
                return None;
            }
            self.head = 0;
        } else if self.head <= tail && tail - self.head <= PACKET_BYTES_MAX {
            return None;
        }
        self.bytes.get_mut(self.head..self.head + PACKET_BYTES_MAX)
    }

    /// The name that the packet in the room will have.
    pub(crate) fn next_id(&self) -> PacketId {
        self.first + self.slots.len() as u64
    }

    /// Keeps the first bytes of the room until so many segments have left.
    pub(crate) fn keep(&mut self, length: usize, shape: Shape, left: u32) {
        debug_assert!(left > 0 && length <= PACKET_BYTES_MAX);
        self.slots.push_back(Slot { offset: self.head, shape, left });
        self.head += length;
    }

    /// A packet's shape and its bytes, to the end of the ring.
    pub(crate) fn packet(&self, id: PacketId) -> (Shape, &[u8]) {
        let slot = &self.slots[(id - self.first) as usize];
        (slot.shape, &self.bytes[slot.offset..])
    }

    /// So many segments of a packet have left.
    pub(crate) fn release(&mut self, id: PacketId, segments: u16) {
        self.slots[(id - self.first) as usize].left -= u32::from(segments);
        while self.slots.front().is_some_and(|slot| slot.left == 0) {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

/// The largest IP packet with the header of the TUN driver before it.
const PACKET_BYTES_MAX: usize = 65_536 + 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape::new(40, 1_000, 2_000)
    }

    #[test]
    fn packets_keep_their_bytes_until_released_in_any_order() {
        let mut arena = Arena::new(1 << 20);
        let mut waiting: VecDeque<(PacketId, u8)> = VecDeque::new();
        for turn in 0..20_000_u64 {
            let id = arena.next_id();
            let mark = (turn % 251) as u8;
            let length = 1_000 + (turn * 7_919 % 60_000) as usize;
            if let Some(room) = arena.room() {
                room[..length].fill(mark);
                arena.keep(length, shape(), 2);
                waiting.push_back((id, mark));
            } else {
                assert!(waiting.len() > 4, "full with {} packets", waiting.len());
            }
            while waiting.len() > 12 {
                // The second oldest first.
                for place in [1, 0] {
                    let (id, mark) = waiting.remove(place).unwrap();
                    assert!(arena.packet(id).1[..1_000].iter().all(|&byte| byte == mark));
                    arena.release(id, 1);
                    arena.release(id, 1);
                }
            }
        }
    }

    #[test]
    fn a_full_ring_says_so_and_recovers() {
        let mut arena = Arena::new(4 * PACKET_BYTES_MAX);
        let mut kept = 0;
        while arena.room().is_some() {
            arena.keep(60_000, shape(), 1);
            kept += 1;
        }
        assert_eq!(kept, 4);
        // A packet fits before the third one.
        arena.release(1, 1);
        assert!(arena.room().is_none());
        arena.release(0, 1);
        assert!(arena.room().is_some());
    }
}
