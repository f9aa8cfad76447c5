//! The layer that `dwcp config set` writes: one line `key: value` for each key, above the files and below the
//! environment. Control owns the file; this is its form, and nothing here touches a disk.
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::keys::KEYS;
use crate::load::{Finding, Findings};

/// Keys with the values that an operator set, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides(BTreeMap<String, String>);

/// What is to become of some keys: `None` takes the override away.
pub type Changes = BTreeMap<String, Option<String>>;

impl Overrides {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it; values are judged by the loader.
    pub fn parse(text: &str, file: &str) -> Result<Self, Findings> {
        let finding = |at, key: &str, message: String| {
            Findings(vec![Finding { file: file.to_owned(), at, key: key.to_owned(), message }])
        };
        let root = crate::yaml::parse(text)
            .map_err(|complaint| finding(Some(complaint.at), "", complaint.message))?;
        let mut values = BTreeMap::new();
        let entries = match root.value {
            crate::yaml::Content::Map(entries) => entries,
            crate::yaml::Content::Nothing => Vec::new(),
            crate::yaml::Content::Scalar(_) | crate::yaml::Content::List(_) => {
                return Err(finding(Some(root.at), "", "expected `key: value` lines".into()));
            }
        };
        for entry in entries {
            let crate::yaml::Content::Scalar(value) = entry.value.value else {
                return Err(finding(Some(entry.at), &entry.key, "expected one value".into()));
            };
            values.insert(entry.key, value);
        }
        Ok(Self(values))
    }

    /// With some keys changed. Names are made canonical; that a key exists is judged by the loader.
    #[must_use]
    pub fn with(&self, changes: &Changes) -> Self {
        let mut values = self.0.clone();
        for (key, value) in changes {
            let name = crate::aliases::canonical(key).unwrap_or_else(|| key.clone());
            match value {
                Some(value) => drop(values.insert(name, value.clone())),
                None => drop(values.remove(&name)),
            }
        }
        Self(values)
    }

    /// The file's text: read back, it is equal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        for (key, value) in &self.0 {
            // A JSON string is a double-quoted scalar of YAML 1.2.
            let (key, value) = (quoted(key), quoted(value));
            writeln!(text, "{key}: {value}").expect("writing to a String cannot fail");
        }
        text
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn quoted(text: &str) -> String {
    if KEYS.iter().any(|key| key.name == text) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

const HEAD: &str = "\
# Written by `dwcp config set` and `dwcp config unset`: use those rather than an editor.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let values = ["7", "a: b # c", "\"quoted\" and \\ back", "", "ä\u{1f600}", "null", "- x", "1s,2s"];
        let changes: Changes = KEYS
            .iter()
            .zip(values)
            .map(|(key, value)| (key.name.to_owned(), Some(value.to_owned())))
            .collect();
        let overrides = Overrides::default().with(&changes);
        assert_eq!(Overrides::parse(&overrides.text(), "o.yaml"), Ok(overrides.clone()));
        let gone: Changes = changes.into_keys().map(|key| (key, None)).collect();
        assert!(overrides.with(&gone).is_empty());
        assert_eq!(Overrides::parse(HEAD, "o.yaml"), Ok(Overrides::default()));
    }

    #[test]
    fn aliases_are_stored_under_their_own_names() {
        let overrides = Overrides::default().with(&Changes::from([("hde.level".into(), Some("5".into()))]));
        assert_eq!(overrides.iter().collect::<Vec<_>>(), [("compression.level", "5")]);
    }

    #[test]
    fn a_damaged_file_is_named() {
        for (text, expected) in [
            ("a: [1]\n", "o.yaml:1:1 a: expected one value"),
            ("- a\n", "o.yaml:1:1: expected `key: value` lines"),
        ] {
            assert_eq!(Overrides::parse(text, "o.yaml").unwrap_err().to_string(), expected);
        }
    }
}
