//! Manifests that no honest sender would write, and those of trees with a million names.
use crate::support::{header, inline, link, names, object, pack, receiver_with};
use dwcp_abi::wire::{EntryKind, TreeOptions, check_name};
use dwcp_dataplane::tree::{Opening, Options};
use std::fs;

/// A million names of a thousand directories, as a receiver meets them: what it remembers of them is bounded by the bytes
/// of their hashes and by what it keeps of directories.
#[test]
fn a_million_entries_cost_a_receiver_little() {
    let space = tempfile::tempdir().unwrap();
    let tree = TreeOptions::DRY_RUN.with(TreeOptions::DELETE, true);
    let mut receiver = receiver_with(space.path().join("to"), Options::of(tree)).unwrap();
    let before = dwcp_sys::process::resident_bytes().unwrap();
    for directory in 0..1000 {
        let parent = format!("directory-{directory}");
        let names: Vec<Vec<u8>> = (0..1000).map(|name| format!("{parent}/{name}").into_bytes()).collect();
        let mut entries = vec![(header(EntryKind::Directory), parent.as_bytes(), &b""[..])];
        entries.extend(names.iter().map(|name| object(1, name, 1 << 30)));
        entries.push((header(EntryKind::DirectoryFinal), parent.as_bytes(), b""));
        assert_eq!(receiver.unpack(&pack(&entries)).unwrap().failures.len(), 0);
    }
    let grown = dwcp_sys::process::resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < 40 << 20, "a million names took {grown} bytes");
    let changes = receiver.finish().unwrap().changes;
    assert_eq!((changes.created, changes.deleted, changes.bytes), (1_001_000, 0, 1_000_000 << 30));
    assert!(changes.to_bytes().len() < 10 << 10);
}

/// The last entry of a name counts, of whatever kind; a directory is not replaced by a file, nor a file by a directory.
#[test]
fn one_name_may_be_said_twice() {
    let space = tempfile::tempdir().unwrap();
    let to = space.path().join("to");
    let mut receiver = receiver_with(&to, Options::default()).unwrap();
    let entries = [inline(b"a", b"first"), link(b"a", b"target"), inline(b"a", b"last"), inline(b"b", b"x")];
    assert!(receiver.unpack(&pack(&entries)).unwrap().failures.is_empty());
    let twice = receiver.unpack(&pack(&[object(1, b"c", 1 << 20), object(2, b"c", 1 << 20)])).unwrap();
    assert!(twice.opened.iter().all(|opened| matches!(opened.opening, Opening::Write(_))));
    receiver.commit(1).unwrap();
    receiver.commit(2).unwrap();
    let other = receiver.unpack(&pack(&[object(2, b"d", 1 << 20)])).unwrap();
    assert!(matches!(other.opened[..], [ref opened] if matches!(opened.opening, Opening::Committed)));
    let directory = |name: &'static [u8]| (header(EntryKind::Directory), name, &b""[..]);
    // A directory that would be its own parent, a file as one, and a name in two spellings.
    let clashes =
        [directory(b"b"), directory(b"e"), inline(b"e", b"x"), inline(b"b/f", b"x"), inline(b"B", b"y")];
    let failures = receiver.unpack(&pack(&clashes)).unwrap().failures;
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.text.contains("in the way")), "{failures:?}");
    receiver.finish().unwrap();
    assert_eq!(names(&to), ["B", "a", "b", "c", "e"]);
    assert_eq!(fs::read(to.join("a")).unwrap(), b"last");
}

#[test]
fn names_that_are_none_are_refused() {
    for name in [&b"a/../b"[..], b"..", b"/a", b"a//b", b"a/", b".", b"a\0b", b""] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}
