//! One pattern of names, by the rules of rsync (rsync(1), "PATTERN MATCHING RULES"; `rule_matches` in its exclude.c). How
//! it is written says `dwcp_abi::wire::PatternText`.
//!
//! - A `/` at the start: the rest matches the whole path. Else it matches the end of the path, from a component on.
//! - Without another `/` and `**`, only the last component of the path is looked at.
//! - A `/` at the end: directories only. `/***` at the end: a directory, and all inside of it.
//!
//! All places where a match can stand are followed at once (Thompson, "Regular Expression Search Algorithm", CACM 11(6),
//! 1968): a name takes time in proportion to its length and the pattern's, whatever a peer writes into the pattern.
use dwcp_abi::wire::{FILTER_PATTERN_BYTES_MAX, PatternError, PatternText, PatternToken as Token};

/// What a name is matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// It begins at the root.
    is_anchored: bool,
    /// Only the last component counts.
    is_leaf: bool,
    /// It begins with `**`: a `/` is thought before the path.
    is_deep: bool,
    /// Only directories match.
    only_directories: bool,
    /// It ends with `/***`: a `/` is thought behind a directory's path.
    takes_contents: bool,
}

impl Pattern {
    /// Understands a pattern.
    pub(super) fn parse(text: &[u8]) -> Result<Self, PatternError> {
        let pattern = PatternText::parse(text)?;
        let text = pattern.text;
        let has_two_stars = text.windows(2).any(|pair| pair == b"**");
        Ok(Self {
            tokens: pattern.tokens().collect(),
            is_anchored: pattern.is_anchored,
            is_leaf: !text.contains(&b'/') && !has_two_stars,
            is_deep: text.starts_with(b"**"),
            only_directories: pattern.only_directories,
            takes_contents: text.ends_with(b"/***"),
        })
    }

    /// Whether it matches only what is a directory, or matches that differently.
    pub(super) fn depends_on_type(&self) -> bool {
        self.only_directories || self.takes_contents
    }

    /// Whether a path below the root matches.
    pub(super) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        if self.only_directories && !is_directory {
            return false;
        }
        let name = if self.is_leaf { super::name::split(path).1 } else { path };
        let mut places = Places::default();
        places.add(0, &self.tokens);
        let before: &[u8] = if self.is_deep { b"/" } else { b"" };
        let behind: &[u8] = if self.takes_contents && is_directory { b"/" } else { b"" };
        for &byte in before.iter().chain(name).chain(behind) {
            places = places.after(byte, &self.tokens);
            if byte == b'/' && !self.is_anchored {
                places.add(0, &self.tokens);
            }
        }
        places.has(self.tokens.len())
    }
}

/// Positions in a pattern up to which what was read matches.
#[derive(Clone, Copy, Default)]
struct Places([u64; (FILTER_PATTERN_BYTES_MAX + 1) / 64]);

impl Places {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    /// Notes a position, and those behind it that need no byte.
    fn add(&mut self, at: usize, tokens: &[Token]) {
        for at in at..=tokens.len() {
            self.0[at / 64] |= 1 << (at % 64);
            if !matches!(tokens.get(at), Some(Token::Within | Token::Across)) {
                break;
            }
        }
    }

    fn after(&self, byte: u8, tokens: &[Token]) -> Self {
        let mut next = Self::default();
        for (word, &bits) in self.0.iter().enumerate().take(tokens.len() / 64 + 1) {
            let mut bits = bits;
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                match tokens.get(at) {
                    Some(Token::Byte(wanted)) if *wanted == byte => next.add(at + 1, tokens),
                    Some(Token::One) if byte != b'/' => next.add(at + 1, tokens),
                    Some(Token::Class(class)) if class.has(byte) => next.add(at + 1, tokens),
                    Some(Token::Within) if byte != b'/' => next.add(at, tokens),
                    Some(Token::Across) => next.add(at, tokens),
                    Some(Token::Byte(_) | Token::One | Token::Class(_) | Token::Within) | None => {}
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Pattern, path (a directory's ends with `/`), and whether rsync 3.5.0 takes them for a match.
    const CASES: &[(&str, &str, bool)] = &[
        ("foo", "foo", true),
        ("foo", "a/foo", true),
        ("foo", "a/foo/", true),
        ("foo", "a/xfoo", false),
        ("/foo", "foo", true),
        ("/foo", "a/foo", false),
        ("foo/", "a/foo/", true),
        ("foo/", "a/foo", false),
        ("a/foo", "b/a/foo", true),
        ("a/foo", "b/xa/foo", false),
        ("/a/foo", "b/a/foo", false),
        ("*.o", "a/b/main.o", true),
        ("*.o", "a/b.o/main", false),
        ("/*.o", "a/main.o", false),
        ("/*/main.o", "a/main.o", true),
        ("/*/main.o", "a/b/main.o", false),
        ("/**/main.o", "a/b/main.o", true),
        ("/**/main.o", "main.o", false),
        ("**/main.o", "main.o", true),
        ("**/main.o", "a/b/main.o", true),
        ("a**z", "q/a/b/z", true),
        ("a**z", "q/ba/b/z", false),
        ("a/***", "a/", true),
        ("a/***", "a", false),
        ("a/***", "a/b/c", true),
        ("a/**", "a/", false),
        ("a/**", "a/b", true),
        ("?", "x", true),
        ("?", "xy", false),
        ("a?b", "a/b", false),
        ("x[0-9]y", "x5y", true),
        ("x[!0-9]y", "x5y", false),
        ("x[^0-9]y", "xzy", true),
        ("a[!x]b/c", "a/b/c", false),
        ("[]x]", "]", true),
        ("[a-]", "-", true),
        ("[[:digit:][:upper:]]*", "Zebra", true),
        ("[[:digit:]]*", "Zebra", false),
        ("[\\]]", "]", true),
        ("\\*", "*", true),
        ("\\*", "x", false),
        ("a\\b", "a\\b", true),
        ("*a*a*b", "aaaaaaaab", true),
        ("*", ".hidden", true),
    ];

    #[test]
    fn names_match_as_in_rsync() {
        for &(pattern, path, expected) in CASES {
            let is_directory = path.ends_with('/');
            let parsed = Pattern::parse(pattern.as_bytes()).unwrap();
            let found = parsed.matches(path.trim_end_matches('/').as_bytes(), is_directory);
            assert_eq!(found, expected, "{pattern} against {path}");
        }
    }

    /// A matcher that goes back to its stars would take longer than the universe is old.
    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let stars = b"*a".repeat(FILTER_PATTERN_BYTES_MAX / 2 - 1);
        let pattern = Pattern::parse(&[&b"**"[..], &stars].concat()).unwrap();
        let (path, started) = ([b'a'; 4094], Instant::now());
        assert!(!pattern.matches(&[&path[..], b"b"].concat(), false));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
