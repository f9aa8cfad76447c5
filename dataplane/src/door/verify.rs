//! Who is at the other end of a lane: the peer that was dialled, or any of the plan's. Used by [`super::tls`] for both roles.
use std::sync::{Arc, OnceLock};

use dwcp_sys::pinned::{Accept, PinnedVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;

use super::plan::Plan;
use crate::identity::Fingerprint;

/// Whose certificates are accepted.
#[derive(Debug)]
pub(super) enum Known {
    /// The one peer that was dialled.
    One(Fingerprint),
    /// Every peer of a plan.
    Plan(Arc<Plan>),
}

/// Who is known, and who was met on one connection.
#[derive(Debug)]
pub(super) struct Met {
    known: Known,
    presented: OnceLock<Fingerprint>,
}

impl Accept for Met {
    fn accepts(&self, shown: &Fingerprint) -> bool {
        let presented = *self.presented.get_or_init(|| *shown);
        let known = match &self.known {
            Known::One(expected) => expected == shown,
            Known::Plan(plan) => plan.by_fingerprint(shown).is_some(),
        };
        known && presented == *shown
    }
}

/// Verifies the other end of one connection.
pub(super) type Verifier = PinnedVerifier<Met>;

pub(super) fn verifier(known: Known, algorithms: WebPkiSupportedAlgorithms) -> Verifier {
    PinnedVerifier::new(Met { known, presented: OnceLock::new() }, algorithms)
}

/// The certificate that the other end showed, whether it was accepted or not.
pub(super) fn presented(verifier: &Verifier) -> Option<Fingerprint> {
    verifier.known().presented.get().copied()
}
