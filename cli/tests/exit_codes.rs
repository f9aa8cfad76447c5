//! The exit codes that scripts rely on, each brought about by what a daemon really answers.
mod support;

use std::os::unix::net::UnixListener;

use support::{Daemon, Ran, Request, answer, dwcp, fixture, run};

#[test]
fn usage_is_2() {
    for arguments in [
        &["statsu"][..],
        &["send", "a"],
        &["send", "a", "b"],
        &["send", "a", "[::1]:/b"],
        &["fetch", "a:b", "c:d", "/e"],
        &["transfers", "show", "seven"],
        &["transfers", "--state", "done", "show", "7"],
        &["--addr", "https://node:8443", "status"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, 2, "{arguments:?} {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert!(run(&["statsu"]).stderr.contains("similar subcommands exist: 'status'"));
}

#[test]
fn nobody_there_is_3() {
    for arguments in
        [&["stats"][..], &["status"], &["peers"], &["send", "a", "b:c"], &["transfers", "follow", "7"]]
    {
        let ran = Ran::of(dwcp(arguments).env("DWCP_SOCKET", "/nonexistent/control.sock"));
        assert_eq!(ran.code, 3, "{arguments:?} {}", ran.stderr);
        assert!(ran.stderr.contains("/nonexistent/control.sock"), "{}", ran.stderr);
    }
}

#[test]
fn silence_is_4_and_for_status_3() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    // Bound and never accepted: the connection stands, no answer comes.
    let _listener = UnixListener::bind(&socket).unwrap();
    for (command, code) in [("stats", 4), ("status", 3)] {
        let ran = Ran::of(dwcp(&["--timeout", "50ms", command]).env("DWCP_SOCKET", &socket));
        assert_eq!(ran.code, code, "{}", ran.stderr);
    }
    let ran = Ran::of(dwcp(&["--timeout", "50ms", "send", "a", "b:c"]).env("DWCP_SOCKET", &socket));
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("may have been created"), "{}", ran.stderr);
}

/// A daemon that refuses everything.
fn refusing(status: &'static str, problem: &'static str) -> Daemon {
    Daemon::start(move |_: &Request, stream| answer(stream, status, problem))
}

#[test]
fn refusals_have_the_code_of_their_reason() {
    for (status, problem, code, part) in [
        (
            "404 Not Found",
            r#"{"type":"urn:dwcp:problem:unknown-peer","title":"Unknown peer","status":404,"detail":"no peer is named 'berlim'","nearest":"berlin"}"#,
            2,
            "did you mean 'berlin'?",
        ),
        ("422 Unprocessable Content", r#"{"status":422,"detail":"too many sources"}"#, 2, "too many sources"),
        ("409 Conflict", r#"{"status":409,"detail":"it has ended"}"#, 5, "it has ended"),
        ("503 Service Unavailable", r#"{"status":503,"title":"draining"}"#, 5, "draining"),
        (
            "507 Insufficient Storage",
            r#"{"type":"urn:dwcp:problem:refused","status":507,"detail":"the job store did not take it"}"#,
            5,
            "did not take it",
        ),
        ("403 Forbidden", r#"{"status":403,"detail":"read only"}"#, 7, "read only"),
        ("504 Gateway Timeout", r#"{"status":504,"detail":"busy"}"#, 4, "busy"),
        ("500 Internal Server Error", r#"{"status":500,"detail":"store is full"}"#, 1, "store is full"),
        ("418 I'm a teapot", "short and stout", 1, "unexpected status 418"),
    ] {
        let ran = refusing(status, problem).run(&["send", "a", "berlim:c"]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn an_unknown_transfer_is_1() {
    let problem = r#"{"type":"urn:dwcp:problem:unknown-transfer","status":404,"detail":"no transfer 9"}"#;
    for action in ["show", "cancel", "follow"] {
        let ran = refusing("404 Not Found", problem).run(&["transfers", action, "9"]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
    }
}

#[test]
fn status_says_the_health() {
    for (health, http, code) in
        [("healthy", "200 OK", 0), ("degraded", "200 OK", 1), ("unhealthy", "503 Service Unavailable", 2)]
    {
        let daemon = Daemon::start(move |request: &Request, stream| match request.line.as_str() {
            "GET /health" => {
                let document = fixture("health.json");
                answer(stream, http, &document.replacen("healthy", health, 1));
            }
            _ => answer(stream, "200 OK", &fixture("status.json")),
        });
        let ran = daemon.run(&["status", "--json"]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["health"], health);
    }
}

#[test]
fn a_daemon_of_another_version_is_1() {
    let daemon = refusing("200 OK", r#"{"schema":"dwcp.peers/9","peers":[]}"#);
    let ran = daemon.run(&["peers"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("different versions"), "{}", ran.stderr);
}

#[test]
fn a_wrong_configuration_is_78() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "transport:\n  mni_streams: 4\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        &["config", "validate", file][..],
        &["server", "--config", file],
        &["server", "--validate", "--config", file],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, 78, "{}", ran.stderr);
        let told = ran.stdout + &ran.stderr;
        assert!(told.contains("config.yaml:2:3"), "{told}");
        assert!(told.contains("min_streams"), "{told}");
    }
    let ran = run(&["config", "validate", "--json", file]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (ran.code, &document["valid"], &document["findings"][0]["line"]),
        (78, &false.into(), &2.into())
    );

    std::fs::write(file, "transport:\n  min_streams: 4\n").unwrap();
    assert_eq!(run(&["config", "validate", file]).code, 0);
    let ran = run(&["config", "show", file]);
    assert!(ran.stdout.contains("transport.min_streams: 4\n"), "{}", ran.stdout);
}

#[test]
fn cancelling_pausing_and_resuming_ask_once() {
    let daemon =
        Daemon::start(|_: &Request, stream| answer(stream, "202 Accepted", &fixture("transfer.json")));
    let expected: [(&[&str], &str); 3] = [
        (&["transfers", "cancel", "7"], "DELETE /api/v1/dwcp/transfers/7"),
        (&["pause", "7"], "POST /api/v1/dwcp/transfers/7/pause"),
        (&["resume", "7"], "POST /api/v1/dwcp/transfers/7/resume"),
    ];
    for (arguments, line) in expected {
        let ran = daemon.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let lines: Vec<String> = daemon.requests.try_iter().map(|request| request.line).collect();
        assert_eq!(lines, [line]);
    }
}
