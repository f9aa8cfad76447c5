//! The commands that operators act with, against a daemon that answers by the book.
mod support;

use std::sync::Mutex;

use support::{Daemon, Request, answer, run};

const BREAKERS: &str = r#"{"schema":"dwcp.circuit-breakers/1","node":{"state":"closed","failures":0,"probes_in_seconds":null},
    "peers":[{"peer":"paris","state":"open","failures":7,"probes_in_seconds":12},{"peer":"berlin","state":"half-open","failures":5,"probes_in_seconds":null}]}"#;
const CHANGE: &str = r#"{"schema":"dwcp.config-change/1","dry_run":false,"hash":"aa","changes":[{"key":"mode","from":"hybrid","to":"internet"},
    {"key":"api.listen","from":"0.0.0.0:8080","to":"0.0.0.0:1"}],"applied":["mode"],"restart_required":["api.listen"],"warnings":["odd"]}"#;

#[test]
fn breakers_are_shown_and_reset() {
    let daemon = Daemon::start(|request: &Request, stream| match request.line.as_str() {
        "GET /api/v1/dwcp/circuit-breakers" => answer(stream, "200 OK", BREAKERS),
        "POST /circuit-breaker/reset?peer=paris" => answer(
            stream,
            "200 OK",
            r#"{"schema":"dwcp.circuit-breaker-reset/1","previous":"open","state":"closed"}"#,
        ),
        other => panic!("nobody should ask for {other}"),
    });
    let state = daemon.run(&["circuit-breaker", "state"]);
    let expected = "BREAKER  STATE      FAILURES  NEXT\n\
                    (node)   closed            0  -\n\
                    paris    open              7  a probe in 12 s; transfers wait\n\
                    berlin   half-open         5  one probe at a time\n";
    assert_eq!((state.code, state.stdout.as_str()), (0, expected));
    let reset = daemon.run(&["circuit-breaker", "reset", "--peer", "paris"]);
    assert_eq!(reset.code, 0, "{}", reset.stderr);
    assert!(reset.stderr.contains("paris: closed, was open"), "{}", reset.stderr);
}

#[test]
fn keys_are_set_with_their_undoing_and_mistakes_are_78() {
    let daemon = Daemon::start(|request: &Request, stream| match request.body.as_str() {
        r#"{"api.listen":":1","mode":"internet"}"# => answer(stream, "200 OK", CHANGE),
        r#"{"mode":null}"# => answer(stream, "200 OK", CHANGE),
        _ => answer(
            stream,
            "422 Unprocessable Entity",
            r#"{"type":"urn:dwcp:problem:configuration","title":"t","status":422,"detail":"d","errors":["mode: expected one of hybrid"]}"#,
        ),
    });
    let set = daemon.run(&["config", "set", "mode=internet", "api.listen=:1"]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(
        set.stdout,
        "mode: hybrid -> internet\napi.listen: 0.0.0.0:8080 -> 0.0.0.0:1   (restart required: systemctl restart dwcp)\n"
    );
    assert!(set.stderr.contains("to undo: dwcp config unset api.listen mode"), "{}", set.stderr);
    assert_eq!(daemon.run(&["config", "unset", "mode"]).code, 0);
    let wrong = daemon.run(&["config", "set", "mode=fast"]);
    assert_eq!(wrong.code, 78);
    assert!(
        wrong.stderr.contains("expected one of hybrid") && wrong.stderr.contains("nothing was changed"),
        "{}",
        wrong.stderr
    );
    assert_eq!(daemon.run(&["config", "set", "mode"]).code, 2);
}

#[test]
fn keys_are_explained_without_a_daemon() {
    let explained = run(&["config", "explain", "hde.level"]);
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    assert!(
        explained.stdout.starts_with("compression.level\n") && explained.stdout.contains("default: 3"),
        "{}",
        explained.stdout
    );
    let unknown = run(&["config", "explain", "transport.max_strems"]);
    assert_eq!(unknown.code, 78);
    assert!(unknown.stderr.contains("did you mean 'transport.max_streams'?"), "{}", unknown.stderr);
}

#[test]
fn waiting_ends_when_the_node_is_ready_and_says_why_it_is_not() {
    let looks = Mutex::new(0);
    let daemon = Daemon::start(move |_: &Request, stream| {
        let mut looks = looks.lock().unwrap();
        *looks += 1;
        match *looks {
            1 => answer(
                stream,
                "503 Service Unavailable",
                r#"{"ready":false,"reasons":["transport is starting"]}"#,
            ),
            _ => answer(stream, "200 OK", r#"{"ready":true,"reasons":[]}"#),
        }
    });
    assert_eq!(daemon.run(&["wait", "ready"]).code, 0);
    let never = Daemon::start(|_: &Request, stream| {
        answer(stream, "503 Service Unavailable", r#"{"ready":false,"reasons":["the disk is full"]}"#);
    });
    let ran = never.run(&["wait", "ready", "--timeout", "200ms"]);
    assert_eq!(ran.code, 4);
    assert!(ran.stderr.contains("not ready within 0.2 s: the disk is full"), "{}", ran.stderr);
    assert_eq!(never.run(&["wait", "stopped", "--timeout", "200ms"]).code, 4);
}

#[test]
fn waiting_for_the_end_needs_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let mut command = support::dwcp(&["wait", "stopped"]);
    assert_eq!(support::Ran::of(command.env("DWCP_SOCKET", &socket)).code, 0);
    // The other half is still there.
    let _dataplane = std::os::unix::net::UnixListener::bind(directory.path().join("dataplane.sock")).unwrap();
    let mut command = support::dwcp(&["wait", "stopped", "--timeout", "100ms"]);
    let ran = support::Ran::of(command.env("DWCP_SOCKET", &socket));
    assert!(ran.code == 4 && ran.stderr.contains("dataplane.sock"), "{}", ran.stderr);
}

#[test]
fn draining_waits_for_what_is_under_way() {
    let looks = Mutex::new(0);
    let daemon = Daemon::start(move |request: &Request, stream| {
        let status = |drained: bool, under_way: u32| {
            format!(
                r#"{{"schema":"dwcp.drain/1","draining":true,"drained":{drained},"under_way":{under_way},"waiting":0}}"#
            )
        };
        let mut looks = looks.lock().unwrap();
        *looks += 1;
        match (request.line.as_str(), *looks) {
            ("POST /api/v1/dwcp/drain", _) => answer(stream, "202 Accepted", &status(false, 2)),
            (_, 2) => answer(stream, "200 OK", &status(false, 1)),
            _ => answer(stream, "200 OK", &status(true, 0)),
        }
    });
    let ran = daemon.run(&["shutdown", "--drain", "--timeout=5m"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("2 transfers are under way") && ran.stderr.contains("drained"),
        "{}",
        ran.stderr
    );
    assert_eq!(run(&["shutdown"]).code, 2);
}

#[test]
fn events_are_printed_with_their_values_and_control_characters_shown() {
    let daemon = Daemon::start(|request: &Request, stream| {
        assert_eq!(request.line, "GET /api/v1/dwcp/events?limit=2&component=jobs");
        let event = |number: u32, level: &str, message: &str| {
            format!(
                r#"{{"number":{number},"timestamp":"2026-01-02T03:04:05.000Z","level":"{level}","component":"jobs","message":"{message}","fields":{{"job":7,"peer":"paris","error":null}}}}"#
            )
        };
        let events = [event(1, "info", "transfer ended"), event(2, "error", "bad \\u001b[31mname")].join(",");
        answer(stream, "200 OK", &format!(r#"{{"schema":"dwcp.events/1","events":[{events}]}}"#));
    });
    let ran = daemon.run(&["events", "-n", "2", "--component", "jobs"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("info   jobs       transfer ended job=7 peer=paris\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("bad \\u{1b}[31mname"), "{}", ran.stdout);
    let ran = daemon.run(&["events", "-n", "2", "--component", "jobs", "--level", "warn"]);
    assert!(!ran.stdout.contains("transfer ended"), "{}", ran.stdout);
}

#[test]
fn a_backup_has_its_name_only_when_it_is_whole() {
    let daemon = Daemon::start(|request: &Request, stream| match request.line.as_str() {
        "POST /api/v1/dwcp/backup" => answer(stream, "200 OK", "all of it"),
        _ => answer(
            stream,
            "200 OK",
            r#"{"schema":"dwcp.backup-verdict/1","layout":2,"transfers":5,"unfinished":1,"waits_for_restart":false}"#,
        ),
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.db");
    let name = file.to_str().unwrap();
    assert_eq!(daemon.run(&["backup", "state", "--output", name]).code, 0);
    assert_eq!(std::fs::read(&file).unwrap(), b"all of it");
    let verified = daemon.run(&["backup", "verify", name]);
    assert!(
        verified.stdout.contains("whole, layout 2, 5 transfers, 1 of them unfinished"),
        "{}",
        verified.stdout
    );
    let refusing = Daemon::start(|_: &Request, stream| {
        answer(
            stream,
            "507 Insufficient Storage",
            r#"{"type":"urn:dwcp:problem:refused","title":"t","status":507,"detail":"no room"}"#,
        );
    });
    let other = directory.path().join("other.db");
    let ran = refusing.run(&["backup", "state", "--output", other.to_str().unwrap()]);
    assert!(ran.code == 5 && ran.stderr.contains("no room"), "{} {}", ran.code, ran.stderr);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_sealed_copy_opens_with_its_passphrase_alone() {
    let daemon = Daemon::start(|request: &Request, stream| match request.line.as_str() {
        "POST /api/v1/dwcp/backup" => answer(stream, "200 OK", "SQLite format 3\0 and all of it"),
        _ => {
            assert_eq!(request.body, "SQLite format 3\0 and all of it");
            answer(
                stream,
                "200 OK",
                r#"{"schema":"dwcp.backup-verdict/1","layout":2,"transfers":5,"unfinished":1,"waits_for_restart":false}"#,
            );
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for (name, text) in
        [("right", "correct horse battery\n"), ("wrong", "correct horse battery!"), ("short", "x")]
    {
        std::fs::write(file(name), text).unwrap();
    }
    let (copy, plain) = (file("copy"), file("plain"));
    let seal = |passphrase: &str| {
        daemon.run(&["backup", "state", "--output", &copy, "--passphrase-file", &file(passphrase)])
    };
    assert!(seal("short").stderr.contains("shorter"));
    assert_eq!(seal("right").code, 0);
    assert!(!std::fs::read(&copy).unwrap().windows(6).any(|bytes| bytes == b"SQLite"));
    let verify =
        |passphrase: &str| daemon.run(&["backup", "verify", &copy, "--passphrase-file", &file(passphrase)]);
    assert!(verify("right").stdout.contains("whole, layout 2"));
    assert!(verify("wrong").stderr.contains("passphrase is another one"));
    assert!(daemon.run(&["backup", "verify", &copy]).stderr.contains("--passphrase-file"));
    assert_eq!(daemon.run(&["backup", "state", "--output", &plain]).code, 0);
    let listed = daemon.run(&["backup", "list", directory.path().to_str().unwrap()]).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines.len() == 3 && listed.contains("yes") && listed.contains("no"), "{listed}");
}

#[test]
fn keys_are_printed_once_and_listed_without_themselves() {
    let daemon = Daemon::start(|request: &Request, stream| {
        let key = r#""id":"0a0b","name":"grafana","role":"read","created_at":"2026-01-02T03:04:05.000Z","expires_at":null"#;
        match (request.line.as_str(), request.body.as_str()) {
            ("POST /api/v1/auth/keys", r#"{"name":"grafana","role":"read","ttl_seconds":3600}"#) => {
                answer(
                    stream,
                    "201 Created",
                    &format!(r#"{{"schema":"dwcp.api-key/1","key":"dwcp_0a0b_ff",{key}}}"#),
                );
            }
            ("GET /api/v1/auth/keys", _) => {
                answer(stream, "200 OK", &format!(r#"{{"schema":"dwcp.api-keys/1","keys":[{{{key}}}]}}"#));
            }
            ("DELETE /api/v1/auth/keys/0a0b", _) => {
                answer(stream, "200 OK", r#"{"schema":"dwcp.api-keys/1","keys":[]}"#);
            }
            other => panic!("nobody should ask for {other:?}"),
        }
    });
    let made = daemon.run(&["auth", "key", "create", "--name", "grafana", "--role", "read", "--ttl", "1h"]);
    assert_eq!((made.code, made.stdout.as_str()), (0, "dwcp_0a0b_ff\n"), "{}", made.stderr);
    assert!(made.stderr.contains("to undo: dwcp auth key revoke 0a0b"), "{}", made.stderr);
    let listed = daemon.run(&["auth", "key", "list"]);
    assert!(listed.stdout.contains("0a0b  read") && !listed.stdout.contains("dwcp_"), "{}", listed.stdout);
    assert_eq!(daemon.run(&["auth", "key", "revoke", "0a0b"]).code, 0);
    assert_eq!(daemon.run(&["auth", "key", "create", "--name", "x", "--role", "king"]).code, 2);
}

#[test]
fn a_report_holds_what_there_is_and_says_what_there_is_not() {
    let daemon = Daemon::start(|request: &Request, stream| match request.line.as_str() {
        "GET /api/v1/dwcp/peers" => answer(
            stream,
            "200 OK",
            r#"{"schema":"dwcp.peers/1","peers":[{"name":"paris","address":"paris.example.net:9000","fingerprint":"sha256:ccdd","state":"idle","lanes":0,"encrypted":null,"changed_at":null,"last_error":"paris is gone"}]}"#,
        ),
        _ => answer(
            stream,
            "503 Service Unavailable",
            r#"{"type":"about:blank","title":"t","status":503,"detail":"not now, said paris"}"#,
        ),
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("r.tar");
    let ran = daemon.run(&["report", "--redact", "-o", file.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("dwcp-report/peers.json") && text.contains("no answer: not now, said <peer"),
        "{text}"
    );
    assert!(!text.contains("paris") && !text.contains("ccdd"), "{text}");
}
