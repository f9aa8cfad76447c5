//! Rewrites a file of another dialect, or of an older version, with canonical names. What this version has no key for
//! is left out and named, so that somebody decides; nothing is written anywhere.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::keys::{EXPORT_KEYS, KEYS, Key, PEER_KEYS};
use crate::load::{Finding, Findings, load_lenient};
use crate::model::Config;

/// A rewritten file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The file's text: the keys that were given, under their canonical names.
    pub text: String,
    /// What has another name now.
    pub renamed: Vec<Finding>,
    /// What was left out, and why.
    pub dropped: Vec<Finding>,
}

/// Rewrites `path` and the files that belong to it as one.
///
/// # Errors
/// What cannot be read at all, and rules between keys that the file breaks.
pub fn migrate(path: &Path) -> Result<Migrated, Findings> {
    let (loaded, dropped) = load_lenient(path)?;
    let given = KEYS.iter().filter(|key| loaded.origins.contains_key(key.name));
    let mut sections = Section::default();
    for key in given {
        sections.insert(&mut key.name.split('.'), scalar(&key.text(&loaded.config)));
    }
    let mut text = String::new();
    sections.render(0, &mut text);
    lists(&loaded.config, &mut text);
    Ok(Migrated { text, renamed: loaded.warnings, dropped })
}

/// Keys below their sections.
#[derive(Debug, Default)]
struct Section {
    values: BTreeMap<String, String>,
    sections: BTreeMap<String, Section>,
}

impl Section {
    fn insert<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>, value: String) {
        let mut section = self;
        let mut last = words.next().unwrap_or_default();
        for word in words {
            section = section.sections.entry(last.to_owned()).or_default();
            last = word;
        }
        section.values.insert(last.to_owned(), value);
    }

    fn render(&self, depth: usize, text: &mut String) {
        let indent = "  ".repeat(depth);
        for (name, value) in &self.values {
            writeln!(text, "{indent}{name}: {value}").expect("writing to a String cannot fail");
        }
        for (name, section) in &self.sections {
            writeln!(text, "{indent}{name}:").expect("writing to a String cannot fail");
            section.render(depth + 1, text);
        }
    }
}

fn lists(config: &Config, text: &mut String) {
    items("peers", PEER_KEYS, &config.peers, text);
    items("exports", EXPORT_KEYS, &config.exports, text);
}

fn items<T>(name: &str, keys: &[Key<T>], items: &[T], text: &mut String) {
    if items.is_empty() {
        return;
    }
    writeln!(text, "{name}:").expect("writing to a String cannot fail");
    for item in items {
        let values = keys.iter().map(|key| (key.name, key.text(item))).filter(|(_, value)| !value.is_empty());
        for (number, (key, value)) in values.enumerate() {
            let dash = if number == 0 { '-' } else { ' ' };
            writeln!(text, "  {dash} {key}: {}", scalar(&value)).expect("writing to a String cannot fail");
        }
    }
}

/// Plain where every reader of YAML takes it for the same thing, else in quotes: a JSON string is one of YAML, too.
fn scalar(text: &str) -> String {
    let is_number = text.parse::<u64>().is_ok() && !text.starts_with('0');
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !["yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if is_number || is_word || text == "0" {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated(text: &str) -> Migrated {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("old.yaml");
        std::fs::write(&file, text).unwrap();
        migrate(&file).unwrap()
    }

    #[test]
    fn other_dialects_become_canonical_and_mean_the_same() {
        let old = "dwcp:\n  enabled: true\n  transport: {streams: 512, pacing_enabled: false, enable_rdma: true}\n  \
            hde: {algorithm: zstd, level: fast}\n  prediction: {enabled: true}\n  tls: {enabled: true, min_version: '1.3'}\n";
        let migrated = migrated(old);
        assert_eq!(
            migrated.text,
            "enabled: true\ncompression:\n  algorithm: zstd\n  level: 1\nsecurity:\n  enable_tls: true\n  tls:\n    \
             min_version: \"1.3\"\ntransport:\n  enable_pacing: false\n  enable_rdma: true\n  max_streams: 512\n"
        );
        let config = crate::parse(&migrated.text, "new").unwrap();
        assert_eq!((config.transport.max_streams, config.compression.level.0), (512, 1));
        let dropped: Vec<&str> = migrated.dropped.iter().map(|finding| finding.key.as_str()).collect();
        assert_eq!(dropped, ["prediction"]);
        assert!(!migrated.renamed.is_empty());
    }

    #[test]
    fn a_canonical_file_stays_what_it_is() {
        let identity = format!("sha256:{}", "ab".repeat(32));
        let text = format!(
            "mode: internet\nnode:\n  name: \"yes\"\npeers:\n  - name: paris\n    address: \"paris:9000\"\n    identity: \
             \"{identity}\"\nexports:\n  - name: in\n    path: /srv/in\n    access: write\n    peers: paris\n    privileged: false\n"
        );
        let first = migrated(&text);
        assert_eq!(first.text, text);
        assert_eq!((first.dropped.len(), first.renamed.len()), (0, 0));
        assert_eq!(migrated(&first.text).text, first.text);
    }

    #[test]
    fn values_that_mean_nothing_here_are_named() {
        let migrated = migrated("consensus: {algorithm: paxos}\nmode: hybrid\n");
        assert_eq!(migrated.text, "mode: hybrid\n");
        assert_eq!(migrated.dropped[0].key, "consensus.algorithm");
    }

    #[test]
    fn a_file_that_is_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(migrate(&folder.path().join("absent.yaml")).is_err());
        std::fs::write(folder.path().join("list.yaml"), "- a\n").unwrap();
        assert!(migrate(&folder.path().join("list.yaml")).is_err());
    }
}
