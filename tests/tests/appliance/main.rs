//! The whole appliance: two nodes under `dwcp server`, the command, and `kill -9` of either half in mid-transfer; programs
//! through tunnels.
//!
//! The programs are those beside the test in the target directory: `cargo build` comes first.
mod node;
mod programs;
#[path = "../../../dataplane/tests/pair/valve.rs"]
mod valve;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::Signal;
use node::{Node, address};
use serde_json::Value;
use tempfile::TempDir;
use valve::Valve;

/// Enough for the greetings, the pack and a good part of the files.
const FIRST: u64 = 14_000_000;
const FILES: [usize; 4] = [20, 100_000, 30_000_000, 6_000_000];
const TOTAL: u64 = 20 + 100_000 + 30_000_000 + 6_000_000;
/// What is acknowledged before anybody is killed: the receiver has written it.
const DONE: u64 = 3_000_000;
/// Small files, frames and heads of chunks.
const BESIDES: u64 = 400_000;

/// Two nodes, and `dwcp send` in mid-transfer between them.
struct Scene {
    directory: TempDir,
    sender: Node,
    receiver: Node,
    valve: Valve,
    command: Child,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let source = directory.path().join("source");
        fs::create_dir(&source).unwrap();
        for (index, size) in FILES.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..size as u32)
                .flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes())
                .take(size)
                .collect();
            fs::write(source.join(format!("{index}")), bytes).unwrap();
        }
        let listen = address();
        let valve = Valve::new(&listen, FIRST);
        let sender = Node::start("west", &directory.path().join("west"), &address());
        let receiver = Node::start("east", &directory.path().join("east"), &listen);
        sender.meet(&receiver, &valve.address);
        receiver.meet(&sender, "");
        let command = sender.spawn(&["send", "--json", source.to_str().unwrap(), "east:incoming/"]);
        sender.until("data moves", || {
            let done = sender.transfer()?["counts"]["bytes_done"].as_u64();
            (done > Some(DONE)).then_some(())
        });
        Self { directory, sender, receiver, valve, command }
    }

    /// The command of the beginning ends well, and all is there.
    fn assert_arrives(mut self) -> Value {
        self.valve.open();
        let status = self.command.wait().unwrap();
        assert!(status.success(), "dwcp send ended with {status}: {:?}", self.sender.transfer());
        assert_same(&self.directory.path().join("source"), &self.receiver.incoming().join("source"));
        let transfer = self.sender.transfer().unwrap();
        assert_eq!(transfer["state"], "done");
        transfer
    }
}

/// The last attempt has sent what was not there, and not everything.
fn assert_resumed(transfer: &Value) {
    let counts = &transfer["counts"];
    let (wire, resumed) = (counts["bytes_wire"].as_u64().unwrap(), counts["bytes_resumed"].as_u64().unwrap());
    assert!(resumed > 0 && wire <= TOTAL - DONE + BESIDES, "{transfer}");
    assert!(wire <= TOTAL - resumed + BESIDES, "{transfer}");
}

fn assert_same(source: &Path, arrived: &Path) {
    let names = |directory: &Path| -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name())).collect();
        names.sort();
        names
    };
    assert_eq!(names(source), names(arrived));
    for name in names(source) {
        assert!(fs::read(source.join(&name)).unwrap() == fs::read(arrived.join(&name)).unwrap(), "{name:?}");
    }
}

/// Both ends time chunks of a transfer that runs, and the stages of each are its time.
#[test]
fn the_stages_of_live_chunks_add_up_at_both_ends() {
    let scene = Scene::new();
    let job = scene.sender.transfer().unwrap()["id"].to_string();
    for (node, direction, peer, query) in [
        (&scene.sender, "sent", "east", format!("job={job}&peer=east")),
        (&scene.receiver, "received", "west", "peer=west".to_owned()),
    ] {
        let part = node.until("chunks are timed", || {
            let report = node.get(&format!("/api/v1/dwcp/debug/latency?{query}"))?;
            let report: Value = serde_json::from_str(&report).unwrap();
            (report[direction]["chunks"].as_u64() > Some(0)).then(|| report[direction].clone())
        });
        let ns = |value: &Value| value.as_u64().unwrap();
        let stages = part["stages"].as_array().unwrap();
        assert_eq!(
            stages.iter().map(|stage| ns(&stage["sum_ns"])).sum::<u64>(),
            ns(&part["total"]["sum_ns"])
        );
        for chunk in part["latest"].as_array().unwrap() {
            assert_eq!(chunk["peer"], peer);
            let stages: Vec<u64> = chunk["stages_ns"].as_array().unwrap().iter().map(ns).collect();
            assert_eq!(stages.iter().sum::<u64>(), ns(&chunk["total_ns"]));
            // Hashing half a megabyte, and moving it, take time everywhere.
            assert!(ns(&chunk["bytes"]) > 0 && stages.iter().filter(|ns| **ns > 0).count() >= 4, "{chunk}");
        }
    }
    scene.assert_arrives();
}

/// A restart of control, as an upgrade makes one, and its death.
#[test]
fn control_ended_in_mid_transfer_comes_back_and_reports_the_end() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        control_comes_back_after(signal);
    }
}

fn control_comes_back_after(signal: Signal) {
    let scene = Scene::new();
    let (control, dataplane) = (scene.sender.control(), scene.sender.dataplane());
    let lanes = node::connections(dataplane);
    assert!(!lanes.is_empty());
    scene.sender.signal(control, signal);
    scene.sender.until("control is back", || {
        let ready = scene.sender.is_ok("/ready") && scene.sender.is_ok("/health");
        (ready && scene.sender.find("dwcp-control").is_some_and(|pid| pid != control)).then_some(())
    });
    assert_eq!(scene.sender.dataplane(), dataplane, "the dataplane went on");
    assert_eq!(node::connections(dataplane), lanes, "the same lanes");
    assert!(scene.sender.get("/metrics").unwrap().contains("dwcp_"));
    let transfer = scene.assert_arrives();
    assert_eq!(transfer["attempt"], 1, "nothing was interrupted");
}

#[test]
fn a_dataplane_killed_in_mid_transfer_is_started_again_and_the_job_done_at_another_attempt() {
    let scene = Scene::new();
    let (control, dataplane) = (scene.sender.control(), scene.sender.dataplane());
    scene.sender.kill(dataplane);
    assert!(scene.sender.is_ok("/live"), "control lives without a dataplane");
    scene.sender.until("the job is tried again", || {
        scene.sender.transfer().filter(|transfer| transfer["attempt"].as_u64() > Some(1)).map(drop)
    });
    assert_eq!(scene.sender.control(), control);
    assert_ne!(scene.sender.dataplane(), dataplane);
    let transfer = scene.assert_arrives();
    assert_eq!(transfer["error"], Value::Null);
    assert_resumed(&transfer);
}

#[test]
fn who_connects_while_the_dataplane_is_started_anew_waits() {
    let directory = TempDir::new().unwrap();
    let listen = address();
    let node = Node::start_with("east", &directory.path().join("east"), &listen, "1500ms");
    for life in 0..2 {
        let dataplane = node.dataplane();
        node.kill(dataplane);
        node.until("it is dead", || node.find("dwcp-dataplane").is_none().then_some(()));
        let mut early = TcpStream::connect(&listen).unwrap_or_else(|error| panic!("life {life}: {error}"));
        assert!(node.find("dwcp-dataplane").is_none(), "it connected before there was a dataplane");
        early.write_all(b"no greeting").unwrap();
        early.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The next life takes the connection out of the queue, and closes it: this is no peer.
        let ended = early.read_to_end(&mut Vec::new());
        let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "life {life}: nobody took it");
        assert!(node.log().contains("taken over from the former life"), "{}", node.log());
    }
}

#[test]
fn a_receiving_dataplane_killed_in_mid_transfer_costs_an_attempt_and_sends_only_the_rest() {
    let scene = Scene::new();
    let dataplane = scene.receiver.dataplane();
    scene.receiver.kill(dataplane);
    scene.receiver.until("the dataplane is back", || {
        (scene.receiver.is_ok("/ready")
            && scene.receiver.find("dwcp-dataplane").is_some_and(|pid| pid != dataplane))
        .then_some(())
    });
    let transfer = scene.assert_arrives();
    assert!(transfer["attempt"].as_u64() > Some(1), "{transfer}");
    assert_resumed(&transfer);
}

#[test]
fn a_paused_transfer_rests_through_the_death_of_both_halves_and_sends_only_the_rest() {
    let scene = Scene::new();
    let sender = &scene.sender;
    let order =
        |what: &str| assert!(sender.spawn(&[what, "1"]).wait().unwrap().success(), "{}", sender.log());
    let is_paused = || sender.transfer().filter(|transfer| transfer["state"] == "paused").map(drop);
    order("pause");
    sender.until("it rests", is_paused);
    for (name, pid) in [("dwcp-dataplane", sender.dataplane()), ("dwcp-control", sender.control())] {
        sender.kill(pid);
        sender.until("the half is back", || {
            (sender.find(name).is_some_and(|now| now != pid) && sender.is_ok("/ready")).then_some(())
        });
        sender.until("it rests still", is_paused);
    }
    order("resume");
    let transfer = scene.assert_arrives();
    assert_eq!(transfer["attempt"], 2, "{transfer}");
    assert_resumed(&transfer);
}
