//! A file path in JSON. Paths are bytes: UTF-8 travels as a string, anything else as `{"base64": "…"}`.
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::base64;

/// Longest path: `PATH_MAX` of linux/limits.h, less its NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// A path: 1 to [`PATH_BYTES_MAX`] bytes without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct PathText(Vec<u8>);

/// Why bytes are not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathTextError {
    /// No bytes at all.
    #[error("a path must not be empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("a path of {0} bytes is longer than {PATH_BYTES_MAX}")]
    TooLong(usize),
    /// A NUL byte inside.
    #[error("a path must not contain a NUL byte")]
    Nul,
    /// The `base64` member is not base64 (RFC 4648 section 4, padded).
    #[error("the path's base64 is not valid")]
    Base64,
}

impl PathText {
    /// Checks and wraps bytes.
    ///
    /// # Errors
    /// [`PathTextError`] for empty, too long, or with NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathTextError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathTextError::Empty);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathTextError::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(PathTextError::Nul);
        }
        Ok(Self(bytes))
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the file system.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

/// For people: UTF-8 as it is, control characters and other bytes escaped, so that no name can drive a terminal.
impl fmt::Display for PathText {
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

impl fmt::Debug for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl PartialSchema for PathText {
    fn schema() -> RefOr<Schema> {
        Form::schema()
    }
}

impl ToSchema for PathText {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Form::schemas(schemas);
    }
}

/// A path: a string where it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(FormBytes),
}

/// The bytes of a path that is not UTF-8.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FormBytes {
    /// RFC 4648 section 4, padded.
    base64: String,
}

impl TryFrom<Form> for PathText {
    type Error = PathTextError;

    fn try_from(form: Form) -> Result<Self, PathTextError> {
        match form {
            Form::Text(text) => Self::new(text),
            Form::Bytes(bytes) => Self::new(base64::decode(&bytes.base64).ok_or(PathTextError::Base64)?),
        }
    }
}

impl From<PathText> for Form {
    fn from(path: PathText) -> Self {
        match String::from_utf8(path.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes(FormBytes { base64: base64::encode(error.as_bytes()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_survive_json() {
        for (bytes, json) in [
            (&b"/srv/data"[..], "\"/srv/data\""),
            ("/srv/дані".as_bytes(), "\"/srv/дані\""),
            (b"/srv/\xff", "{\"base64\":\"L3Nydi//\"}"),
        ] {
            let path = PathText::new(bytes).unwrap();
            assert_eq!(serde_json::to_string(&path).unwrap(), json);
            assert_eq!(serde_json::from_str::<PathText>(json).unwrap(), path);
        }
    }

    #[test]
    fn impossible_paths_are_refused() {
        assert_eq!(PathText::new(""), Err(PathTextError::Empty));
        assert_eq!(PathText::new("a\0b"), Err(PathTextError::Nul));
        assert_eq!(PathText::new(vec![b'a'; 4096]), Err(PathTextError::TooLong(4096)));
        for json in ["\"\"", "\"a\\u0000b\"", "{\"base64\":\"L3Ny=\"}", "{\"base64\":\"L3Ny\",\"x\":1}", "7"]
        {
            assert!(serde_json::from_str::<PathText>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn display_cannot_drive_a_terminal() {
        let path = PathText::new(&b"a\x1b[2Jb\xffc\n"[..]).unwrap();
        assert_eq!(path.to_string(), "a\\u{1b}[2Jb\\xffc\\n");
    }
}
