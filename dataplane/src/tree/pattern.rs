//! One pattern of names, by the rules of rsync (rsync(1), "PATTERN MATCHING RULES"; `rule_matches` in its exclude.c):
//!
//! - `*` matches any bytes but `/`, `**` any bytes, `?` one byte but `/`, `[…]` one byte of a class.
//! - With any of these, `\` takes the byte behind it literally; in a pattern without them it is a byte like any other.
//! - A `/` at the start: the rest matches the whole path. Else it matches the end of the path, from a component on.
//! - Without another `/` and `**`, only the last component of the path is looked at.
//! - A `/` at the end: directories only. `/***` at the end: a directory, and all inside of it.
//!
//! All places where a match can stand are followed at once (Thompson, "Regular Expression Search Algorithm", CACM 11(6),
//! 1968): a name takes time in proportion to its length and the pattern's, whatever a peer writes into the pattern.
use dwcp_abi::wire::FILTER_PATTERN_BYTES_MAX;

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

/// Why bytes are not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatternError {
    Empty,
    TooLong,
    OpenClass,
    UnknownClass,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty: leave it away"),
            Self::TooLong => {
                write!(f, "it is longer than {FILTER_PATTERN_BYTES_MAX} bytes: name a directory")
            }
            Self::OpenClass => write!(f, "its `[` has no `]`: write `\\[` for the byte itself"),
            Self::UnknownClass => write!(f, "it has an unknown class: there are {}", names_of_classes()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any but `/`.
    One,
    Class(Box<Class>),
    /// Any number of bytes but `/`.
    Within,
    /// Any number of bytes.
    Across,
}

/// Bytes, a bit each; `/` is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class([u64; 4]);

impl Pattern {
    /// Understands a pattern.
    pub(super) fn parse(text: &[u8]) -> Result<Self, PatternError> {
        if text.len() > FILTER_PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let only_directories = text.len() > 1 && text.ends_with(b"/");
        let text = if only_directories { &text[..text.len() - 1] } else { text };
        let is_anchored = text.starts_with(b"/");
        let has_two_stars = text.windows(2).any(|pair| pair == b"**");
        let rest = if is_anchored { &text[1..] } else { text };
        if rest.is_empty() {
            return Err(PatternError::Empty);
        }
        let is_wild = rest.iter().any(|byte| b"*?[".contains(byte));
        Ok(Self {
            tokens: if is_wild { tokens(rest)? } else { rest.iter().copied().map(Token::Byte).collect() },
            is_anchored,
            is_leaf: !text.contains(&b'/') && !has_two_stars,
            is_deep: text.starts_with(b"**"),
            only_directories,
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

fn tokens(mut text: &[u8]) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        tokens.push(match byte {
            b'*' => {
                let more = rest.iter().take_while(|&&byte| byte == b'*').count();
                text = &rest[more..];
                if more == 0 { Token::Within } else { Token::Across }
            }
            b'?' => Token::One,
            b'[' => {
                let (class, rest) = Class::parse(rest)?;
                text = rest;
                Token::Class(Box::new(class))
            }
            b'\\' => match rest.split_first() {
                Some((&byte, rest)) => {
                    text = rest;
                    Token::Byte(byte)
                }
                None => Token::Byte(byte),
            },
            byte => Token::Byte(byte),
        });
    }
    Ok(tokens)
}

impl Class {
    /// Understands what follows a `[`; gives what follows its `]` as well.
    fn parse(text: &[u8]) -> Result<(Self, &[u8]), PatternError> {
        let (is_inverted, mut text) = match text {
            [b'!' | b'^', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let mut class = Self([0; 4]);
        let mut is_first = true;
        loop {
            match text {
                [] => return Err(PatternError::OpenClass),
                [b']', rest @ ..] if !is_first => {
                    if is_inverted {
                        class.0 = class.0.map(|bits| !bits);
                    }
                    class.remove(b'/');
                    return Ok((class, rest));
                }
                [b'[', b':', rest @ ..] => text = class.add_named(rest)?,
                _ => text = class.add_range(text)?,
            }
            is_first = false;
        }
    }

    fn add_named<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], PatternError> {
        let end = text.windows(2).position(|pair| pair == b":]").ok_or(PatternError::OpenClass)?;
        let named = NAMED.iter().find(|(name, _)| name.as_bytes() == &text[..end]);
        let (_, contains) = named.ok_or(PatternError::UnknownClass)?;
        (0..=u8::MAX).filter(contains).for_each(|byte| self.add(byte));
        Ok(&text[end + 2..])
    }

    /// A byte, or all from one to another.
    fn add_range<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], PatternError> {
        let (first, rest) = literal(text)?;
        let (last, rest) = match rest {
            [b'-', b']', ..] | [] => (first, rest),
            [b'-', rest @ ..] => literal(rest)?,
            _ => (first, rest),
        };
        (first..=last).for_each(|byte| self.add(byte));
        Ok(rest)
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] &= !(1 << (byte % 64));
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }
}

fn literal(text: &[u8]) -> Result<(u8, &[u8]), PatternError> {
    match text {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Ok((*byte, rest)),
        [] => Err(PatternError::OpenClass),
    }
}

fn names_of_classes() -> String {
    NAMED.map(|(name, _)| format!("[:{name}:]")).join(", ")
}

type IsMember = fn(&u8) -> bool;

/// As in POSIX (IEEE 1003.1, 9.3.5), in the C locale: names are bytes.
const NAMED: [(&str, IsMember); 12] = [
    ("alnum", u8::is_ascii_alphanumeric),
    ("alpha", u8::is_ascii_alphabetic),
    ("blank", |byte| matches!(byte, b' ' | b'\t')),
    ("cntrl", u8::is_ascii_control),
    ("digit", u8::is_ascii_digit),
    ("graph", u8::is_ascii_graphic),
    ("lower", u8::is_ascii_lowercase),
    ("print", |byte| matches!(byte, b' '..=b'~')),
    ("punct", u8::is_ascii_punctuation),
    ("space", |byte| matches!(byte, b' ' | b'\t'..=b'\r')),
    ("upper", u8::is_ascii_uppercase),
    ("xdigit", u8::is_ascii_hexdigit),
];

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

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = [b'a'; FILTER_PATTERN_BYTES_MAX + 1];
        for (text, error) in [
            (&b""[..], PatternError::Empty),
            (b"/", PatternError::Empty),
            (b"//", PatternError::Empty),
            (b"x[a", PatternError::OpenClass),
            (b"[", PatternError::OpenClass),
            (b"[]", PatternError::OpenClass),
            (b"[a-", PatternError::OpenClass),
            (b"[\\", PatternError::OpenClass),
            (b"[[:digit]", PatternError::OpenClass),
            (b"[[:odd:]]", PatternError::UnknownClass),
            (&long, PatternError::TooLong),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{}", String::from_utf8_lossy(text));
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
