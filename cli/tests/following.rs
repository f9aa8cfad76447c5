//! `send`, `fetch` and `transfers follow` against a daemon that reports, fails, goes away and comes back.
mod support;

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Daemon, Ran, Request, answer, answer_events, end_events, event, fixture, half_event};

const EVENTS: &str = "GET /api/v1/dwcp/transfers/7/events";
const CREATE: &str = "POST /api/v1/dwcp/transfers";

fn running() -> String {
    fixture("transfer.json").trim().to_owned()
}

fn ended(state: &str) -> String {
    let text = running()
        .replace("\"running\"", &format!("\"{state}\""))
        .replace("\"eta_seconds\":12", "\"eta_seconds\":null");
    text.replace("\"error\":null", "\"error\":\"disk full: free some and run it again\"")
}

/// Takes one transfer and reports it running, then ended in `state`.
fn taking(state: &'static str) -> Daemon {
    Daemon::start(move |request: &Request, stream| match request.line.as_str() {
        CREATE => answer(stream, "201 Created", &running()),
        EVENTS => {
            answer_events(stream);
            event(stream, "progress", &running());
            event(stream, "later-version", "{}");
            event(stream, "finished", &ended(state));
        }
        other => panic!("nobody should ask for {other}"),
    })
}

#[test]
fn the_end_decides_the_exit_code() {
    for (state, code) in [("done", 0), ("partial", 6), ("failed", 1), ("cancelled", 1)] {
        let ran = taking(state).run(&["send", "/srv/a", "berlin:data/in"]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        if matches!(state, "done" | "partial") {
            assert!(ran.stdout.starts_with("sent to berlin:data/in: 1.2 GiB in 3 entries"), "{}", ran.stdout);
        } else {
            assert_eq!(ran.stdout, "");
            assert!(ran.stderr.contains(&format!("transfer 7 {state}: disk full")), "{}", ran.stderr);
        }
    }
}

#[test]
fn the_request_carries_what_was_asked() {
    let daemon = taking("done");
    let ran = daemon.run(&[
        "fetch",
        "berlin:a:b",
        "berlin:/c",
        "/in",
        "--streams",
        "4",
        "--skip-unchanged",
        "-q",
        "--include",
        "*.rs",
        "--exclude",
        "*",
        "--delete",
        "-ncaHXA",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let request = daemon.requests.try_iter().find(|request| request.line == CREATE).unwrap();
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    let expected = serde_json::json!({
        "direction": "fetch", "peer": "berlin", "sources": ["a:b", "/c"], "destination": "/in",
        "options": {
            "streams": 4, "skip_unchanged": true, "checksum": true, "delete": true, "dry_run": true,
            "hard_links": true, "xattrs": true, "acls": true, "owner": true, "group": true, "devices": true,
            "specials": true,
            "filters": [{"include": "*.rs"}, {"exclude": "*"}],
        },
    });
    assert_eq!(body, expected);
}

#[test]
fn progress_off_a_terminal_is_lines_on_stderr() {
    let ran = taking("done").run(&["send", "/srv/a", "berlin:data/in"]);
    let expected =
        "transfer 7 done: 44 %, 1.2 GiB of 2.7 GiB, 3 of 10 entries, 120 MiB/s, ratio 2.31, 32 lanes";
    assert!(ran.stderr.lines().any(|line| line == expected), "{}", ran.stderr);
}

#[test]
fn json_is_the_final_transfer_alone() {
    let ran = taking("done").run(&["send", "/srv/a", "berlin:data/in", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["state"], "done");
}

#[test]
fn json_progress_is_a_line_for_each_report() {
    let ran = taking("partial").run(&["send", "/srv/a", "berlin:data/in", "--progress=json", "--json"]);
    assert_eq!(ran.code, 6);
    let states: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(states, ["running", "partial"]);
}

#[test]
fn detached_prints_the_id_and_leaves() {
    let daemon = taking("done");
    let ran = daemon.run(&["send", "/srv/a", "berlin:data/in", "--detach"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "7\n"));
    assert!(ran.stderr.contains("dwcp transfers follow 7"));
    assert!(daemon.requests.try_iter().all(|request| request.line == CREATE));
}

#[test]
fn a_daemon_that_comes_back_is_found_again() {
    let asked = AtomicUsize::new(0);
    let daemon = Daemon::start(move |_: &Request, stream| match asked.fetch_add(1, Ordering::SeqCst) {
        // Dies in the middle of a report, then hangs up, then is starting, then ends the stream in good order.
        0 => {
            answer_events(stream);
            event(stream, "progress", &running());
            half_event(stream);
        }
        1 => {}
        2 => answer(stream, "503 Service Unavailable", "{\"status\":503,\"title\":\"starting\"}"),
        3 => {
            answer_events(stream);
            end_events(stream);
        }
        _ => {
            answer_events(stream);
            event(stream, "finished", &ended("done"));
        }
    });
    let ran = daemon.run(&["transfers", "follow", "7", "--timeout", "60s"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("the connection to the daemon was lost").count(), 1, "{}", ran.stderr);
    assert_eq!(daemon.requests.try_iter().count(), 5);
}

#[test]
fn a_daemon_that_stays_away_is_3_and_the_transfer_goes_on() {
    let asked = AtomicUsize::new(0);
    let daemon = Daemon::start(move |request: &Request, stream| match request.line.as_str() {
        CREATE => answer(stream, "201 Created", &running()),
        _ if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
            answer_events(stream);
            event(stream, "progress", &running());
        }
        _ => {}
    });
    let ran = daemon.run(&["send", "/srv/a", "berlin:data/in", "--timeout", "300ms"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("did not come back within 0.3 s"), "{}", ran.stderr);
    assert!(ran.stderr.contains("transfer 7 is kept by the daemon and goes on"), "{}", ran.stderr);
}

/// Starts the command, waits for its first report on stdout, interrupts it.
fn interrupted(daemon: &Daemon, arguments: &[&str]) -> Ran {
    let mut child = daemon.command(arguments).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("\"running\""), "{line}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    let mut ran = Ran::from(child.wait_with_output().unwrap());
    ran.stdout = rest;
    ran
}

#[test]
fn ctrl_c_leaves_the_transfer_to_the_daemon() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let daemon = Daemon::start(move |request: &Request, stream| {
        assert_eq!(request.line, EVENTS);
        answer_events(stream);
        event(stream, "progress", &running());
        // Holds the stream open until the test is over.
        assert!(held.lock().unwrap().recv().is_err());
    });
    let ran = interrupted(&daemon, &["transfers", "follow", "7", "--progress=json"]);
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(ran.stderr.contains("transfer 7 goes on in the daemon"));
    assert!(ran.stderr.contains("dwcp transfers follow 7"));
    assert!(ran.stderr.contains("dwcp transfers cancel 7"));
    drop(release);
}

#[test]
fn ctrl_c_cancels_where_that_was_asked_for() {
    let (cancelled, wait_for_cancel) = std::sync::mpsc::channel::<()>();
    let (cancelled, wait_for_cancel) =
        (std::sync::Mutex::new(cancelled), std::sync::Mutex::new(wait_for_cancel));
    let daemon = Daemon::start(move |request: &Request, stream| {
        if request.line == "DELETE /api/v1/dwcp/transfers/7" {
            answer(stream, "202 Accepted", &running());
            cancelled.lock().unwrap().send(()).unwrap();
            return;
        }
        answer_events(stream);
        event(stream, "progress", &running());
        wait_for_cancel.lock().unwrap().recv().unwrap();
        event(stream, "finished", &ended("cancelled"));
    });
    let arguments = ["transfers", "follow", "7", "--progress=json", "--cancel-on-interrupt"];
    let ran = interrupted(&daemon, &arguments);
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(ran.stdout.contains("\"cancelled\""), "{}", ran.stdout);
}
