//! What a proactor got from the kernel, and why it did not get the rest. `dwcp doctor` and the start-up log print it.

use std::fmt;

use crate::buffers::Mapping;

use super::Backend;

/// One feature that was asked for or considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as the kernel or the operator knows it.
    pub name: &'static str,
    /// Why it is not in use, one short line; `None` when it is.
    pub refusal: Option<String>,
}

/// All features of one proactor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    pub(super) backend: Backend,
    pub(super) all: Vec<Feature>,
}

impl Features {
    pub(super) fn new(backend: Backend) -> Features {
        Features { backend, all: Vec::new() }
    }

    pub(super) fn used(&mut self, name: &'static str) {
        self.all.push(Feature { name, refusal: None });
    }

    pub(super) fn refused(&mut self, name: &'static str, refusal: impl Into<String>) {
        self.all.push(Feature { name, refusal: Some(refusal.into()) });
    }

    pub(super) fn record(&mut self, name: &'static str, outcome: Result<(), String>) {
        self.all.push(Feature { name, refusal: outcome.err() });
    }

    pub(super) fn record_memory(&mut self, mapping: &Mapping) {
        let pages = mapping.pages();
        self.record("hugepages", pages.reserved.map_err(|refusal| refusal.explain_reserved()));
        self.record(
            "transparent hugepages",
            pages.transparent.map_err(|refusal| refusal.explain_transparent()),
        );
    }

    /// The kernel interface in use.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Every feature, in the order in which they were probed.
    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.all.iter()
    }

    /// Whether the feature of this name is in use.
    pub fn uses(&self, name: &str) -> bool {
        self.all.iter().any(|feature| feature.name == name && feature.refusal.is_none())
    }
}

impl fmt::Display for Features {
    /// One line: the backend, what is used, and what is not with its reason.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.backend)?;
        for feature in &self.all {
            match &feature.refusal {
                None => write!(formatter, ", {}", feature.name)?,
                Some(reason) => write!(formatter, ", no {} ({reason})", feature.name)?,
            }
        }
        Ok(())
    }
}
