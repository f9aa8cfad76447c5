//! What is kept of epochs. Records of the epoch's replica stand under their own keys with the epoch in front of their
//! value: after a crash in the middle of a step, those of another epoch do not count.
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::messages::EpochRecord;
use super::{Epochs, LINKS_MAX};
use crate::io::{Corrupt, Key, Output, Stable, Start};
use crate::wire::{Reader, Wire};

/// What was found of epochs themselves.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) record: Option<EpochRecord>,
    pub(super) origin: Option<Arc<[u8]>>,
    pub(super) links: BTreeMap<u64, Stable>,
    /// Keys of the epoch's replica.
    pub(super) keys: BTreeSet<Key>,
    pub(super) lost: bool,
    /// Nothing says yet which epoch it is.
    pub(super) is_new: bool,
}

/// Parts what was found: about epochs, and of the replica of the present one.
pub(super) fn sort(start: Start) -> Result<(Kept, Start), Corrupt> {
    let records = match start {
        Start::Fresh => return Ok((Kept { is_new: true, ..Kept::default() }, Start::Fresh)),
        Start::Lost => return Ok((Kept { is_new: true, lost: true, ..Kept::default() }, Start::Lost)),
        Start::Resume(records) => records,
    };
    let record = records.iter().find(|(key, _)| *key == Key::Epoch).map(|(_, value)| value);
    let Some(record) = record else {
        // The first record is made durable before any other: without it nothing was ever said.
        let sound = records.is_empty();
        let kept = Kept { is_new: true, ..Kept::default() };
        return if sound { Ok((kept, Start::Fresh)) } else { Err(Corrupt) };
    };
    let record = EpochRecord::decoded(record)?;
    let epoch = record.anchor.plan.epoch;
    let mut kept = Kept { lost: record.lost, record: Some(record), ..Kept::default() };
    let mut inner = Vec::new();
    for (key, value) in records {
        match key {
            Key::Epoch => {}
            Key::Origin { epoch: of } if of == epoch => kept.origin = Some(value.into()),
            Key::Origin { .. } => {}
            Key::Link { epoch: of } => {
                kept.links.insert(of, Stable::decoded(&value)?);
            }
            Key::Stable | Key::Batch { .. } | Key::Protocol { .. } => {
                kept.keys.insert(key);
                let mut input = Reader::new(&value);
                if u64::read(&mut input)? == epoch {
                    inner.push((key, input.take(input.left())?.to_vec()));
                }
            }
        }
    }
    Ok((kept, Start::Resume(inner)))
}

impl Epochs {
    pub(super) fn persist(&mut self, key: Key, value: &[u8]) {
        self.keys.insert(key);
        let mut bytes = self.anchor.plan.epoch.encoded();
        bytes.extend_from_slice(value);
        self.outputs.push_back(Output::Persist { key, value: bytes });
    }

    pub(super) fn forget(&mut self, key: Key) {
        if key == crate::node::LOST {
            // First that nothing is lost any more: the other way round, a crash in between would forget what was said since.
            self.lost = false;
            self.persist_epoch();
        }
        self.keys.remove(&key);
        self.outputs.push_back(Output::Forget { key });
    }

    pub(super) fn persist_epoch(&mut self) {
        let record = EpochRecord { anchor: self.anchor.clone(), lost: self.lost };
        self.outputs.push_back(Output::Persist { key: Key::Epoch, value: record.encoded() });
    }

    /// Lets go of what the replica of an epoch kept, and of ends too old to be asked for.
    pub(super) fn forget_epoch(&mut self, epoch: u64) {
        let keys = core::mem::take(&mut self.keys);
        self.outputs.extend(keys.into_iter().map(|key| Output::Forget { key }));
        self.outputs.push_back(Output::Forget { key: Key::Origin { epoch } });
        while self.links.len() > LINKS_MAX
            && let Some((epoch, _)) = self.links.pop_first()
        {
            self.outputs.push_back(Output::Forget { key: Key::Link { epoch } });
        }
    }
}
