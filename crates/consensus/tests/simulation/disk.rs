//! A replica's disk and the queue in front of it: the driver's half of the persistence contract. Outputs come out in
//! their order; what stands behind a record waits until the record is durable; a crash forgets the rest.
use std::collections::{BTreeMap, VecDeque};

use dwcp_consensus::{Key, Output};

use crate::rng::Rng;

/// Something that leaves the replica, or a note of what it signed before.
#[derive(Debug)]
pub(crate) enum Item {
    Output(Output),
    Signed([u8; 81]),
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    durable: BTreeMap<Key, Vec<u8>>,
    queue: VecDeque<Item>,
    /// Items of the queue that the write under way makes durable.
    writing: usize,
}

impl Disk {
    pub(crate) fn push(&mut self, item: Item) {
        self.queue.push_back(item);
    }

    /// The next item that may come out; `None` also where a write must come first.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        if self.writing > 0 {
            return None;
        }
        match self.queue.front()? {
            Item::Output(Output::Persist { .. } | Output::Forget { .. }) => None,
            Item::Output(_) | Item::Signed(_) => self.queue.pop_front(),
        }
    }

    /// Begins to write everything that waits, in one go; false where nothing does or a write is under way.
    pub(crate) fn begin_write(&mut self) -> bool {
        let begins = self.writing == 0 && !self.queue.is_empty();
        if begins {
            self.writing = self.queue.len();
        }
        begins
    }

    /// The write is done: what it made durable comes out.
    pub(crate) fn end_write(&mut self) -> Vec<Item> {
        let mut done: Vec<_> = self.queue.drain(..self.writing).collect();
        self.writing = 0;
        done.retain(|item| !self.write(item));
        done
    }

    fn write(&mut self, item: &Item) -> bool {
        match item {
            Item::Output(Output::Persist { key, value }) => {
                self.durable.insert(*key, value.clone());
                true
            }
            Item::Output(Output::Forget { key }) => {
                self.durable.remove(key);
                true
            }
            Item::Output(_) | Item::Signed(_) => false,
        }
    }

    /// The power fails: of the write under way some records made it.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let written = rng.below(self.writing as u64 + 1) as usize;
        let queue = std::mem::take(&mut self.queue);
        queue.iter().take(written).for_each(|item| {
            self.write(item);
        });
        self.writing = 0;
    }

    pub(crate) fn lose(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn records(&self) -> Vec<(Key, Vec<u8>)> {
        self.durable.iter().map(|(key, value)| (*key, value.clone())).collect()
    }
}
