//! Rule: crates depend on each other only along the edges of the map.
use crate::{File, holds};

/// Each crate's folder and whom it may use. `tests` and `benches` see every library and the dataplane's own.
const MAP: &[(&str, &[&str])] = &[
    ("cli", &["api", "config", "hde", "sys"]),
    ("control", &["abi", "api", "config", "consensus", "learn", "policy", "sys"]),
    ("dataplane", &["abi", "engine", "hde", "sys"]),
    ("ebpf", &["abi"]),
    ("xtask", &[]),
    ("tests", ALL),
    ("benches", ALL),
    ("crates/abi", &[]),
    // What a pattern is: command and HTTP interface refuse what the dataplane would not understand.
    ("crates/api", &["abi"]),
    ("crates/config", &[]),
    // Its tests use it with the feature that lets replicas lie.
    ("crates/consensus", &["consensus"]),
    ("crates/engine", &["abi"]),
    ("crates/hde", &["abi"]),
    ("crates/learn", &[]),
    ("crates/policy", &[]),
    ("crates/sys", &["abi"]),
    ("crates/wan", &["sys"]),
];

const ALL: &[&str] = &[
    "abi",
    "api",
    "config",
    "consensus",
    "dataplane",
    "ebpf",
    "engine",
    "hde",
    "learn",
    "policy",
    "sys",
    "wan",
];

fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let Some((_, allowed)) = MAP.iter().find(|(known, _)| *known == folder) else {
            complaints
                .push(format!("{}: this crate is not on the map in tests/tests/tidy/edges.rs", file.path));
            continue;
        };
        for used in dependencies(file.text().unwrap_or_default()) {
            if !allowed.contains(&used.as_str()) {
                complaints.push(format!("{}: must not use dwcp-{used}: the map has no such edge", file.path));
            }
        }
    }
    complaints
}

/// Our own crates that a manifest names, in any table of dependencies, under any alias.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_dependencies = false;
    for line in manifest.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            in_dependencies = table.ends_with("dependencies");
            // `[dependencies.dwcp-abi]` is a table of its own.
            if let Some((before, name)) = table.rsplit_once('.')
                && before.ends_with("dependencies")
            {
                in_dependencies = true;
                found.extend(own(name));
            }
        } else if in_dependencies {
            let key = line.split(['=', '.']).next().unwrap_or_default();
            let renamed =
                line.split_once("package").map(|(_, value)| value.split('"').nth(1).unwrap_or_default());
            found.extend(own(key));
            found.extend(renamed.and_then(own));
        }
    }
    found
}

fn own(name: &str) -> Option<String> {
    name.trim().trim_matches('"').strip_prefix("dwcp-").map(String::from)
}

#[test]
fn crates_depend_along_the_map() {
    holds(check);
}

#[test]
fn it_can_fail() {
    let spellings = [
        "[dependencies]\ndwcp-control.workspace = true\n",
        "[dependencies]\ndwcp-control = { path = \"../control\" }\n",
        "[dev-dependencies]\n\"dwcp-control\" = \"1\"\n",
        "[target.'cfg(unix)'.dependencies]\ndwcp-control.workspace = true\n",
        "[dependencies.dwcp-control]\npath = \"../control\"\n",
        "[dependencies]\nother = { package = \"dwcp-control\", path = \"../control\" }\n",
    ];
    for manifest in spellings {
        let complaints = check(&[File::new("dataplane/Cargo.toml", manifest)]);
        assert_eq!(complaints.len(), 1, "{manifest}");
    }
    assert_eq!(check(&[File::new("crates/new/Cargo.toml", "[package]\n")]).len(), 1);
    let fine =
        "[package]\nname = \"dwcp-dataplane\"\n[dependencies]\ndwcp-abi.workspace = true\n# dwcp-control\n";
    assert!(check(&[File::new("dataplane/Cargo.toml", fine)]).is_empty());
}
