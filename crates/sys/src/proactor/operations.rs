//! The operations in flight: a slab of fixed size, so that starting one allocates nothing.
//!
//! A key carries the generation of its slot. What the kernel says about an operation that is over finds nothing.

use crate::buffers::Span;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Recv,
    RecvAll,
    SendAll,
    ReadAt,
    WriteAt,
    Sync,
}

/// What an operation does to its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Reads,
    Writes,
    Nothing,
}

/// Operations of one direction of a stream run one after the other; positional ones run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Incoming,
    Outgoing,
}

impl Kind {
    pub(super) fn access(self) -> Access {
        match self {
            Kind::Recv | Kind::RecvAll | Kind::ReadAt => Access::Writes,
            Kind::SendAll | Kind::WriteAt => Access::Reads,
            Kind::Sync => Access::Nothing,
        }
    }

    pub(super) fn direction(self) -> Option<Direction> {
        match self {
            Kind::Recv | Kind::RecvAll => Some(Direction::Incoming),
            Kind::SendAll => Some(Direction::Outgoing),
            Kind::ReadAt | Kind::WriteAt | Kind::Sync => None,
        }
    }
}

/// Where an operation is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Behind another operation of the same handle and direction.
    Queued,
    /// To be started (or continued) by the next turn. The kernel does not know it.
    Pending,
    /// With the kernel (io_uring) or waiting for readiness (epoll).
    Running,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) cancelled: bool,
    /// Interruptions in a row without progress.
    pub(super) retries: u8,
    pub(super) slot: u16,
    pub(super) span: Span,
    pub(super) done: u32,
    pub(super) offset: u64,
    pub(super) token: u64,
    /// Neighbours in the queue of the handle's direction, as slab indices.
    pub(super) previous: Option<u32>,
    pub(super) next: Option<u32>,
}

impl Operation {
    /// The part of the span that is still to be done.
    pub(super) fn rest(&self) -> Span {
        let Span { buffer, start, length } = self.span;
        Span { buffer, start: start + self.done, length: length - self.done }
    }

    /// File offset of the rest.
    pub(super) fn rest_offset(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.done))
    }
}

/// Names one operation for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    /// 28 bits, see `user_data`.
    pub(super) generation: u32,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    operation: Option<Operation>,
}

/// The slab.
#[derive(Debug)]
pub(super) struct Operations {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Operations {
    pub(super) fn new(capacity: u32) -> Operations {
        let places = (0..capacity).map(|_| Place { generation: 0, operation: None }).collect();
        Operations { places, free: (0..capacity).rev().collect() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Panics when the slab is full: the caller asks first.
    pub(super) fn insert(&mut self, operation: Operation) -> Key {
        let index = self.free.pop().expect("the caller checked is_full");
        let place = &mut self.places[index as usize];
        place.operation = Some(operation);
        Key { index, generation: place.generation }
    }

    pub(super) fn at(&mut self, key: Key) -> Option<&mut Operation> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        place.operation.as_mut()
    }

    /// The operation in a place that is known to be taken (a neighbour in a queue).
    pub(super) fn neighbour(&mut self, index: u32) -> &mut Operation {
        self.places[index as usize].operation.as_mut().expect("queues link live operations")
    }

    pub(super) fn key_of(&self, index: u32) -> Key {
        Key { index, generation: self.places[index as usize].generation }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Operation> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let operation = place.operation.take()?;
        place.generation = (place.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(operation)
    }

    /// The first operation at or after `from` that `matches`.
    pub(super) fn find(&self, from: u32, matches: impl Fn(&Operation) -> bool) -> Option<Key> {
        let places = self.places.iter().enumerate().skip(from as usize);
        places
            .filter(|(_, place)| place.operation.as_ref().is_some_and(&matches))
            .map(|(index, place)| Key { index: index as u32, generation: place.generation })
            .next()
    }
}

/// Generations have as many bits as io_uring's user data leaves for them.
pub(super) const GENERATION_MASK: u32 = (1 << 28) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::BufferId;

    fn operation(token: u64) -> Operation {
        Operation {
            kind: Kind::Recv,
            stage: Stage::Pending,
            cancelled: false,
            retries: 0,
            slot: 0,
            span: Span { buffer: BufferId(0), start: 4, length: 10 },
            done: 3,
            offset: u64::MAX - 1,
            token,
            previous: None,
            next: None,
        }
    }

    #[test]
    fn stale_keys_find_nothing() {
        let mut operations = Operations::new(1);
        let first = operations.insert(operation(1));
        assert!(operations.is_full());
        assert_eq!(operations.remove(first).map(|operation| operation.token), Some(1));
        let second = operations.insert(operation(2));
        assert_eq!(first.index, second.index);
        assert!(operations.at(first).is_none());
        assert!(operations.remove(first).is_none());
        assert_eq!(operations.at(second).map(|operation| operation.token), Some(2));
        assert_eq!(operations.in_flight(), 1);
    }

    #[test]
    fn rest_follows_progress() {
        let operation = operation(0);
        assert_eq!(operation.rest(), Span { buffer: BufferId(0), start: 7, length: 7 });
        assert_eq!(operation.rest_offset(), u64::MAX);
    }
}
