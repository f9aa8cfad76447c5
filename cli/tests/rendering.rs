//! What people and programs read: help pages and documents, compared with golden files.
mod support;

use support::{Daemon, Request, answer, assert_golden, fixture, run};

/// Answers every document from its fixture.
fn node() -> Daemon {
    Daemon::start(|request: &Request, stream| {
        let document = match request.line.as_str() {
            "GET /health" => fixture("health.json"),
            "GET /api/v1/dwcp/status" => fixture("status.json"),
            "GET /api/v1/dwcp/stats" => fixture("stats.json"),
            "GET /api/v1/dwcp/peers" => fixture("peers.json"),
            "GET /api/v1/dwcp/tunnels" => fixture("tunnels.json"),
            "GET /api/v1/dwcp/flows" => fixture("flows.json"),
            "GET /api/v1/dwcp/kernel" => fixture("kernel.json"),
            "GET /api/v1/dwcp/debug/transport?mode=rdma" => fixture("transport.json"),
            "GET /api/v1/dwcp/debug/latency?peer=berlin" => fixture("latency.json"),
            "GET /api/v1/dwcp/transfers/7" => fixture("transfer.json"),
            "GET /api/v1/dwcp/transfers" | "GET /api/v1/dwcp/transfers?limit=50" => {
                let transfer = fixture("transfer.json");
                let schema = "\"schema\":\"dwcp.transfers/1\"";
                format!("{{{schema},\"transfers\":[{transfer}],\"next_cursor\":\"6\"}}")
            }
            other => panic!("nobody should ask for {other}"),
        };
        answer(stream, "200 OK", &document);
    })
}

#[test]
fn help_pages() {
    for (name, arguments) in [
        ("help.txt", &["--help"][..]),
        ("help-send.txt", &["send", "--help"]),
        ("help-fetch.txt", &["fetch", "--help"]),
        ("help-transfers.txt", &["transfers", "--help"]),
        ("help-status.txt", &["status", "--help"]),
        ("help-server.txt", &["server", "--help"]),
        ("help-doctor.txt", &["doctor", "--help"]),
        ("help-config.txt", &["config", "--help"]),
        ("help-tunnel.txt", &["tunnel", "--help"]),
    ] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert_golden(name, &ran.stdout);
    }
}

#[test]
fn documents_for_people() {
    let node = node();
    for (name, arguments) in [
        ("status.txt", &["status"][..]),
        ("top.txt", &["top", "-n", "1"]),
        ("stats.txt", &["stats"]),
        ("peers.txt", &["peers"]),
        ("flows.txt", &["flows"]),
        ("flows-all.txt", &["flows", "--all", "--class", "bulk"]),
        ("debug-ebpf.txt", &["debug", "ebpf"]),
        ("debug-rdma.txt", &["debug", "transport", "--mode=rdma"]),
        ("debug-latency.txt", &["debug", "latency", "--trace", "berlin"]),
        ("path.txt", &["path", "berlin"]),
        ("path-unknown.txt", &["path", "rome"]),
        ("transfers.txt", &["transfers"]),
        ("transfer.txt", &["transfers", "show", "7"]),
        ("tunnels.txt", &["tunnel", "list"]),
        ("identity.txt", &["identity"]),
        ("version.txt", &["version"]),
    ] {
        let ran = node.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(!ran.stdout.contains('\x1b'), "no colours and no escapes from elsewhere");
        assert_golden(name, &ran.stdout);
    }
}

#[test]
fn the_runbook_shows_what_is_printed() {
    let runbook = include_str!("../../docs/runbook.md");
    let [flows, programs] = [include_str!("golden/flows.txt"), include_str!("golden/debug-ebpf.txt")];
    let transport = [include_str!("golden/debug-rdma.txt"), include_str!("golden/debug-latency.txt")];
    for shown in [flows, programs].into_iter().chain(transport) {
        assert!(runbook.contains(shown), "docs/runbook.md shows something else than:\n{shown}");
    }
}

#[test]
fn status_names_the_mode_on_a_line_of_its_own() {
    let ran = node().run(&["status"]);
    assert!(ran.stdout.lines().any(|line| line.starts_with("Mode:")));
}

#[test]
fn documents_for_programs_name_their_type() {
    let node = node();
    for (arguments, schema) in [
        (&["status", "--json"][..], "dwcp.status/1"),
        (&["stats", "--json"], "dwcp.stats/1"),
        (&["peers", "--json"], "dwcp.peers/1"),
        (&["flows", "--json"], "dwcp.flows/1"),
        (&["debug", "ebpf", "--json"], "dwcp.kernel/1"),
        (&["debug", "transport", "--mode=rdma", "--json"], "dwcp.transport/1"),
        (&["debug", "latency", "berlin", "--json"], "dwcp.latency/1"),
        (&["path", "berlin", "--json"], "dwcp.peers/1"),
        (&["transfers", "--json"], "dwcp.transfers/1"),
        (&["transfers", "list", "--json"], "dwcp.transfers/1"),
        (&["transfers", "show", "7", "--json"], "dwcp.transfer/1"),
        (&["--json", "transfers", "show", "7"], "dwcp.transfer/1"),
        (&["transfers", "--json", "show", "7"], "dwcp.transfer/1"),
        (&["identity", "--json"], "dwcp.identity/1"),
        (&["version", "--json"], "dwcp.version/1"),
    ] {
        let ran = node.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["schema"], schema);
    }
}

#[test]
fn names_that_are_not_utf8_survive() {
    let ran = node().run(&["transfers", "show", "7", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["sources"][1]["base64"], "L3Nydi//");
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completion", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("transfers"));
    }
    let directory = tempfile::tempdir().unwrap();
    let ran = run(&["man", directory.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let page = std::fs::read_to_string(directory.path().join("dwcp-send.1")).unwrap();
    assert!(page.contains("skip"));
    assert!(!directory.path().join("dwcp-half.1").exists());
    assert_eq!(run(&["man", "/nonexistent"]).code, 1);
}
