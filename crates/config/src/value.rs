//! How a node of YAML becomes a value of a type, and back. Used by the key table only; ranges and cross-field rules
//! are checked elsewhere.
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Cores, ExportPeers, Identity, Level, Workers};
use crate::nearest::nearest;
use crate::units::{ByteSize, Rate, parse_duration, parse_rate, parse_size, show_duration};
use crate::yaml::{Complaint, Content, Node};

/// A type that a key can have.
pub(crate) trait Value: Sized {
    /// The type's name in the reference.
    fn kind() -> String;
    /// Reads one scalar.
    fn parse(text: &str) -> Result<Self, String>;
    /// The canonical text.
    fn show(&self) -> String;

    /// Reads a node; only lists need more than [`Value::parse`].
    fn read(node: &Node) -> Result<Self, Complaint> {
        let text = match &node.value {
            Content::Scalar(text) => text,
            Content::Nothing => {
                return Err(Complaint::new(node.at, format!("has no value, expected {}", Self::kind())));
            }
            Content::List(_) | Content::Map(_) => {
                return Err(Complaint::new(
                    node.at,
                    format!("expected {}, not a list or a section", Self::kind()),
                ));
            }
        };
        Self::parse(text)
            .map_err(|message| Complaint::new(node.at, format!("{message}, found `{}`", shorten(text))))
    }

    /// The value in the unit of its range, where it has one.
    fn magnitude(&self) -> Option<u64> {
        None
    }

    /// The value for the API.
    fn json(&self) -> serde_json::Value {
        self.show().into()
    }
}

/// At most 60 characters of what somebody wrote, for a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Declares enumerations that are written as words.
macro_rules! choices {
    ($($(#[$meta:meta])* pub enum $name:ident { $($variant:ident = $word:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant,)*
        }

        impl $name {
            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::value::Value for $name {
            fn kind() -> String {
                [$($word),*].join(" \\| ")
            }
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    other => Err($crate::value::not_a_choice(other, &[$($word),*])),
                }
            }
            fn show(&self) -> String {
                self.as_str().into()
            }
        }
    )*};
}
pub(crate) use choices;

pub(crate) fn not_a_choice(text: &str, words: &[&str]) -> String {
    let expected = format!("expected one of {}", words.join(", "));
    match nearest(text, words.iter().copied()) {
        Some(word) => format!("{expected} (did you mean `{word}`?)"),
        None => expected,
    }
}

impl Value for bool {
    fn kind() -> String {
        "true or false".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected true or false".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn kind() -> String {
                "number".into()
            }
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected a whole number up to {}", <$type>::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn magnitude(&self) -> Option<u64> {
                Some(u64::from(*self))
            }
            fn json(&self) -> serde_json::Value {
                (*self).into()
            }
        }
    )*};
}
whole_number!(u16, u32);

impl Value for f64 {
    fn kind() -> String {
        "number".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "expected a number".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn magnitude(&self) -> Option<u64> {
        // Ranges of fractions are checked on whole numbers: below zero and below one both round to zero.
        Some(if *self >= 1.0 { self.min(1e18) as u64 } else { 0 })
    }
    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
}

impl Value for String {
    fn kind() -> String {
        "text".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let fits = text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(format!("expected at most {TEXT_MAX} printable bytes")) }
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn kind() -> String {
        "path".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let fits = text.len() <= TEXT_MAX && !text.contains('\0');
        if fits { Ok(text.into()) } else { Err(format!("expected a path of at most {TEXT_MAX} bytes")) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Duration {
    fn kind() -> String {
        "duration".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
    fn show(&self) -> String {
        show_duration(*self)
    }
    fn magnitude(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}

impl Value for Vec<Duration> {
    fn kind() -> String {
        "list of durations".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',').take(LIST_MAX).map(|item| parse_duration(item.trim())).collect()
    }
    fn show(&self) -> String {
        self.iter().map(|item| show_duration(*item)).collect::<Vec<_>>().join(",")
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        read_joined(node)
    }
}

impl Value for ByteSize {
    fn kind() -> String {
        "size".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse_size(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }
    fn json(&self) -> serde_json::Value {
        self.0.into()
    }
}

impl Value for Rate {
    fn kind() -> String {
        "rate".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse_rate(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn magnitude(&self) -> Option<u64> {
        Some(self.bits_per_s)
    }
    fn json(&self) -> serde_json::Value {
        self.bits_per_s.into()
    }
}

impl Value for Level {
    fn kind() -> String {
        "1–22 \\| fast \\| balanced \\| high \\| max".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let level = match text {
            "fast" => 1,
            "balanced" => 3,
            "high" => 9,
            "max" => 19,
            number => number
                .parse()
                .ok()
                .filter(|level| (1..=22).contains(level))
                .ok_or_else(|| "expected a level from 1 to 22 or fast, balanced, high, max".to_owned())?,
        };
        Ok(Self(level))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
    fn json(&self) -> serde_json::Value {
        self.0.into()
    }
}

impl Value for SocketAddr {
    fn kind() -> String {
        "address:port".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
            return Ok(Self::from((Ipv4Addr::UNSPECIFIED, port)));
        }
        text.parse()
            .map_err(|_| "expected an address and a port such as 0.0.0.0:8080, [::]:8080 or :8080".into())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Workers {
    fn kind() -> String {
        "auto \\| number".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=WORKERS_MAX).contains(count));
        count.map(Self::Count).ok_or_else(|| format!("expected auto or a number from 1 to {WORKERS_MAX}"))
    }
    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Count(count) => count.to_string(),
        }
    }
}

impl Value for Cores {
    fn kind() -> String {
        "auto \\| list of cores".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = || "expected auto or cores such as [2, 3] or 2-5,8".to_owned();
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let first: u16 = first.parse().map_err(|_| wrong())?;
            let last: u16 = last.parse().map_err(|_| wrong())?;
            if last < first || usize::from(last - first) >= LIST_MAX - cores.len().min(LIST_MAX) {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        let count = cores.len();
        cores.sort_unstable();
        cores.dedup();
        if cores.len() == count { Ok(Self::List(cores)) } else { Err("names a core twice".into()) }
    }
    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::List(cores) => cores.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
        }
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        read_joined(node)
    }
}

impl Value for Identity {
    fn kind() -> String {
        "sha256:HEX".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || "expected sha256: and 64 hexadecimal digits (`dwcp status` on the peer shows them)".to_owned();
        let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Value::parse(text)
    }
}

impl Value for ExportPeers {
    fn kind() -> String {
        "all \\| list of peers".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        Ok(Self::Only(text.split(',').map(|name| name.trim().to_owned()).collect()))
    }
    fn show(&self) -> String {
        match self {
            Self::All => "all".into(),
            Self::Only(names) => names.join(","),
        }
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        if matches!(&node.value, Content::List(items) if items.is_empty()) {
            return Ok(Self::Only(Vec::new()));
        }
        read_joined(node)
    }
}

/// Reads a list of scalars as if its items stood in one scalar with commas.
pub(crate) fn read_joined<V: Value>(node: &Node) -> Result<V, Complaint> {
    let mut words = Vec::new();
    match &node.value {
        Content::Scalar(text) => words.push(text.as_str()),
        Content::List(items) if !items.is_empty() && items.len() <= LIST_MAX => {
            for item in items {
                let Content::Scalar(text) = &item.value else {
                    return Err(Complaint::new(item.at, format!("expected {}", V::kind())));
                };
                words.push(text);
            }
        }
        _ => {
            return Err(Complaint::new(
                node.at,
                format!("expected {} with 1 to {LIST_MAX} items", V::kind()),
            ));
        }
    }
    let text = words.join(",");
    V::parse(&text)
        .map_err(|message| Complaint::new(node.at, format!("{message}, found `{}`", shorten(&text))))
}

const TEXT_MAX: usize = 1024;
pub(crate) const LIST_MAX: usize = 1024;
const WORKERS_MAX: u16 = 256;
