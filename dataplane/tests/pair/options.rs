//! How jobs treat their trees, between two dataplanes.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::Outcome;
use dwcp_abi::wire::{FilterAction, FilterRule, JobChanges, TreeOptions, changed_names};

use crate::data::{assert_same, files, tree};
use crate::events::End;
use crate::node::{CLEAR, Shape, pair};

fn exclude(pattern: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 3 + pattern.len()];
    FilterRule { action: FilterAction::Exclude, pattern }.encode(&mut bytes).unwrap();
    bytes
}

fn old(root: &Path) {
    fs::create_dir_all(root.join("old/deep")).unwrap();
    for name in ["old/deep/x", "spared.o", "gone"] {
        fs::write(root.join(name), name).unwrap();
    }
}

#[track_caller]
fn figures(end: &End) -> (u64, u64, u64) {
    let changes = JobChanges::decode(&end.changes).unwrap();
    let names = changed_names(changes.names).map(Result::unwrap).count() as u64;
    assert_eq!(names, changes.created + changes.replaced + changes.deleted);
    (changes.created, changes.replaced, changes.deleted)
}

#[test]
fn a_send_rehearses_then_deletes_at_the_peer() {
    let (directory, mut sender, receiver) = pair(Shape { workers: 2, ..CLEAR });
    let from = directory.path().join("source");
    tree(&from, &[0, 5_000, 2_000_000]);
    let into = receiver.export().join("source");
    old(&into);
    sender.filters = exclude(b"*.o");
    sender.tree = TreeOptions::DELETE.with(TreeOptions::DRY_RUN, true);
    sender.send(1, &[&from], "data");
    let end = sender.end_of(1);
    end.assert_done();
    assert_eq!(figures(&end), (3, 0, 4));
    assert_eq!(JobChanges::decode(&end.changes).unwrap().bytes, 2_005_000);
    assert_eq!(files(&into).len(), 3);

    sender.tree = TreeOptions::DELETE;
    sender.send(2, &[&from], "data");
    let end = sender.end_of(2);
    end.assert_done();
    assert_eq!(figures(&end), (0, 0, 4));
    assert!(fs::remove_file(into.join("spared.o")).is_ok());
    assert_same(&from, &into);
}

#[test]
fn a_fetch_compares_contents_and_deletes_here() {
    let (directory, mut fetcher, holder) = pair(CLEAR);
    let source = holder.export().join("source");
    tree(&source, &[0, 5_000, 2_000_000]);
    let into = directory.path().join("into");
    tree(&into.join("source"), &[0, 5_000, 2_000_000]);
    old(&into.join("source"));
    fetcher.tree = TreeOptions::DELETE.with(TreeOptions::CHECKSUM, true);
    fetcher.fetch(1, &["data/source"], &into);
    let end = fetcher.end_of(1);
    end.assert_done();
    assert_eq!(figures(&end), (0, 0, 5));
    assert!(end.counts.bytes_wire < 100_000, "{end:?}");
    assert_same(&source, &into.join("source"));

    // A source that cannot be read: nothing goes.
    fs::write(into.join("source/stays"), "x").unwrap();
    fetcher.tree = TreeOptions::DELETE;
    fetcher.fetch(2, &["data/source", "data/missing"], &into);
    fetcher.end_of(2).assert_says(Outcome::Partial, &["missing", "nothing is deleted"]);
    assert!(into.join("source/stays").exists());
}

/// What the receiver may not do is said; where the export lets peers, it is done.
#[test]
fn an_export_decides_over_owners() {
    let (directory, mut sender, mut receiver) = pair(CLEAR);
    let from = directory.path().join("source");
    tree(&from, &[5_000]);
    fs::hard_link(from.join("0-5000"), from.join("other")).unwrap();
    fs::set_permissions(from.join("other"), fs::Permissions::from_mode(0o4755)).unwrap();
    sender.tree = TreeOptions::OWNER.with(TreeOptions::HARD_LINKS, true);
    sender.send(1, &[&from], "data");
    let end = sender.end_of(1);
    end.assert_done();
    let notes = String::from_utf8(JobChanges::decode(&end.changes).unwrap().notes.to_vec()).unwrap();
    assert!(notes.contains("privileged"), "{notes}");
    let other = receiver.export().join("source/other");
    let found = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!((found(&other).mode() & 0o7777, found(&other).nlink()), (0o755, 2));

    receiver.privileged = true;
    receiver.know(&[sender.named("peer", "")]);
    sender.send(2, &[&from], "data");
    let end = sender.end_of(2);
    end.assert_done();
    // Root keeps owners; anybody else says that it cannot.
    if nix::unistd::geteuid().is_root() {
        assert_eq!((end.changes.len(), found(&other).mode() & 0o7777), (0, 0o4755));
    } else {
        assert!(!end.changes.is_empty());
    }
}
