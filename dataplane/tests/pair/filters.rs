//! What is left out, by the sender's order and by the order of a peer that fetches.
use std::fs;
use std::path::Path;

use dwcp_abi::codec::Encoded;
use dwcp_abi::link::Outcome;
use dwcp_abi::wire::{FilterAction, FilterRule};

use crate::data::{assert_same, tree};
use crate::node::{CLEAR, pair};

fn rules(rules: &[(FilterAction, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for &(action, pattern) in rules {
        let mut bytes = vec![0; 3 + pattern.len()];
        FilterRule { action, pattern }.encode(&mut bytes).unwrap();
        list.extend(bytes);
    }
    list
}

/// A tree, and beside it what shall arrive of it.
fn source(root: &Path, expected: &Path) {
    for root in [root, expected] {
        tree(root, &[0, 5_000, 2_000_000]);
        fs::write(root.join("keep.o"), "kept").unwrap();
    }
    fs::create_dir_all(root.join("target/deep")).unwrap();
    fs::write(root.join("target/deep/large"), vec![7; 3 << 20]).unwrap();
    fs::write(root.join("main.o"), "left out").unwrap();
}

const RULES: [(FilterAction, &[u8]); 3] = [
    (FilterAction::Include, b"keep.o"),
    (FilterAction::Exclude, b"*.o"),
    (FilterAction::Exclude, b"/source/target/"),
];

#[test]
fn a_send_leaves_out_what_its_order_says() {
    let (directory, mut sender, receiver) = pair(CLEAR);
    let (from, expected) = (directory.path().join("source"), directory.path().join("expected"));
    source(&from, &expected);
    sender.filters = rules(&RULES);
    sender.send(1, &[&from], "data");
    sender.end_of(1).assert_done();
    assert_same(&expected, &receiver.export().join("source"));
}

#[test]
fn a_fetch_tells_the_peer_what_it_leaves_out() {
    let (directory, mut fetcher, holder) = pair(CLEAR);
    let (expected, into) = (directory.path().join("expected"), directory.path().join("into"));
    source(&holder.export().join("source"), &expected);
    fs::create_dir(&into).unwrap();
    fetcher.filters = rules(&RULES);
    fetcher.fetch(1, &["data/source"], &into);
    fetcher.end_of(1).assert_done();
    assert_same(&expected, &into.join("source"));
    fetcher.filters = rules(&[(FilterAction::Exclude, b"x[y")]);
    fetcher.fetch(2, &["data/source"], &into);
    fetcher.end_of(2).assert_says(Outcome::Failed, &["'x[y'", "has no `]`"]);
    fetcher.filters = vec![9, 9, 9];
    fetcher.fetch(3, &["data/source"], &into);
    fetcher.end_of(3).assert_says(Outcome::Failed, &["filters cannot be used"]);
}
