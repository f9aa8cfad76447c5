//! Every endpoint of the description, asked by strangers, with bodies that are none, and by many at once.
mod support;

use serde_json::Value;
use support::https::{ask, secure};
use support::{Control, Site};

/// Path and method of each, with numbers and names in place of parameters.
fn endpoints(control: &Control) -> Vec<(String, String, Value)> {
    let description = control.get("/openapi.json").json();
    let mut endpoints = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "7").replace("{group}", "cluster").replace("{name}", "paris");
        let path = path.replace("{key}", "a");
        assert!(!path.contains('{'), "{path}");
        for (method, operation) in methods.as_object().unwrap() {
            endpoints.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    assert!(endpoints.len() > 40, "{}", endpoints.len());
    endpoints
}

const PUBLIC: [&str; 5] = ["/health", "/ready", "/live", "/metrics", "/circuit-breaker/state"];

#[test]
fn strangers_get_nothing_but_probes() {
    let site = Site::new();
    let trusted = secure(&site, ", rate_limit: 0");
    let control = site.start();
    let token = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiIn0.e30.";
    for (method, path, _) in endpoints(&control) {
        let is_public = PUBLIC.contains(&path.as_str());
        for bearer in ["", token, "dwcp_000000000000_00"] {
            let (code, ..) = ask(&control, &trusted, &method, &path, bearer, "").unwrap();
            let fits = if is_public { [200, 503].contains(&code) } else { code == 401 };
            assert!(fits, "{method} {path} with {bearer:?}: {code}");
        }
        let page = ["host: evil.example", "origin: http://evil.example"];
        let answer = control.ask_tcp(&method, &path, &page, "");
        assert!(is_public || answer.status == 403, "{method} {path} from a page: {}", answer.status);
    }
    let audit = control.get("/api/v1/dwcp/audit").json();
    assert_eq!(audit["entries"], serde_json::json!([]), "strangers fill the audit log");
    assert_eq!(control.get("/api/v1/dwcp/drain").json()["draining"], false);
}

#[test]
fn bodies_that_are_none_are_refused_everywhere() {
    let site = Site::new();
    let control = site.start();
    let deep = "[".repeat(100_000);
    let wide = format!(r#"{{"a":"{}"}}"#, "x".repeat(2 << 20));
    let mut asked = 0;
    for (method, path, operation) in endpoints(&control) {
        if operation.get("requestBody").is_none() {
            continue;
        }
        asked += 1;
        for body in ["{", "[]", "null", "7", "\"\"", "\u{0}", "{}{}", &deep, &wide, r#"{"a":1e999999}"#] {
            let shown: String = body.chars().take(20).collect();
            let answer = control.ask(&method, &path, body);
            assert!(
                [400, 404, 413, 415, 422].contains(&answer.status),
                "{method} {path} {shown}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(answer.head.contains("application/problem+json"), "{method} {path}: {}", answer.head);
        }
        let headers = ["host: localhost", "content-type: text/plain"];
        let answer = control.ask_tcp(&method, &path, &headers, "");
        assert!([400, 404, 411, 415].contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    assert!(asked >= 10, "{asked}");
    assert_eq!(control.get("/live").status, 200);
}

#[test]
fn many_at_once_and_again_change_what_one_would() {
    let site = Site::new();
    let control = site.start();
    let status = |method: &str, path: &str, body: &str| control.ask(method, path, body).status;
    std::thread::scope(|scope| {
        for number in 0..24 {
            let status = &status;
            scope.spawn(move || {
                for _ in 0..6 {
                    let code = match number % 6 {
                        0 => status("POST", "/api/v1/dwcp/drain", ""),
                        1 => status("POST", "/circuit-breaker/reset", ""),
                        2 => status("PATCH", "/api/v1/dwcp/config", r#"{"transport.max_streams": 300}"#),
                        3 => status("POST", "/api/v1/auth/token", r#"{"name": "a", "role": "read"}"#),
                        4 => status("POST", "/api/v1/auth/token-keys", ""),
                        _ => status("GET", "/metrics", ""),
                    };
                    assert!([200, 201, 202].contains(&code), "{number}: {code}");
                }
            });
        }
    });
    assert_eq!(control.get("/api/v1/dwcp/drain").json()["draining"], true);
    assert_eq!(control.get("/api/v1/dwcp/config").json()["config"]["transport.max_streams"], 300);
    assert_eq!(control.get("/api/v1/auth/token-keys").json()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(status("DELETE", "/api/v1/dwcp/drain", ""), 200);
    assert_eq!(status("DELETE", "/api/v1/dwcp/drain", ""), 200);
}
