//! What a job deletes that the source does not have, and what it spares.
use crate::filtering::list;
use crate::support::{
    TAG, deliver, header, inline, is_root, names, pack, receiver_with, source, state, treated,
};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{EntryKind, FLAG_LEFT_OUT, JobChanges, TreeOptions, changed_names};
use dwcp_dataplane::tree::{Changes, Filters, Limits, Options, Receiver, Root, Scanner, Source};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const DELETE: TreeOptions = TreeOptions::DELETE;

/// Files with their own names in them.
fn fill(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn listed(changes: &Changes) -> Vec<String> {
    let bytes = changes.to_bytes();
    let names = JobChanges::decode(&bytes).unwrap().names;
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let mut names: Vec<_> = changed_names(names).map(|named| name(named.unwrap().name)).collect();
    names.sort();
    names
}

#[test]
fn what_the_source_does_not_have_goes_in_the_directories_that_were_sent() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a", "sub/b", "sub/deep/c"]);
    fill(&to, &["a", "old", "sub/old", "sub/deep/old", "gone/x/y", "gone/z"]);
    symlink("/", to.join("link")).unwrap();
    symlink("a", to.join("sub/deep/link")).unwrap();
    let report = treated(DELETE, b"", from.join(""), &to);
    assert!(report.failures.is_empty() && report.totals.failures.is_empty(), "{:?}", report.totals);
    assert_eq!(state(&from), state(&to));
    let gone =
        ["gone", "gone/x", "gone/x/y", "gone/z", "link", "old", "sub/deep/link", "sub/deep/old", "sub/old"];
    assert_eq!(
        (report.totals.changes.deleted, listed(&report.totals.changes)),
        (9, gone.map(String::from).to_vec())
    );
    // The next time there is nothing to do.
    assert_eq!(treated(DELETE, b"", from.join(""), &to).totals.changes, Changes::default());
}

/// Beside a directory that is sent by its name, and around a single file, nothing goes.
#[test]
fn nothing_goes_outside_of_what_was_sent() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a", "sub/b"]);
    fill(&to, &["beside", "from/old", "other/x"]);
    assert_eq!(treated(DELETE, b"", &from, &to).totals.changes.deleted, 1);
    assert_eq!(names(&to), ["beside", "from", "from/a", "from/sub", "from/sub/b", "other", "other/x"]);
    assert_eq!(treated(DELETE, b"", from.join("a"), to.join("new")).totals.changes.deleted, 0);
    assert_eq!(treated(DELETE, b"", from.join("a"), to.join("other")).totals.changes.deleted, 0);
    assert!(to.join("beside").exists() && to.join("other/x").exists());
}

#[test]
fn two_sources_may_fill_one_directory() {
    let space = tempfile::tempdir().unwrap();
    let (one, two, to) = (space.path().join("one"), space.path().join("two"), space.path().join("to"));
    fill(&one, &["a", "sub/x"]);
    fill(&two, &["b", "sub/y"]);
    fill(&to, &["old", "sub/old"]);
    let sources: Vec<Source> = [one.join(""), two.join("")].into_iter().flat_map(source).collect();
    let receiver = receiver_with(&to, Options::of(DELETE)).unwrap();
    let report = deliver(Scanner::new(sources, Filters::default(), Limits::default()), receiver);
    assert_eq!(report.totals.changes.deleted, 2);
    assert_eq!(names(&to), ["a", "b", "sub", "sub/x", "sub/y"]);
}

/// As in rsync, and whatever holds it stays, too.
#[test]
fn what_is_left_out_and_what_is_not_complete_stays() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a", "skip.o"]);
    let partial = ".dwcp.0000000000000007.k00.part";
    fill(&to, &["old.o", "gone/deep/keep.o", "gone/deep/x", "cache/x", partial, &format!("half/{partial}")]);
    let report = treated(DELETE, &list(&["- *.o", "- /cache/"]), from.join(""), &to);
    assert!(report.totals.failures.is_empty(), "{:?}", report.totals);
    let left = [
        partial,
        "a",
        "cache",
        "cache/x",
        "gone",
        "gone/deep",
        "gone/deep/keep.o",
        "half",
        &format!("half/{partial}"),
        "old.o",
    ];
    assert_eq!(names(&to), left);
    assert_eq!(report.totals.changes.deleted, 1);
}

/// What could not be read would look like what was removed.
#[test]
fn nothing_is_deleted_where_anything_failed() {
    let space = tempfile::tempdir().unwrap();
    let to = space.path().join("to");
    fill(&to, &["old"]);
    let failed = [(header(EntryKind::Failed), &b"x"[..], &b"it broke"[..])];
    let root = (header(EntryKind::Directory), &b""[..], &b""[..]);
    let mut receiver = receiver_with(&to, Options::of(DELETE)).unwrap();
    receiver.unpack(&pack(&[root, failed[0]])).unwrap();
    let totals = receiver.finish().unwrap();
    assert!(totals.failures[0].text.contains("nothing is deleted"), "{:?}", totals.failures);
    assert_eq!((totals.changes.deleted, names(&to)), (0, vec!["old".to_owned()]));

    // A socket or the like is named, and is no error.
    let left_out = dwcp_abi::wire::EntryHeader { flags: FLAG_LEFT_OUT, ..header(EntryKind::Failed) };
    let mut receiver = receiver_with(&to, Options::of(DELETE)).unwrap();
    receiver.unpack(&pack(&[root, (left_out, b"old", b"a socket")])).unwrap();
    assert_eq!(receiver.finish().unwrap().changes.deleted, 0);
    let mut receiver = receiver_with(&to, Options::of(DELETE)).unwrap();
    receiver.unpack(&pack(&[root, (left_out, b"other", b"a socket")])).unwrap();
    assert_eq!(receiver.finish().unwrap().changes.deleted, 1);

    // Names that found no room, and an object that never came.
    fill(&to, &["old"]);
    let mut receiver = receiver_with(&to, Options { names_max: 1, ..Options::of(DELETE) }).unwrap();
    receiver.unpack(&pack(&[root, inline(b"a", b"1")])).unwrap();
    assert!(receiver.finish().unwrap().failures[0].text.contains("too many names"));
    let mut receiver = receiver_with(&to, Options::of(DELETE)).unwrap();
    receiver.unpack(&pack(&[root, crate::support::object(1, b"large", 1 << 20)])).unwrap();
    assert_eq!(receiver.finish().unwrap().changes.deleted, 0);
    assert_eq!(names(&to), ["a", "old"]);
}

#[test]
fn a_hostile_sender_deletes_nothing_outside_of_the_export() {
    let space = tempfile::tempdir().unwrap();
    let (export, canary) = (space.path().join("export"), space.path().join("canary"));
    fill(&canary, &["bird"]);
    fill(&export, &["in/old"]);
    symlink(&canary, export.join("in/planted")).unwrap();
    symlink(&canary, export.join("planted")).unwrap();
    let directory = std::os::fd::OwnedFd::from(File::open(&export).unwrap());
    let root = Root::Export { directory, destination: b"in".to_vec() };
    let mut receiver = Receiver::open(root, TAG, Options::of(DELETE)).unwrap();
    let directory = |name: &'static [u8]| (header(EntryKind::Directory), name, &b""[..]);
    let last = |name: &'static [u8]| (header(EntryKind::DirectoryFinal), name, &b""[..]);
    // The name of a link as that of a directory: it is not swept, and the link itself was sent.
    receiver.unpack(&pack(&[directory(b""), directory(b"planted"), last(b"planted")])).unwrap();
    let totals = receiver.finish().unwrap();
    assert_eq!(totals.changes.deleted, 0, "its directory could not be made");
    let root = Root::Export { directory: File::open(&export).unwrap().into(), destination: b"in".to_vec() };
    let mut receiver = Receiver::open(root, TAG, Options::of(DELETE)).unwrap();
    receiver.unpack(&pack(&[directory(b"")])).unwrap();
    assert_eq!(receiver.finish().unwrap().changes.deleted, 2);
    assert_eq!(names(&export), ["in", "planted"]);
    assert_eq!(names(&canary), ["bird"]);
}

#[test]
fn what_protects_itself_is_named_and_what_is_only_closed_goes() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a"]);
    fill(&to, &["closed/x"]);
    fs::set_permissions(to.join("closed"), Permissions::from_mode(0o000)).unwrap();
    let report = treated(DELETE, b"", from.join(""), &to);
    assert_eq!((report.totals.failures.len(), names(&to)), (0, vec!["a".to_owned()]), "{}", is_root());
}

/// Where one file answers to two spellings, the names may be those of one entry: they are named and stay.
#[test]
fn names_that_differ_in_case_alone_and_are_one_file_stay() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a"]);
    fill(&to, &["Read.Me", "OTHER"]);
    fs::hard_link(to.join("Read.Me"), to.join("rEAD.mE")).unwrap();
    let report = treated(DELETE, b"", from.join(""), &to);
    assert_eq!(report.totals.failures.len(), 2, "{:?}", report.totals.failures);
    assert!(report.totals.failures[0].text.contains("capital letters"));
    assert_eq!((names(&to).len(), report.totals.changes.deleted), (3, 1));
}

/// A tree as deep as names can be is deleted without running out of stack or descriptors.
#[test]
fn deep_trees_go() {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fill(&from, &["a"]);
    fill(&to, &[&format!("{}x", "d/".repeat(300))]);
    assert_eq!(treated(DELETE, b"", from.join(""), &to).totals.changes.deleted, 301);
    assert_eq!(names(&to), ["a"]);
}
