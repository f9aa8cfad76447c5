//! What a job leaves out: rules by patterns, of which the first that matches decides, as in rsync. The scanner asks for
//! each name; what is inside of a directory that is left out is never looked at.
use super::name::Shown;
use super::pattern::Pattern;
use dwcp_abi::wire::{FilterAction, filter_rules};
use std::cell::LazyCell;

/// Rules in their order; none by default.
#[derive(Debug, Default)]
pub struct Filters(Vec<(FilterAction, Pattern)>);

impl Filters {
    /// Understands a list of rules, an operator's or a peer's.
    ///
    /// # Errors
    /// Says which pattern is none and why, or that the list breaks a bound of [`filter_rules`].
    pub fn parse(list: &[u8]) -> Result<Self, String> {
        let mut rules = Vec::new();
        for rule in filter_rules(list) {
            let rule = rule.map_err(|error| format!("the job's filters cannot be used: {error}"))?;
            let pattern = Pattern::parse(rule.pattern)
                .map_err(|error| format!("the pattern '{}' cannot be used: {error}", Shown(rule.pattern)))?;
            rules.push((rule.action, pattern));
        }
        Ok(Self(rules))
    }

    /// Whether a path below the destination is left out. What it is, is only asked for when that matters.
    pub(super) fn exclude(&self, path: &[u8], is_directory: impl FnOnce() -> bool) -> bool {
        let is_directory = LazyCell::new(is_directory);
        let mut rules = self.0.iter();
        let first =
            rules.find(|(_, pattern)| pattern.matches(path, pattern.depends_on_type() && *is_directory));
        first.is_some_and(|(action, _)| *action == FilterAction::Exclude)
    }
}
