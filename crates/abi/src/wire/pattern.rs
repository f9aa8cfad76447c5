//! How a pattern of names is written, which is rsync's way (rsync(1), "PATTERN MATCHING RULES"):
//!
//! - `*` stands for any bytes but `/`, `**` for any bytes, `?` for one byte but `/`, `[…]` for one byte of a class.
//! - With any of these, `\` takes the byte behind it literally; in a pattern without them it is a byte like any other.
//! - A `/` at the start anchors it, a `/` at the end is for directories only.
//!
//! Whoever takes patterns from people checks them here, so that none fails a job later; the dataplane matches names
//! against the [`PatternToken`]s.
use core::fmt;

use super::FILTER_PATTERN_BYTES_MAX;

/// A pattern that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternText<'a> {
    /// All of it but the `/` at the end.
    pub text: &'a [u8],
    /// What its tokens are made of.
    pub rest: &'a [u8],
    /// It begins with a `/`.
    pub is_anchored: bool,
    /// It ends with a `/`.
    pub only_directories: bool,
    is_wild: bool,
}

/// Why bytes are not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing is in it.
    Empty,
    /// It has more than [`FILTER_PATTERN_BYTES_MAX`] bytes.
    TooLong,
    /// A class has no end.
    OpenClass,
    /// A class names one that there is not.
    UnknownClass,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty: leave it away"),
            Self::TooLong => {
                write!(f, "it is longer than {FILTER_PATTERN_BYTES_MAX} bytes: name a directory")
            }
            Self::OpenClass => write!(f, "its `[` has no `]`: write `\\[` for the byte itself"),
            Self::UnknownClass => {
                write!(f, "it has an unknown class: there are")?;
                NAMED.iter().try_for_each(|(name, _)| write!(f, " [:{name}:]"))
            }
        }
    }
}

impl core::error::Error for PatternError {}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternToken {
    /// This byte.
    Byte(u8),
    /// Any but `/`.
    One,
    /// One of these.
    Class(ByteClass),
    /// Any number of bytes but `/`.
    Within,
    /// Any number of bytes.
    Across,
}

/// Bytes, a bit each; `/` is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteClass([u64; 4]);

impl<'a> PatternText<'a> {
    /// Understands a pattern.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(text: &'a [u8]) -> Result<Self, PatternError> {
        if text.len() > FILTER_PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let only_directories = text.len() > 1 && text.ends_with(b"/");
        let text = if only_directories { &text[..text.len() - 1] } else { text };
        let is_anchored = text.starts_with(b"/");
        let rest = if is_anchored { &text[1..] } else { text };
        if rest.is_empty() {
            return Err(PatternError::Empty);
        }
        let is_wild = rest.iter().any(|byte| b"*?[".contains(byte));
        let pattern = Self { text, rest, is_anchored, only_directories, is_wild };
        pattern.read_tokens().try_for_each(|token| token.map(|_| ()))?;
        Ok(pattern)
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = PatternToken> {
        self.read_tokens().map_while(Result::ok)
    }

    fn read_tokens(&self) -> impl Iterator<Item = Result<PatternToken, PatternError>> {
        let (mut text, is_wild) = (self.rest, self.is_wild);
        core::iter::from_fn(move || {
            let (&byte, rest) = text.split_first()?;
            let token = if is_wild { token(byte, rest) } else { Ok((PatternToken::Byte(byte), rest)) };
            text = token.map_or(&[][..], |(_, rest)| rest);
            Some(token.map(|(token, _)| token))
        })
    }
}

/// The token that begins with this byte, and what follows it.
fn token(byte: u8, rest: &[u8]) -> Result<(PatternToken, &[u8]), PatternError> {
    Ok(match byte {
        b'*' => {
            let more = rest.iter().take_while(|&&byte| byte == b'*').count();
            let token = if more == 0 { PatternToken::Within } else { PatternToken::Across };
            (token, &rest[more..])
        }
        b'?' => (PatternToken::One, rest),
        b'[' => {
            let (class, rest) = ByteClass::parse(rest)?;
            (PatternToken::Class(class), rest)
        }
        b'\\' => match rest.split_first() {
            Some((&byte, rest)) => (PatternToken::Byte(byte), rest),
            None => (PatternToken::Byte(byte), rest),
        },
        byte => (PatternToken::Byte(byte), rest),
    })
}

impl ByteClass {
    /// Whether the byte is in it.
    #[must_use]
    pub const fn has(self, byte: u8) -> bool {
        self.0[(byte / 64) as usize] >> (byte % 64) & 1 == 1
    }

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
}

fn literal(text: &[u8]) -> Result<(u8, &[u8]), PatternError> {
    match text {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Ok((*byte, rest)),
        [] => Err(PatternError::OpenClass),
    }
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
            assert_eq!(PatternText::parse(text), Err(error), "{}", text.escape_ascii());
        }
    }
}
