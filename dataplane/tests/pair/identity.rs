//! Peers that are not who they should be, or not there: the job's end names the peer and the way out.
use dwcp_abi::link::Outcome;

use crate::events::End;
use crate::node::{CLEAR, Named, Node, address};

/// What becomes of a job to `peer`, when the plans are made by `plans`.
fn end_of_job(plans: impl FnOnce(&mut Node, &mut Node, &str)) -> End {
    let directory = tempfile::TempDir::new().unwrap();
    let listen = address();
    let mut sender = Node::start(&directory.path().join("a"), CLEAR, "");
    let mut receiver = Node::start(&directory.path().join("b"), CLEAR, &listen);
    sender.transport.connect_timeout_ms = 400;
    plans(&mut sender, &mut receiver, &listen);
    let source = directory.path().join("file");
    std::fs::write(&source, b"never to arrive").unwrap();
    sender.send(1, &[&source], "data/");
    let end = sender.end_of(1);
    assert!(crate::data::files(&receiver.export()).is_empty());
    end
}

#[test]
fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let end = end_of_job(|sender, receiver, listen| {
        let wrong = Named { fingerprint: [7; 32], ..receiver.named("peer", listen) };
        sender.know(&[wrong]);
        receiver.know(&[sender.named("peer", "")]);
    });
    end.assert_says(Outcome::Interrupted, &["`peer`", "identity"]);
}

#[test]
fn a_node_that_the_peer_does_not_know_is_told_how_to_be_known() {
    let end = end_of_job(|sender, receiver, listen| {
        sender.know(&[receiver.named("peer", listen)]);
        receiver.know(&[]);
    });
    end.assert_says(Outcome::Interrupted, &["does not know this node", "list this node's identity"]);
}

#[test]
fn a_peer_that_does_not_answer_is_named_with_its_address() {
    let nobody = address();
    let end = end_of_job(|sender, receiver, _| sender.know(&[receiver.named("peer", &nobody)]));
    end.assert_says(Outcome::Interrupted, &["`peer`", &nobody]);
}

#[test]
fn a_peer_that_the_plan_does_not_have_is_to_be_added_there() {
    let end = end_of_job(|sender, _, _| sender.know(&[]));
    end.assert_says(Outcome::Interrupted, &["not in the plan", "peers"]);
}
