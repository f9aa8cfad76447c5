//! Which versions a baseline store keeps, and in what form: the rules of its driver, without its files. The driver asks
//! what to do, does it, and says what it did; records that it reads from disk are as hostile as a peer's.
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use dwcp_abi::wire::ContentId;

/// The configuration's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRules {
    /// Deltas that may stand between a stored version and a whole one (`max_delta_chain`).
    pub chain_max: u32,
    /// A stream's newest baseline is replaced after this (`baseline_interval`).
    pub interval: Duration,
    /// Bytes of the store (`baseline_store_bytes`).
    pub bytes_max: u64,
}

/// A version on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its content.
    pub content: ContentId,
    /// What it is stored as differences to; none where it is whole.
    pub parent: Option<ContentId>,
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// When it was last of use, on the driver's clock.
    pub used_at: Duration,
}

/// How a version is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAs {
    /// By itself.
    Whole,
    /// As differences to this one.
    DeltaTo(ContentId),
}

/// Why a version cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It is not there, or what it builds on is not.
    #[error("version {0:?} is not in the store")]
    Missing(ContentId),
    /// Versions that build on each other.
    #[error("version {0:?} builds on itself")]
    Cycle(ContentId),
    /// More steps than the rules allow.
    #[error("version {content:?} builds on more than {chain_max} others")]
    TooLong {
        /// The version that was asked for.
        content: ContentId,
        /// Most steps.
        chain_max: u32,
    },
}

/// The versions of a store.
#[derive(Debug)]
pub struct Versions {
    rules: VersionRules,
    records: BTreeMap<ContentId, VersionRecord>,
    leases: BTreeMap<ContentId, u32>,
}

impl Versions {
    /// An empty store.
    #[must_use]
    pub const fn new(rules: VersionRules) -> Self {
        Self { rules, records: BTreeMap::new(), leases: BTreeMap::new() }
    }

    /// What holds.
    #[must_use]
    pub const fn rules(&self) -> VersionRules {
        self.rules
    }

    /// Other rules, for what is decided from now on.
    pub const fn set_rules(&mut self, rules: VersionRules) {
        self.rules = rules;
    }

    /// Versions that are on disk.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Takes note of a version that is on disk.
    pub fn insert(&mut self, record: VersionRecord) {
        self.records.insert(record.content, record);
    }

    /// A version was read or sent against.
    pub fn touch(&mut self, content: ContentId, now: Duration) {
        if let Some(record) = self.records.get_mut(&content) {
            record.used_at = record.used_at.max(now);
        }
    }

    /// How to store the successor of `previous`, which itself is kept whole from now on: the newest version is always
    /// whole, so that a transfer's baseline is read in one step, and older ones become differences to it.
    #[must_use]
    pub fn store_previous_as(&self, previous: ContentId, newest: ContentId) -> StoreAs {
        let behind = self.depth_below(previous);
        if previous == newest || behind + 1 > self.rules.chain_max {
            return StoreAs::Whole;
        }
        StoreAs::DeltaTo(newest)
    }

    /// Whether a stream should take a new baseline.
    #[must_use]
    pub fn stream_baseline_due(&self, taken_at: Duration, now: Duration) -> bool {
        now.saturating_sub(taken_at) >= self.rules.interval
    }

    /// The versions to read, from a whole one to `content`.
    ///
    /// # Errors
    /// [`ChainError`]: the version is of no use, and [`Self::remove_broken`] says what to delete.
    pub fn chain(&self, content: ContentId) -> Result<Vec<ContentId>, ChainError> {
        let mut chain = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(content);
        while let Some(id) = next {
            if !seen.insert(id) {
                return Err(ChainError::Cycle(id));
            }
            if chain.len() > self.rules.chain_max as usize {
                return Err(ChainError::TooLong { content, chain_max: self.rules.chain_max });
            }
            next = self.records.get(&id).ok_or(ChainError::Missing(id))?.parent;
            chain.push(id);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Keeps a version, and what it builds on, until it is released as often: a block that names it is under way.
    ///
    /// # Errors
    /// As [`Self::chain`].
    pub fn lease(&mut self, content: ContentId) -> Result<(), ChainError> {
        self.chain(content)?;
        *self.leases.entry(content).or_insert(0) += 1;
        Ok(())
    }

    /// The other end has acknowledged what named the version, or never will.
    pub fn release(&mut self, content: ContentId) {
        let Some(leases) = self.leases.get_mut(&content) else { return };
        *leases -= 1;
        if *leases == 0 {
            self.leases.remove(&content);
        }
    }

    /// Takes a version out whose bytes are not those of its name, with all that build on it. What to delete.
    pub fn remove_broken(&mut self, content: ContentId) -> Vec<ContentId> {
        let mut gone = vec![content];
        let mut at = 0;
        while let Some(parent) = gone.get(at).copied() {
            at += 1;
            let children = self.records.values().filter(|record| record.parent == Some(parent));
            let children: Vec<_> =
                children.map(|record| record.content).filter(|id| !gone.contains(id)).collect();
            gone.extend(children);
        }
        gone.retain(|id| self.records.remove(id).is_some());
        gone
    }

    /// What to delete so that the store keeps its bound: what was of use longest ago and nothing builds on, never what
    /// is leased. The records are gone with the answer.
    pub fn prune(&mut self) -> Vec<ContentId> {
        let mut pruned = Vec::new();
        while self.stored_bytes() > self.rules.bytes_max {
            let needed: HashSet<ContentId> =
                self.records.values().filter_map(|record| record.parent).collect();
            let free = self.records.values().filter(|record| {
                !needed.contains(&record.content) && !self.leases.contains_key(&record.content)
            });
            let Some(oldest) =
                free.min_by_key(|record| (record.used_at, record.content)).map(|record| record.content)
            else {
                break;
            };
            self.records.remove(&oldest);
            pruned.push(oldest);
        }
        pruned
    }

    /// Bytes on disk.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.records.values().fold(0, |sum, record| sum.saturating_add(record.stored_bytes))
    }

    /// Longest way down from a version to what builds on it.
    fn depth_below(&self, content: ContentId) -> u32 {
        let mut level = vec![content];
        let mut seen: HashSet<ContentId> = HashSet::from([content]);
        let mut depth = 0;
        loop {
            let children =
                self.records.values().filter(|record| record.parent.is_some_and(|id| level.contains(&id)));
            level = children.map(|record| record.content).filter(|id| seen.insert(*id)).collect();
            if level.is_empty() {
                return depth;
            }
            depth += 1;
        }
    }
}
