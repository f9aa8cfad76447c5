//! Tokens: who gets one, what it opens, and what ends it.
mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::https::{ask, secure};
use support::{Control, ORDER, Site, wait_for};

const TOKEN: &str = "/api/v1/auth/token";
const TOKEN_KEYS: &str = "/api/v1/auth/token-keys";
const STATUS: &str = "/api/v1/dwcp/status";

fn order(role: &str) -> String {
    format!(r#"{{"name": "ci", "role": "{role}"}}"#)
}

fn token(control: &Control, role: &str) -> String {
    let answer = control.ask("POST", TOKEN, &order(role));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_opens_what_its_role_allows_until_the_keys_are_replaced() {
    let site = Site::new();
    let trusted = secure(&site, "");
    let mut control = site.start();
    let ask = |control: &Control, method: &str, path: &str, token: &str, body: &str| {
        ask(control, &trusted, method, path, token, body).unwrap()
    };
    let (read, operate) = (token(&control, "read"), token(&control, "operate"));
    assert_eq!(ask(&control, "GET", STATUS, &read, "").0, 200);
    assert_eq!(ask(&control, "POST", "/api/v1/dwcp/transfers", &read, ORDER).0, 403);
    assert_eq!(ask(&control, "POST", "/api/v1/dwcp/transfers", &operate, ORDER).0, 201);
    assert_eq!(ask(&control, "POST", TOKEN_KEYS, &operate, "").0, 403);
    let cut = &read[..read.len() - 1];
    let (code, _, body) = ask(&control, "GET", STATUS, cut, "");
    assert!(code == 401 && body.contains("the token does not count"), "{code} {body}");

    let audit = control.get("/api/v1/dwcp/audit").json();
    let who = |entry: &Value| entry["who"].as_str().unwrap_or("").to_owned();
    let ordered =
        audit["entries"].as_array().unwrap().iter().find(|entry| who(entry).starts_with("token ci "));
    assert!(ordered.is_some() && !audit.to_string().contains(&operate), "{audit}");

    control.kill();
    drop(control);
    let control = site.start();
    assert_eq!(ask(&control, "GET", STATUS, &read, "").0, 200, "a token did not survive the restart");
    assert_eq!(control.get(TOKEN_KEYS).json()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(control.ask("POST", TOKEN_KEYS, "").status, 200);
    let (code, _, body) = ask(&control, "GET", STATUS, &read, "");
    assert!(code == 401 && body.contains("signing key"), "{code} {body}");
    assert_eq!(ask(&control, "GET", STATUS, &token(&control, "read"), "").0, 200);
}

#[test]
fn nobody_gets_more_than_it_has_and_a_token_makes_none() {
    let site = Site::new();
    let trusted = secure(&site, "");
    let control = site.start();
    let made = control.ask("POST", "/api/v1/auth/keys", &order("operate")).json();
    let key = made["key"].as_str().unwrap();
    let from = |bearer: &str, role: &str| {
        let (code, _, body) = ask(&control, &trusted, "POST", TOKEN, bearer, &order(role)).unwrap();
        (code, body)
    };
    let (code, body) = from(key, "operate");
    assert_eq!(code, 201, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let token = answer["token"].as_str().unwrap();
    assert_eq!(from(key, "admin").0, 403);
    assert_eq!(from(token, "read").0, 403, "a token renewed itself");
    assert_eq!(from("", "read").0, 401);
    // Nor by way of the interface in clear, whatever it shows there.
    let header = format!("authorization: Bearer {token}");
    let page = ["host: localhost", "origin: http://evil.example", &header];
    assert_eq!(control.ask_tcp("GET", STATUS, &page, "").status, 403);
    for body in [
        r#"{"name": "", "role": "read"}"#,
        r#"{"name": "a\nb", "role": "read"}"#,
        r#"{"name": "a", "role": "king"}"#,
        r#"{"name": "a", "role": "read", "ttl_seconds": 0}"#,
        r#"{"name": "a", "role": "read", "ttl_seconds": 3601}"#,
        r#"{"name": "a", "role": "read", "ttl_seconds": -1}"#,
        r#"{"name": "a", "role": "read", "ttl_seconds": 1e99}"#,
        r#"{"name": "a", "role": "read", "sub": "root"}"#,
        "[]",
    ] {
        assert_eq!(control.ask("POST", TOKEN, body).status, 400, "{body}");
    }
}

#[test]
fn tokens_can_be_switched_off_while_control_runs_and_damaged_keys_are_said() {
    let site = Site::new();
    let trusted = secure(&site, "");
    let mut control = site.start();
    let text = token(&control, "read");
    let is_known = |control: &Control, text: &str| {
        ask(control, &trusted, "GET", STATUS, text, "").is_ok_and(|answer| answer.0 == 200)
    };
    assert!(is_known(&control, &text));
    let off = r#"{"security.authentication.mechanism": ["api_key"]}"#;
    let answer = control.ask("PATCH", "/api/v1/dwcp/config", off);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!is_known(&control, &text));
    let on = r#"{"security.authentication.mechanism": null}"#;
    assert_eq!(control.ask("PATCH", "/api/v1/dwcp/config", on).status, 200);
    assert!(is_known(&control, &text));
    control.signal(Signal::SIGTERM);
    control.child.wait().unwrap();
    drop(control);

    let file = site.path("state/token-keys.json");
    std::fs::write(&file, "{damaged").unwrap();
    let control = site.start();
    assert!(!is_known(&control, &text));
    let answer = control.ask("POST", TOKEN, &order("read"));
    assert!(answer.status == 503 && answer.text().contains("dwcp auth rotate"), "{}", answer.text());
    assert!(control.get(TOKEN_KEYS).json()["trouble"].is_string());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{damaged");
    assert_eq!(control.ask("POST", TOKEN_KEYS, "").status, 200);
    let text = token(&control, "read");
    wait_for("tokens to count again", || is_known(&control, &text).then_some(()));
}
