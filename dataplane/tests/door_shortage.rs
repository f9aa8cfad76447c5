//! The door when the process runs out of descriptors. Alone in its process: the limit is everybody's.
#[expect(dead_code, reason = "shared with the other tests of the door")]
mod door_support;

use std::io::Write as _;

use door_support::{Node, Seen, plan};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_door_without_descriptors_waits_for_better_times() {
    let far = Node::open();
    far.set_plan(plan(&[]));
    let mut client = far.connect();
    far.until(|seen: Seen| seen.figures.half_open == 1);

    // The caller's socket exists before the shortage begins; the door's end of it does not.
    let socket = door_support::unconnected();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(128), hard).expect("limit");
    let mut hoard = Vec::new();
    let full = loop {
        match nix::unistd::dup(&client) {
            Ok(descriptor) => hoard.push(descriptor),
            Err(error) => break error,
        }
    };
    assert_eq!(full, Errno::EMFILE);
    let mut late = door_support::connect(socket, far.address());
    far.until(|seen: Seen| seen.figures.pauses >= 2);

    // Connections that stood before are served meanwhile, and new ones as soon as there is room.
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    far.until(|seen: Seen| seen.figures.failed == 1);
    drop(hoard);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("limit");
    late.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    far.until(|seen: Seen| seen.figures.failed == 2);
}
