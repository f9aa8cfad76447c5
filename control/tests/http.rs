//! The HTTP interface as strangers, scripts and web pages meet it.
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use dwcp_abi::link::Outcome;
use support::dataplane::{FakeDataplane, Said};
use support::{ORDER, Site, wait_for};

const TRANSFERS: &str = "/api/v1/dwcp/transfers";

fn filtered(filters: &str) -> String {
    ORDER.replace(r#""direction""#, &format!(r#""options":{{"filters":[{filters}]}},"direction""#))
}

fn exclude(bytes: usize) -> String {
    format!(r#"{{"exclude":"{}"}}"#, "x".repeat(bytes))
}

#[test]
fn every_error_is_a_problem_that_names_the_way_out() {
    let site = Site::new();
    let control = site.start();
    let cases = [
        ("GET", "/helth", "", 404, "urn:dwcp:problem:unknown-endpoint"),
        ("PUT", "/health", "", 405, "urn:dwcp:problem:unknown-endpoint"),
        ("GET", "/api/v1/dwcp/transfers/77", "", 404, "urn:dwcp:problem:unknown-transfer"),
        ("GET", "/api/v1/dwcp/transfers/../x", "", 404, "urn:dwcp:problem:unknown-endpoint"),
        ("GET", "/api/v1/dwcp/transfers?limit=0", "", 400, "urn:dwcp:problem:invalid-request"),
        ("GET", "/api/v1/dwcp/transfers?colour=red", "", 400, "urn:dwcp:problem:invalid-request"),
        ("POST", TRANSFERS, "{", 400, "urn:dwcp:problem:invalid-request"),
        ("POST", TRANSFERS, r#"{"direction":"send"}"#, 400, "urn:dwcp:problem:invalid-request"),
        ("POST", TRANSFERS, &ORDER.replace("/srv/a", "srv/a"), 422, "urn:dwcp:problem:invalid-request"),
        (
            "POST",
            TRANSFERS,
            &ORDER.replace(r#""/srv/a","/srv/b""#, ""),
            422,
            "urn:dwcp:problem:invalid-request",
        ),
        ("POST", TRANSFERS, &ORDER.replace("paris", "pariss"), 422, "urn:dwcp:problem:unknown-peer"),
        ("POST", TRANSFERS, &filtered(r#"{"exclude":""}"#), 400, "urn:dwcp:problem:invalid-request"),
        ("POST", TRANSFERS, &filtered(r#"{"include":"x[y"}"#), 400, "urn:dwcp:problem:invalid-request"),
        ("POST", TRANSFERS, &filtered(&exclude(1024)), 400, "urn:dwcp:problem:invalid-request"),
        (
            "POST",
            TRANSFERS,
            &filtered(&vec![exclude(1); 257].join(",")),
            422,
            "urn:dwcp:problem:invalid-request",
        ),
        (
            "POST",
            TRANSFERS,
            &ORDER.replace("/srv/a", &"/x".repeat(5000)),
            400,
            "urn:dwcp:problem:invalid-request",
        ),
    ];
    for (method, path, body, status, kind) in cases {
        let answer = control.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path} {body:.80}: {}", answer.text());
        assert_eq!(answer.header("content-type").unwrap(), "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["type"], kind, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id").as_deref());
    }
    assert_eq!(control.ask("GET", "/helth", "").json()["nearest"], "/health");
    assert_eq!(control.ask("POST", TRANSFERS, &ORDER.replace("paris", "pariss")).json()["nearest"], "paris");
    let large = format!("{{\"peer\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(control.ask("POST", TRANSFERS, &large).status, 413);
    let long: Vec<String> = (0..10).map(|n| format!("\"/{n}{}\"", "x".repeat(4000))).collect();
    let sources = ORDER.replace(r#""/srv/a","/srv/b""#, &long.join(","));
    assert_eq!(control.ask("POST", TRANSFERS, &sources).status, 422);
}

#[test]
fn web_pages_and_strangers_are_kept_out() {
    let site = Site::new();
    let control = site.start();
    let status = "/api/v1/dwcp/status";
    let ask = |headers: &[&str]| control.ask_tcp("GET", status, headers, "").status;
    assert_eq!(ask(&["host: localhost:8080"]), 200);
    assert_eq!(ask(&["host: evil.example"]), 403);
    assert_eq!(ask(&["host: localhost", "origin: https://evil.example"]), 403);
    assert_eq!(ask(&["host: localhost", "sec-fetch-site: cross-site"]), 403);
    assert_eq!(control.ask_tcp("POST", TRANSFERS, &["host: evil.example"], ORDER).status, 403);
    assert_eq!(control.ask_tcp("POST", "/circuit-breaker/reset", &["host: evil.example"], "").status, 403);
    for public in ["/health", "/live", "/metrics", "/circuit-breaker/state"] {
        assert_eq!(control.ask_tcp("GET", public, &["host: evil.example"], "").status, 200, "{public}");
    }
    let form = control.ask_tcp("POST", TRANSFERS, &["host: localhost", "content-type: text/plain"], "");
    assert_eq!(form.status, 415);

    site.configure("security: {trust_loopback: false}\n");
    let strict = Site::new();
    strict.configure("security: {trust_loopback: false}\n");
    let control = strict.start();
    assert_eq!(control.ask_tcp("GET", status, &["host: localhost"], "").status, 403);
    assert_eq!(control.get(status).status, 200);
}

/// A node that notices and gives up within moments.
const HASTY: &str = "recovery: {max_retries: 2, backoff: [100ms]}\ncircuit_breaker: {failure_threshold: 3}\n";

#[test]
fn health_never_changes_its_length() {
    let site = Site::new();
    site.configure_with("health_check_interval: 1s", HASTY);
    let control = site.start();
    let length = control.get("/health").body.len();
    assert_eq!(length % 512, 0);
    let dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 2);
    let until = |what: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        wait_for(what, || {
            let answer = control.get("/health");
            assert_eq!(answer.body.len(), length);
            Some(answer.json()).filter(wanted)
        })
    };
    let healthy = until("healthy", &|health| health["status"] == "healthy");
    assert_eq!(healthy["components"]["transport"], "healthy");
    assert_eq!(healthy["components"]["amst_transport"]["status"], "healthy");
    assert_eq!(healthy["circuit_breaker"], "closed");
    assert_eq!(control.get("/ready").status, 200);
    let verbose = control.get("/health?verbose=true").json();
    let parts: Vec<&str> =
        verbose["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    assert_eq!(parts, ["store", "dataplane", "worker 0", "worker 1"]);
    drop(dataplane);
    let unhealthy = until("unhealthy", &|health| health["status"] == "unhealthy");
    assert!(unhealthy["error"].as_str().unwrap().contains("dataplane"), "{unhealthy}");
    assert_eq!(control.get("/health").status, 503);
    assert_eq!(control.get("/live").status, 200);
    let verbose = control.get("/health?verbose=true").json();
    assert!(!verbose["recent_errors"].as_array().unwrap().is_empty(), "{verbose}");
    assert!(verbose["performance"]["cpu_percent"].as_f64().unwrap() >= 0.0, "{verbose}");
}

#[test]
fn an_open_breaker_holds_transfers_back_and_fails_none() {
    let site = Site::new();
    site.configure_with("health_check_interval: 1s", HASTY);
    let control = site.start();
    let dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    wait_for("ready", || (control.get("/ready").status == 200).then_some(()));
    drop(dataplane);
    wait_for("the breaker to open", || {
        (control.get("/circuit-breaker/state").json() == "open").then_some(())
    });
    let id = control.order();
    let breakers = control.get("/api/v1/dwcp/circuit-breakers").json();
    assert_eq!(
        (&breakers["node"]["state"], &breakers["peers"][0]["peer"]),
        (&"open".into(), &"paris".into())
    );
    assert!(breakers["node"]["probes_in_seconds"].as_u64().unwrap() <= 30, "{breakers}");
    assert_eq!(control.ask("POST", "/circuit-breaker/reset?peer=rome", "").status, 404);
    assert_eq!(control.ask("GET", "/circuit-breaker/reset", "").status, 405);
    let reset = control.ask("POST", "/circuit-breaker/reset", "").json();
    assert_eq!((&reset["previous"], &reset["state"]), (&"open".into(), &"closed".into()));
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 2, 1);
    assert_eq!(dataplane.next(), Said::Start { job: id, attempt: 1, peer: "paris".into() });
    dataplane.finish(id, 1, Outcome::Done);
    control.wait_for_state(id, "done");
    let metrics = control.get("/metrics").text();
    assert!(metrics.contains("\ndwcp_peer_circuit_breaker_state{peer=\"paris\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("\ndwcp_manager_recovery_attempts_total 0\n"), "{metrics}");
}

#[test]
fn documents_and_metrics_show_the_dataplane() {
    let site = Site::new();
    let control = site.start();
    let _dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 2);
    let metrics = wait_for("cores in the metrics", || {
        Some(control.get("/metrics").text())
            .filter(|text| text.contains("dwcp_dataplane_core_streams{core=\"1\"} 5"))
    });
    assert!(metrics.contains("\ndwcp_amst_active_streams 10\n"), "{metrics}");
    assert!(metrics.contains("dwcp_amst_send_latency_seconds_bucket{le=\"0.000071\"}"), "{metrics}");
    assert!(metrics.contains("dwcp_http_requests_total{route=\"/metrics\",method=\"GET\",code=\"200\"}"));
    let status = control.get("/api/v1/dwcp/status").json();
    assert_eq!((status["schema"].as_str(), status["streams"].as_u64()), (Some("dwcp.status/1"), Some(10)));
    assert_eq!(status["fingerprint"], format!("sha256:{}", "07".repeat(32)));
    assert_eq!(status["cores"].as_array().unwrap().len(), 2);
    assert_eq!(control.get("/api/v1/dwcp/stats").json()["cores"][0]["counters"]["lanes"], 5);
    assert_eq!(control.get("/api/v1/dwcp/peers").json()["peers"][0]["name"], "paris");
    assert_eq!(control.get("/api/v1/dwcp/config").json()["config"]["transport.max_streams"], 256);
    assert!(control.get("/").text().contains("/api/v1/dwcp/status"));
    assert_eq!(control.get("/version").json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_transfer_can_be_followed_to_its_end() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    let control = site.start();
    let id = control.order();
    assert!(matches!(dataplane.next(), Said::Start { .. }));
    let mut stream = UnixStream::connect(site.path("run/control.sock")).unwrap();
    write!(stream, "GET {TRANSFERS}/{id}/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line == "event: progress"));
    dataplane.progress(id, 1, 50);
    assert!(lines.by_ref().any(|line| line.contains("\"bytes_done\":50")));
    dataplane.finish(id, 1, Outcome::Partial);
    assert!(lines.by_ref().any(|line| line == "event: finished"));
    let last = lines.by_ref().find(|line| line.starts_with("data: ")).unwrap();
    assert!(last.contains("\"state\":\"partial\""), "{last}");
    assert_eq!(control.get(&format!("{TRANSFERS}/{}/events", id + 1)).status, 404);
}

#[test]
fn starting_says_what_is_wrong() {
    let site = Site::new();
    site.configure("transport: {min_stream: 3}\n");
    let output = site.command().arg("--validate").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(
            "dwcp.yaml:3:13 transport.min_stream: unknown key, did you mean `transport.min_streams`?"
        ),
        "{text}"
    );
    site.configure("");
    assert!(site.command().arg("--validate").status().unwrap().success());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let control = site.start_with(&["--listen", &address]);
    let error = control.get("/health?verbose=true").json()["recent_errors"][0].clone();
    assert!(error["type"] == "listener" && error["message"].as_str().unwrap().contains(&address), "{error}");
    drop(control);

    site.configure(&format!("monitoring: {{metrics_port: {}}}\n", taken.local_addr().unwrap().port()));
    let config = std::fs::read_to_string(site.path("dwcp.yaml")).unwrap().replacen(
        "monitoring: {metrics_port: 0, log_level: info}\n",
        "",
        1,
    );
    std::fs::write(site.path("dwcp.yaml"), config).unwrap();
    let mut control = site.start();
    assert!(control.get("/metrics").text().contains("dwcp_metrics_listener_up{port="));

    let second = site.command().stdout(Stdio::null()).output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(1) && text.contains("another dwcp-control"), "{text}");
    control.kill();
    drop(control);

    std::fs::write(site.path("state/control.db"), b"this is no database, whatever its name says").unwrap();
    for name in ["state/control.db-wal", "state/control.db-shm"] {
        let _ = std::fs::remove_file(site.path(name));
    }
    let broken = site.command().output().unwrap();
    let text = String::from_utf8(broken.stderr).unwrap();
    assert!(broken.status.code() == Some(1) && text.contains("control.db") && text.contains("mv "), "{text}");
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let site = Site::new();
    let mut control = site.start();
    control.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(control.child.wait().unwrap().success());
    assert!(!site.path("run/control.sock").exists());
}
