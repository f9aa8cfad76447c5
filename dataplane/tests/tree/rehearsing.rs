//! A rehearsal says what would happen, and nothing happens.
use crate::filtering::list;
use crate::support::{names, state, treated};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{Change, JobChanges, TreeOptions, changed_names};
use dwcp_dataplane::tree::Changes;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

const DRY: TreeOptions = TreeOptions::DRY_RUN;

fn listed(changes: &Changes) -> Vec<(Change, String)> {
    let bytes = changes.to_bytes();
    let names = JobChanges::decode(&bytes).unwrap().names;
    let mut names: Vec<_> = changed_names(names)
        .map(|named| named.unwrap())
        .map(|named| (named.change, String::from_utf8(named.name.to_vec()).unwrap()))
        .collect();
    names.sort();
    names
}

fn trees(from: &Path, to: &Path) {
    for root in [from, to] {
        fs::create_dir_all(root.join("sub")).unwrap();
        for (name, length) in [("same", 5), ("sub/large", 1 << 20)] {
            fs::write(root.join(name), vec![7; length]).unwrap();
            File::open(root.join(name)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        symlink("same", root.join("link")).unwrap();
    }
    fs::write(from.join("sub/new"), "12345").unwrap();
    fs::create_dir(from.join("empty")).unwrap();
    fs::write(from.join("other"), vec![1; 300_000]).unwrap();
    fs::write(to.join("other"), "older").unwrap();
    fs::write(to.join("sub/old"), "gone").unwrap();
    fs::write(to.join("sub/old.o"), "spared").unwrap();
}

#[test]
fn what_would_be_sent_replaced_and_deleted_is_said() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    trees(&from, &to);
    let before = state(&to);
    let tree = DRY.with(TreeOptions::DELETE, true).with(TreeOptions::SKIP_UNCHANGED, true);
    let report = treated(tree, &list(&["- *.o"]), from.join(""), &to);
    assert!(report.failures.is_empty() && report.totals.failures.is_empty(), "{:?}", report.totals);
    let changes = &report.totals.changes;
    let expected = [
        (Change::Created, "empty"),
        (Change::Created, "sub/new"),
        (Change::Replaced, "other"),
        (Change::Deleted, "sub/old"),
    ];
    assert_eq!(listed(changes), expected.map(|(change, name)| (change, name.to_owned())));
    assert_eq!((changes.created, changes.replaced, changes.deleted, changes.bytes), (2, 1, 1, 300_005));
    assert_eq!(state(&to), before);

    // It foretells what happens.
    let report = treated(
        TreeOptions::DELETE.with(TreeOptions::SKIP_UNCHANGED, true),
        &list(&["- *.o"]),
        from.join(""),
        &to,
    );
    assert_eq!(report.totals.changes.deleted, 1);
    assert_eq!(treated(tree, &list(&["- *.o"]), from.join(""), &to).totals.changes, Changes::default());
}

#[test]
fn a_destination_that_is_not_there_is_not_made() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    trees(&from, &space.path().join("unused"));
    for destination in [to.clone(), to.join("deep/below/")] {
        let changes = treated(DRY.with(TreeOptions::DELETE, true), b"", &from, &destination).totals.changes;
        assert_eq!((changes.created, changes.replaced, changes.deleted), (8, 0, 0));
    }
    let changes = treated(DRY, b"", from.join("same"), &to).totals.changes;
    assert_eq!((changes.created, changes.bytes), (1, 5));
    let changes = treated(DRY, b"", from.join("same"), from.join("other")).totals.changes;
    assert_eq!((changes.replaced, changes.bytes), (1, 5));
    assert_eq!(names(space.path()).iter().filter(|name| name.starts_with("to")).count(), 0);
}

#[test]
fn what_is_in_the_way_is_named() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    for root in [&from, &to] {
        fs::create_dir_all(root).unwrap();
    }
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("c"), "file").unwrap();
    fs::write(to.join("a"), "file").unwrap();
    fs::create_dir(to.join("c")).unwrap();
    let report = treated(DRY, b"", from.join(""), &to);
    assert_eq!(report.failures.len(), 3, "{:?}", report.failures);
    assert!(
        report.failures.iter().all(|failure| failure.text.contains("in the way")),
        "{:?}",
        report.failures
    );
}
