//! Names of files that are not complete yet, and names for people to read.
use std::fmt;

/// The part of a temporary name that belongs to one job.
#[derive(Debug, Clone)]
pub(super) struct TemporaryNames {
    /// `.dwcp.<tag>.`
    prefix: String,
    /// Counts the inline files of this receiver.
    next: u64,
}

impl TemporaryNames {
    /// Names of the job with this tag.
    pub(super) fn new(tag: [u8; 8]) -> Self {
        Self { prefix: format!("{PREFIX}{:016x}.", u64::from_be_bytes(tag)), next: 0 }
    }

    /// Whether it is the name of an object of this job that another attempt can find.
    pub(super) fn is_object(&self, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.prefix.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&b'k') && rest.ends_with(SUFFIX.as_bytes()))
    }

    /// A number that no file of this receiver has had.
    pub(super) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Name of the inline file or link with this number, in `space`.
    pub(super) fn inline<'a>(&self, number: u64, space: &'a mut NameSpace) -> &'a [u8] {
        space.put(&self.prefix, "", number)
    }

    /// Name of the object with this key, the same in every attempt of the job, in `space`.
    pub(super) fn keyed<'a>(&self, key: u128, space: &'a mut NameSpace) -> &'a [u8] {
        let mut digits = [0; 32];
        for (index, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(key >> (124 - 4 * index) & 15) as usize];
        }
        space.join(&self.prefix, "k", &digits)
    }

    /// Name of the object with this number, in `space`.
    pub(super) fn object<'a>(&self, number: u64, space: &'a mut NameSpace) -> &'a [u8] {
        space.put(&self.prefix, "o", number)
    }
}

/// Room for one temporary name, so that making one allocates nothing.
#[derive(Debug)]
pub(super) struct NameSpace {
    bytes: [u8; 64],
}

impl NameSpace {
    /// Empty room.
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 64] }
    }

    fn put(&mut self, prefix: &str, letter: &str, mut number: u64) -> &[u8] {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.join(prefix, letter, &digits[first..])
    }

    /// 6 + 16 + 1 of prefix, a letter, at most 32 digits and the suffix: 61 bytes of 64.
    fn join(&mut self, prefix: &str, letter: &str, digits: &[u8]) -> &[u8] {
        let mut at = 0;
        for part in [prefix.as_bytes(), letter.as_bytes(), digits, SUFFIX.as_bytes()] {
            self.bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        &self.bytes[..at]
    }
}

/// Whether a component is the name of an incomplete file of any job: peers may not use it, scanners pass it by.
pub(super) fn is_temporary(component: &[u8]) -> bool {
    component.starts_with(PREFIX.as_bytes()) && component.ends_with(SUFFIX.as_bytes())
}

/// Whether any component of a path is the name of an incomplete file.
pub(super) fn has_temporary(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(is_temporary)
}

/// Splits a path into the directory that holds it (empty for the root) and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Shows bytes of any kind as text, with what is not printable escaped.
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

const PREFIX: &str = ".dwcp.";
const SUFFIX: &str = ".part";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_carry_job_and_number() {
        let names = TemporaryNames::new([0, 1, 2, 3, 4, 5, 6, 0xff]);
        let mut space = NameSpace::new();
        assert_eq!(names.inline(0, &mut space), b".dwcp.00010203040506ff.0.part");
        assert_eq!(names.object(120, &mut space), b".dwcp.00010203040506ff.o120.part");
        assert_eq!(
            names.keyed(0x0123 << 112 | 0xef, &mut space),
            b".dwcp.00010203040506ff.k012300000000000000000000000000ef.part"
        );
        let longest = names.keyed(u128::MAX, &mut space);
        assert!(is_temporary(longest) && has_temporary(b"a/.dwcp.x.part/b") && !has_temporary(b"a/.dwcp"));
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(Shown(b"gr\xc3\xbcn\n\xff\x1b").to_string(), "gr\u{fc}n\\n\\xff\\u{1b}");
    }
}
