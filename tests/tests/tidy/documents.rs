//! Rule: every path that ARCHITECTURE.md names in backticks exists.
use std::collections::BTreeSet;

use crate::{File, holds};

const DOCUMENT: &str = "ARCHITECTURE.md";

fn named_paths_exist(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == DOCUMENT) else {
        return Vec::new();
    };
    let known = known_paths(files);
    let text = document.text().unwrap_or_default();
    let missing =
        named(text).filter(|name| is_path(name, &known) && !known.contains(name.trim_end_matches('/')));
    missing.map(|name| format!("{DOCUMENT}: `{name}` does not exist")).collect()
}

/// Tracked files and all folders above them.
fn known_paths(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files {
        let ends = file.path.match_indices('/').map(|(end, _)| end);
        known.extend(ends.map(|end| &file.path[..end]));
        known.insert(file.path.as_str());
    }
    known
}

/// Everything in single backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// A path of this repository, and not a type, a command, a route or a media type: it begins with one of our top-level
/// names, or ends like a folder or a source file.
fn is_path(name: &str, known: &BTreeSet<&str>) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if !plain || name.starts_with('/') || name.starts_with("..") {
        return false;
    }
    let top = name.split('/').next().unwrap_or_default();
    let ours = name.contains('/') && known.contains(top);
    ours || name.ends_with('/') || [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending))
}

#[test]
fn the_map_names_what_exists() {
    holds(named_paths_exist);
}

#[test]
fn it_can_fail() {
    let complaints = |text: &str| {
        named_paths_exist(&[
            File::new(DOCUMENT, text),
            File::new("cli/src/main.rs", ""),
            File::new("Cargo.toml", ""),
        ])
    };
    for missing in ["cli/src/gone.rs", "cli/gone", "gone.rs", "gone/", "gone.toml"] {
        assert_eq!(complaints(&format!("see `cli/src/main.rs` and `{missing}`")).len(), 1, "{missing}");
    }
    assert!(
        complaints("`cli/`, `cli/src`, `Cargo.toml`, `/metrics`, `application/json`, `a::b`, `dwcp send`")
            .is_empty()
    );
}
