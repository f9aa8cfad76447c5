//! The descriptors that a proactor owns, each in a slot until its last operation is over.

use std::os::fd::OwnedFd;

use super::operations::Direction;

/// A descriptor inside the proactor that handed it out. Using it after `remove` fails with `EBADF`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(u32);

impl Handle {
    fn new(slot: u16, generation: u16) -> Handle {
        Handle(u32::from(generation) << 16 | u32::from(slot))
    }

    fn slot(self) -> u16 {
        self.0 as u16
    }

    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) fd: OwnedFd,
    /// Operations that name this slot, running or queued.
    pub(super) in_flight: u32,
    /// Set by `remove`: no new operations; the slot is freed after the last one.
    pub(super) removed: bool,
    /// Operations started so far; io_uring registers descriptors that turn out to be busy.
    pub(super) use_count: u32,
    /// Whether the ring's file table holds the descriptor.
    pub(super) registered: bool,
    /// Whether operations go over a queue pair; the descriptor is the connection beside it.
    pub(super) paired: bool,
    incoming: Queue,
    outgoing: Queue,
}

/// Ends of a queue of operations, as slab indices; the operations hold the links.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) head: Option<u32>,
    pub(super) tail: Option<u32>,
}

impl Entry {
    pub(super) fn queue(&mut self, direction: Direction) -> &mut Queue {
        match direction {
            Direction::Incoming => &mut self.incoming,
            Direction::Outgoing => &mut self.outgoing,
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u16,
    entry: Option<Entry>,
}

/// The table of descriptors.
#[derive(Debug)]
pub(super) struct Handles {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl Handles {
    pub(super) fn new(capacity: u16) -> Handles {
        let slots = (0..capacity).map(|_| Slot::default()).collect();
        Handles { slots, free: (0..capacity).rev().collect() }
    }

    /// Takes a slot, or gives the descriptor back when there is none.
    pub(super) fn insert(&mut self, fd: OwnedFd) -> Result<(Handle, u16), OwnedFd> {
        let Some(index) = self.free.pop() else { return Err(fd) };
        let slot = &mut self.slots[usize::from(index)];
        slot.entry = Some(Entry {
            fd,
            in_flight: 0,
            removed: false,
            use_count: 0,
            registered: false,
            paired: false,
            incoming: Queue::default(),
            outgoing: Queue::default(),
        });
        Ok((Handle::new(index, slot.generation), index))
    }

    /// Slot of a handle that may be used.
    pub(super) fn slot_of(&self, handle: Handle) -> Option<u16> {
        let slot = self.slots.get(usize::from(handle.slot()))?;
        let entry = slot.entry.as_ref()?;
        (slot.generation == handle.generation() && !entry.removed).then(|| handle.slot())
    }

    /// The entry of a taken slot.
    pub(super) fn entry(&mut self, slot: u16) -> &mut Entry {
        self.slots[usize::from(slot)].entry.as_mut().expect("operations name taken slots")
    }

    pub(super) fn fd(&self, slot: u16) -> Option<&OwnedFd> {
        self.slots.get(usize::from(slot))?.entry.as_ref().map(|entry| &entry.fd)
    }

    /// Frees a slot. The descriptor closes when the caller drops the entry.
    pub(super) fn release(&mut self, slot: u16) -> Option<Entry> {
        let place = &mut self.slots[usize::from(slot)];
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        Some(entry)
    }
}
