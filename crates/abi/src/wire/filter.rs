//! What a job leaves out: rules in their order, one after the other. The same list travels in orders to the dataplane, in a
//! peer's fetch, and lies in control's store.
//!
//! ```text
//!  0        1               3
//!  ┌────────┬───────────────┬─────────┬──
//!  │ action │ length of it  │ pattern │ next rule …
//!  └────────┴───────────────┴─────────┴──
//! ```
//! The meaning of a pattern is the scanner's affair.
use crate::codec::{CodecError, Encoded, Reader, codes, records};

codes! {
    /// What becomes of a name that a rule matches, where no rule before it does.
    pub enum FilterAction: u8 {
        /// It is sent.
        Include = 1,
        /// It is not sent, nor is anything inside of it.
        Exclude = 2,
    }
}

records! {
    /// One rule.
    pub struct FilterRule<'a> {
        /// What becomes of a name that it matches.
        pub action: FilterAction,
        /// 1 to [`FILTER_PATTERN_BYTES_MAX`] bytes.
        pub pattern: &'a [u8],
    }
}

/// Most rules of a job: each is tried on each name.
pub const FILTERS_MAX: usize = 256;

/// Longest pattern, in bytes: what a scanner keeps for each position in it is on its stack.
pub const FILTER_PATTERN_BYTES_MAX: usize = 1023;

/// Longest list of a job, in bytes: it shares a frame with the sources of a fetch.
pub const FILTER_LIST_BYTES_MAX: usize = 8 * 1024;

/// Walks a list; ends after the first error.
///
/// # Errors
/// Each item: [`CodecError::TooLarge`] for a list, a number of rules or a pattern above its bound, others for a list that is
/// damaged.
pub fn filter_rules(list: &[u8]) -> impl Iterator<Item = Result<FilterRule<'_>, CodecError>> {
    let (mut reader, mut rules) = (Reader::new(list), 0);
    core::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        rules += 1;
        let rule = bounded("bytes of filters", list.len(), FILTER_LIST_BYTES_MAX)
            .and_then(|()| bounded("filters", rules, FILTERS_MAX))
            .and_then(|()| FilterRule::read(&mut reader))
            .and_then(|rule| {
                bounded("bytes of a pattern", rule.pattern.len(), FILTER_PATTERN_BYTES_MAX).map(|()| rule)
            });
        if rule.is_err() {
            reader = Reader::new(&[]);
        }
        Some(rule)
    })
}

fn bounded(field: &'static str, value: usize, max: usize) -> Result<(), CodecError> {
    let (value, max) = (value as u64, max as u64);
    if value > max { Err(CodecError::TooLarge { field, value, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn list(pattern: &[u8], rules: usize) -> Vec<u8> {
        let mut one = std::vec![0; 3 + pattern.len()];
        FilterRule { action: FilterAction::Exclude, pattern }.encode(&mut one).unwrap();
        one.repeat(rules)
    }

    #[test]
    fn a_list_is_walked_up_to_its_bounds() {
        assert!(filter_rules(&list(b"*.o", FILTERS_MAX)).all(|rule| rule.unwrap().pattern == b"*.o"));
        assert_eq!(filter_rules(&[]).count(), 0);
        let many = list(b"*.o", FILTERS_MAX + 1);
        let long = list(&[b'a'; FILTER_PATTERN_BYTES_MAX + 1], 1);
        let large = list(&[b'a'; FILTER_PATTERN_BYTES_MAX], 9);
        for bad in [many, long, large] {
            let last = filter_rules(&bad).last().unwrap();
            assert!(matches!(last, Err(CodecError::TooLarge { .. })), "{last:?}");
        }
        let cut = &list(b"abc", 2)[..9];
        assert_eq!(filter_rules(cut).last(), Some(Err(CodecError::Truncated)));
    }
}
