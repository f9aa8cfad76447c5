//! What rules leave out of a scan, and what they do not.
use crate::support::{drain, entries, source};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{EntryKind, FILTERS_MAX, FilterAction, FilterRule};
use dwcp_dataplane::tree::{Filters, Limits, Scanner};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Rules in the words of rsync: `- PATTERN` or `+ PATTERN`.
pub(crate) fn list(rules: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let mut length = 0;
    for rule in rules {
        let action = if rule.starts_with('-') { FilterAction::Exclude } else { FilterAction::Include };
        let rule = FilterRule { action, pattern: &rule.as_bytes()[2..] };
        length += rule.encode(&mut bytes[length..]).unwrap();
    }
    bytes.truncate(length);
    bytes
}

/// Names that are sent, sorted; a closing entry for each directory is demanded.
fn sent(path: impl AsRef<Path>, rules: &[&str]) -> Vec<String> {
    let filters = Filters::parse(&list(rules)).unwrap();
    let (packs, finals) = drain(Scanner::new(source(path), filters, Limits::default()));
    assert!(packs.iter().all(|(_, filled)| filled.failures.is_empty()));
    let entries: Vec<_> = packs.iter().flat_map(|(pack, _)| entries(pack)).collect();
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let directories = entries.iter().filter(|entry| entry.header.kind == EntryKind::Directory);
    let directories = directories.filter(|entry| !entry.name.is_empty()).count();
    assert_eq!(finals.iter().map(|pack| self::entries(pack).len()).sum::<usize>(), directories);
    let mut names: Vec<_> = entries.iter().map(|entry| name(entry.name)).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names
}

fn source_tree(root: &Path) {
    for directory in ["src/deep", "target/debug", "docs"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["a.o", "src/main.rs", "src/main.o", "src/deep/keep.o", "target/debug/x", "docs/target"] {
        fs::write(root.join(file), file).unwrap();
    }
    symlink("src", root.join("link")).unwrap();
}

#[test]
fn the_first_rule_that_matches_decides() {
    let space = tempfile::tempdir().unwrap();
    let root = space.path().join("tree");
    source_tree(&root);
    let contents = root.join("");
    assert_eq!(
        sent(&contents, &["- target/", "+ keep.o", "- *.o"]),
        ["docs", "docs/target", "link", "src", "src/deep", "src/deep/keep.o", "src/main.rs"]
    );
    assert_eq!(
        sent(&contents, &["- *.o", "+ keep.o", "- /link/", "- target"]),
        ["docs", "link", "src", "src/deep", "src/main.rs"]
    );
    assert_eq!(sent(&contents, &["+ */", "+ *.rs", "- *"]).last().unwrap(), "target/debug");
    assert_eq!(sent(&contents, &["+ /src/", "+ /src/*.rs", "- *"]), ["src", "src/main.rs"]);
    assert_eq!(sent(&contents, &["- *"]), [""; 0]);
}

/// As in rsync, the source's own name belongs to the path, unless its contents are sent.
#[test]
fn a_slash_at_the_start_means_the_root_of_what_is_sent() {
    let space = tempfile::tempdir().unwrap();
    let root = space.path().join("tree");
    source_tree(&root);
    assert_eq!(sent(root.join(""), &["- /src", "- /target", "- /docs"]), ["a.o", "link"]);
    assert_eq!(
        sent(&root, &["- /tree/src", "- /tree/target", "- /docs"]),
        ["tree", "tree/a.o", "tree/docs", "tree/docs/target", "tree/link"]
    );
    assert_eq!(sent(&root, &["- tree/"]), [""; 0]);
}

/// Nothing of it can fail the job, however it is protected.
#[test]
fn what_is_left_out_is_not_opened() {
    let space = tempfile::tempdir().unwrap();
    let closed = space.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    nix::unistd::mkfifo(&space.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(sent(space.path().join(""), &["- closed/", "- fi*"]), [""; 0]);
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn rules_that_cannot_be_understood_are_named() {
    let error = Filters::parse(&list(&["- good", "+ b[ad"])).unwrap_err();
    assert!(error.contains("'b[ad'") && error.contains("`\\[`"), "{error}");
    let many = vec!["- x"; FILTERS_MAX + 1];
    let error = Filters::parse(&list(&many)).unwrap_err();
    assert!(error.contains("256"), "{error}");
    assert!(Filters::parse(b"\x02\xff\xffx").is_err());
    assert!(Filters::parse(b"\x03\x01\x00x").is_err());
}
