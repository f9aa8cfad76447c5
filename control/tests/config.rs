//! The configuration over HTTP: set, judged, read again, and what survives a restart.
mod support;

use support::dataplane::FakeDataplane;
use support::{Site, wait_for};

const CONFIG: &str = "/api/v1/dwcp/config";

#[test]
fn what_is_set_counts_at_once_reaches_the_dataplane_and_lasts() {
    let site = Site::new();
    let dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    let mut control = site.start();
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"]);
    let before = control.get(CONFIG).json();
    let change = control.ask(
        "PATCH",
        CONFIG,
        r#"{"transport.max_streams": 512, "hde.level": "high", "api.listen": ":1"}"#,
    );
    assert_eq!(change.status, 200, "{}", change.text());
    let change = change.json();
    assert_eq!(change["applied"], serde_json::json!(["transport.max_streams", "compression.level"]));
    assert_eq!(change["restart_required"], serde_json::json!(["api.listen"]));
    assert_eq!(
        change["changes"][0],
        serde_json::json!({"key": "transport.max_streams", "from": "256", "to": "512"})
    );
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"], "no new plan came");
    let shown = control.get(&format!("{CONFIG}?origin=true")).json();
    assert_eq!(
        (&shown["config"]["transport.max_streams"], &shown["config"]["compression.level"]),
        (&512.into(), &9.into())
    );
    assert!(
        shown["origins"]["transport.max_streams"].as_str().unwrap().ends_with("overrides.yaml"),
        "{shown}"
    );
    assert_ne!(shown["hash"], before["hash"]);
    let section = control.get("/api/v1/dwcp/hde/config").json();
    assert_eq!(section["config"]["compression.level"], 9);
    assert!(section["config"].get("transport.max_streams").is_none(), "{section}");
    control.kill();
    drop(control);

    let control = site.start();
    assert_eq!(control.get(CONFIG).json()["config"]["transport.max_streams"], 512);
    let back = control.ask("PATCH", CONFIG, r#"{"transport.max_streams": null}"#).json();
    assert_eq!(back["changes"][0]["to"], "256", "{back}");
}

#[test]
fn a_wrong_change_changes_nothing_and_names_every_mistake() {
    let site = Site::new();
    let control = site.start();
    let before = control.get(CONFIG).json();
    for (body, status, part) in [
        (r#"{"transport.max_streams": 2, "mode": "fast"}"#, 422, "expected one of hybrid"),
        (r#"{"transport.max_strems": 20}"#, 422, "did you mean `transport.max_streams`?"),
        (r#"{"peers": "paris"}"#, 422, "unknown key"),
        (r#"{"transport": {"max_streams": 20}}"#, 400, "keys are given whole"),
        (r#"{"recovery.backoff": ["1s", ["2s"]]}"#, 400, "single values only"),
        ("{}", 400, "1 to 100 keys"),
        ("[]", 400, "not an object of keys"),
    ] {
        let answer = control.ask("PATCH", CONFIG, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(part), "{body}: {}", answer.text());
    }
    let two = control.ask("PATCH", CONFIG, r#"{"transport.max_streams": 0, "mode": "fast"}"#).json();
    assert_eq!(two["errors"].as_array().unwrap().len(), 2, "{two}");
    assert_eq!(two["type"], "urn:dwcp:problem:configuration");
    let stale = format!("{CONFIG}?dry_run=true");
    assert_eq!(control.ask("PATCH", &stale, r#"{"mode": "internet"}"#).json()["dry_run"], true);
    assert_eq!(control.get(CONFIG).json(), before);
    assert!(!site.path("state/overrides.yaml").exists());
}

#[test]
fn a_change_that_was_meant_for_another_configuration_is_refused() {
    let site = Site::new();
    let control = site.start();
    let hash = control.get(CONFIG).json()["hash"].as_str().unwrap().to_owned();
    let patch = |tag: &str, mode: &str| {
        let headers = ["host: localhost", &format!("if-match: \"{tag}\"")];
        control.ask_tcp("PATCH", CONFIG, &headers, &format!(r#"{{"mode": "{mode}"}}"#)).status
    };
    assert_eq!(patch(&hash, "internet"), 200);
    assert_eq!(patch(&hash, "datacenter"), 412);
    assert_eq!(control.get("/api/v1/dwcp/mode").json()["mode"], "internet");
    assert_eq!(control.ask("PUT", "/api/v1/dwcp/mode", r#"{"mode": "datacenter"}"#).status, 200);
    assert_eq!(control.get("/api/v1/dwcp/status").json()["mode"], "datacenter");
    assert_eq!(control.ask("PUT", "/api/v1/dwcp/mode", r#"{"mode": "fast"}"#).status, 400);
}

#[test]
fn files_are_judged_and_read_again_over_http() {
    let site = Site::new();
    let control = site.start();
    let judge = |text: &str| {
        let body = serde_json::json!({ "text": text }).to_string();
        control.ask("POST", "/api/v1/dwcp/config/validate", &body).json()
    };
    assert_eq!(judge("mode: internet\n")["valid"], true);
    let verdict = judge("mod: internet\n");
    assert_eq!(verdict["findings"][0], "config.yaml:1:1 mod: unknown key, did you mean `mode`?");
    site.configure("mode: internet\n");
    let diff = control.ask("POST", "/api/v1/dwcp/config/reload?dry_run=true", "").json();
    assert_eq!((&diff["dry_run"], &diff["changes"][0]["key"]), (&true.into(), &"mode".into()));
    assert_eq!(control.get("/api/v1/dwcp/mode").json()["mode"], "hybrid");
    assert_eq!(control.ask("POST", "/api/v1/dwcp/config/reload", "").status, 200);
    assert_eq!(control.get("/api/v1/dwcp/mode").json()["mode"], "internet");
    site.configure("mode: [\n");
    assert_eq!(control.ask("POST", "/api/v1/dwcp/config/reload", "").status, 422);
    assert!(control.get("/metrics").text().contains("\ndwcp_config_loaded 0\n"));
    assert_eq!(control.get("/api/v1/dwcp/mode").json()["mode"], "internet");
}

#[test]
fn the_switch_off_of_a_file_cannot_be_overridden() {
    let site = Site::new();
    site.configure("enabled: false\n");
    let control = site.start();
    let change = control.ask("PATCH", CONFIG, r#"{"enabled": true}"#).json();
    assert_eq!(change["changes"], serde_json::json!([]), "{change}");
    assert!(change["warnings"][0].as_str().unwrap().contains("stays false"), "{change}");
    assert_eq!(control.get("/api/v1/dwcp/status").json()["enabled"], false);
}

#[test]
fn damaged_overrides_keep_control_from_starting_and_are_named() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("state")).unwrap();
    std::fs::write(site.path("state/overrides.yaml"), "mode: [\n").unwrap();
    let output = site.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(78) && text.contains("overrides.yaml:"), "{text}");
}

#[test]
fn draining_refuses_and_undraining_takes_again() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    let control = site.start();
    let id = control.order();
    dataplane.next();
    assert_eq!(control.ask("POST", "/api/v1/dwcp/drain", "").json()["under_way"], 1);
    assert_eq!(control.ask("POST", "/api/v1/dwcp/transfers", support::ORDER).status, 503);
    let ready = control.get("/ready");
    assert!(ready.status == 503 && ready.text().contains("draining"), "{}", ready.text());
    dataplane.finish(id, 1, dwcp_abi::link::Outcome::Done);
    wait_for("drained", || (control.get("/api/v1/dwcp/drain").json()["drained"] == true).then_some(()));
    assert_eq!(control.get("/api/v1/dwcp/status").json()["drained"], true);
    assert_eq!(control.ask("DELETE", "/api/v1/dwcp/drain", "").json()["draining"], false);
    control.order();
}

#[test]
fn what_happened_can_be_read_and_waited_for() {
    let site = Site::new();
    let control = site.start();
    let events = control.get("/api/v1/dwcp/events").json();
    let last = events["events"].as_array().unwrap().last().unwrap()["number"].as_u64().unwrap();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            control.get(&format!("/api/v1/dwcp/events?after={last}&component=breaker&wait=20")).json()
        });
        control.ask("POST", "/circuit-breaker/reset", "");
        waiting.join().unwrap()
    });
    assert_eq!(waiting["events"][0]["message"], "circuit breaker reset by an operator", "{waiting}");
    assert!(!control.get("/api/v1/dwcp/logs?limit=5").json()["lines"].as_array().unwrap().is_empty());
    for query in ["limit=0", "limit=2000", "wait=0", "wait=99", "colour=red", "after=-1"] {
        assert_eq!(control.get(&format!("/api/v1/dwcp/events?{query}")).status, 400, "{query}");
    }
    let components = control.get("/api/v1/dwcp/components").json();
    let ids: Vec<&str> =
        components["components"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["amst", "hde", "pba", "ass", "acp", "itp"]);
}
