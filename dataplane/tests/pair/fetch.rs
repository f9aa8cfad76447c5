//! Fetching: the receiver numbers the job, the sender's exports decide.
use std::fs;

use dwcp_abi::link::Outcome;

use crate::data::{assert_same, files, tree};
use crate::node::{CLEAR, Shape, pair};

#[test]
fn a_tree_is_fetched() {
    let shape = Shape { workers: 2, encrypt: true, ..CLEAR };
    let (directory, mut fetcher, holder) = pair(shape);
    let source = holder.export().join("source");
    tree(&source, &[0, 1, 5_000, 200_000, 2_000_000, 2_000_001]);
    let into = directory.path().join("into");
    fs::create_dir(&into).unwrap();
    fetcher.fetch(3, &["data/source"], &into);
    fetcher.end_of(3).assert_done();
    assert_same(&source, &into.join("source"));
}

#[test]
fn what_is_not_exported_or_not_there_is_named() {
    let (directory, mut fetcher, _holder) = pair(CLEAR);
    let into = directory.path().join("into");
    fs::create_dir(&into).unwrap();
    fetcher.fetch(1, &["/etc/passwd"], &into);
    fetcher.end_of(1).assert_says(Outcome::Failed, &["/etc/passwd", "exports"]);
    fetcher.fetch(2, &["data/../state/node.key"], &into);
    let end = fetcher.end_of(2);
    assert_ne!(end.outcome, Outcome::Done);
    assert!(!end.text.is_empty());
    fetcher.fetch(3, &["data/missing"], &into);
    let end = fetcher.end_of(3);
    assert_ne!(end.outcome, Outcome::Done);
    assert!(end.text.contains("missing"), "{end:?}");
    assert!(files(&into).is_empty());
}
