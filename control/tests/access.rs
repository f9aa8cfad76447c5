//! Access from other hosts: TLS 1.3, API keys, roles, rates, and the audit log of what was done.
mod support;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use support::https::{ask, certify, secure};
use support::{Control, ORDER, Site, wait_for};

const KEYS: &str = "/api/v1/auth/keys";

fn key(control: &Control, role: &str) -> (String, String) {
    let answer = control.ask("POST", KEYS, &format!(r#"{{"name": "a test", "role": "{role}"}}"#));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

#[test]
fn keys_open_what_their_role_allows_and_nothing_else() {
    let site = Site::new();
    let trusted = secure(&site, "");
    let mut control = site.start();
    let status = |control: &Control, method: &str, path: &str, key: &str, body: &str| {
        ask(control, &trusted, method, path, key, body).unwrap().0
    };
    let (read_id, read) = key(&control, "read");
    let (_, operate) = key(&control, "operate");
    let (_, admin) = key(&control, "admin");
    let own = "/api/v1/dwcp/status";
    assert_eq!(status(&control, "GET", "/live", "", ""), 200, "probes are open to everybody");
    let (code, head, body) = ask(&control, &trusted, "GET", own, "", "").unwrap();
    assert!(code == 401 && head.contains("www-authenticate: bearer"), "{code} {head}");
    assert!(body.contains("urn:dwcp:problem:unauthenticated"), "{body}");
    assert_eq!(status(&control, "GET", own, &read.replace("dwcp_", "dwcp_0"), ""), 401);
    assert_eq!(status(&control, "GET", own, &read, ""), 200);
    assert_eq!(status(&control, "POST", "/api/v1/dwcp/transfers", &read, ORDER), 403);
    assert_eq!(status(&control, "POST", "/api/v1/dwcp/transfers", &operate, ORDER), 201);
    assert_eq!(status(&control, "PATCH", "/api/v1/dwcp/config", &operate, r#"{"mode": "internet"}"#), 403);
    assert_eq!(status(&control, "PATCH", "/api/v1/dwcp/config", &admin, r#"{"mode": "internet"}"#), 200);
    assert_eq!(status(&control, "GET", KEYS, &operate, ""), 403);
    let listed = control.get(KEYS);
    assert!(!listed.text().contains(&read) && listed.json()["keys"].as_array().unwrap().len() == 3);

    let audit = control.get("/api/v1/dwcp/audit").json();
    let newest = &audit["entries"][1];
    assert_eq!(
        (&newest["method"], &newest["status"], &newest["role"]),
        (&"PATCH".into(), &403.into(), &"operate".into()),
        "{audit}"
    );
    assert!(
        audit["entries"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["who"] == format!("uid {}", nix::unistd::geteuid()))
    );
    control.kill();
    drop(control);

    let control = site.start();
    assert_eq!(status(&control, "GET", own, &read, ""), 200, "a key did not survive the restart");
    assert_eq!(control.ask("DELETE", &format!("{KEYS}/{read_id}"), "").status, 200);
    assert_eq!(control.ask("DELETE", &format!("{KEYS}/{read_id}"), "").status, 404);
    assert_eq!(status(&control, "GET", own, &read, ""), 401);
    for body in [
        r#"{"name": "", "role": "read"}"#,
        r#"{"name": "a", "role": "king"}"#,
        r#"{"name": "a", "role": "read", "ttl_seconds": 0}"#,
    ] {
        assert_eq!(control.ask("POST", KEYS, body).status, 400, "{body}");
    }
    let database = std::fs::read(site.path("state/control.db")).unwrap();
    let secret = operate.rsplit('_').next().unwrap().as_bytes();
    assert!(
        !database.windows(secret.len()).any(|window| window == secret),
        "the key itself lies in the store"
    );
}

#[test]
fn who_asks_too_often_is_told_when_again() {
    let site = Site::new();
    let trusted = secure(&site, ", rate_limit: 5");
    let control = site.start();
    let (_, text) = key(&control, "read");
    let own = |key: &str| ask(&control, &trusted, "GET", "/api/v1/dwcp/status", key, "").unwrap();
    let codes: Vec<u16> = (0..6).map(|_| own(&text).0).collect();
    assert_eq!(codes, [200, 200, 200, 200, 200, 429]);
    let (_, head, body) = own(&text);
    assert!(head.contains("retry-after: ") && body.contains("urn:dwcp:problem:rate-limited"), "{head}");
    // Guessing keys is counted by address, probes and the node itself are not counted.
    let guesses: Vec<u16> = (0..6).map(|_| own("dwcp_0011_22").0).collect();
    assert_eq!(guesses, [401, 401, 401, 401, 401, 429]);
    for _ in 0..20 {
        assert_ne!(ask(&control, &trusted, "GET", "/health", "", "").unwrap().0, 429);
        assert_eq!(control.get("/api/v1/dwcp/status").status, 200);
    }
    assert!(!control.get("/metrics").text().contains("\ndwcp_http_rate_limited_total 0\n"));
}

#[test]
fn a_new_certificate_is_used_without_a_restart_and_a_wrong_one_is_not() {
    let site = Site::new();
    let first = secure(&site, "");
    let control = site.start();
    let is_served = |trusted: &CertificateDer<'static>| {
        ask(&control, trusted, "GET", "/live", "", "").is_ok_and(|answer| answer.0 == 200)
    };
    assert!(is_served(&first));
    assert!(
        control
            .get("/metrics")
            .text()
            .contains("\ndwcp_tls_certificate_expiry_timestamp_seconds{cert=\"server\"} ")
    );
    std::fs::write(site.path("server.crt"), "no certificate").unwrap();
    wait_for("the wrong certificate to be noticed", || {
        let errors = control.get("/health?verbose=true").json();
        let found =
            errors["recent_errors"].as_array()?.iter().any(|error: &Value| error["type"] == "certificate");
        found.then_some(())
    });
    assert!(is_served(&first));
    let second = certify(&site);
    wait_for("the new certificate", || is_served(&second).then_some(()));
    assert!(!is_served(&first));
}

#[test]
fn a_wrong_certificate_keeps_control_from_starting_and_is_named() {
    let site = Site::new();
    secure(&site, "");
    std::fs::write(site.path("server.key"), "no key").unwrap();
    let output = site.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("server.key holds no usable PEM"), "{text}");
}
