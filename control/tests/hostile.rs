//! Requests that no client of ours would send: mutated, repeated, too large, cut off. Whatever comes, the answer is an
//! error that HTTP has a number for, or a closed connection, and the next request is served.
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{ORDER, Site};

/// Seeded mutations of real requests; `DWCP_FUZZ_ROUNDS` makes it long.
#[test]
fn mutated_requests_are_answered_or_hung_up_on() {
    let site = Site::new();
    let control = site.start();
    let socket = site.path("run/control.sock");
    let requests = [
        request("POST", "/api/v1/dwcp/transfers", ORDER),
        request(
            "PATCH",
            "/api/v1/dwcp/config?dry_run=true",
            r#"{"transport.max_streams": 512, "recovery.backoff": ["1s"]}"#,
        ),
        request("GET", "/api/v1/dwcp/transfers?limit=5&state=done&cursor=7", ""),
        request("GET", "/api/v1/dwcp/events?after=1&limit=5&component=jobs", ""),
        request("DELETE", "/api/v1/dwcp/transfers/1", ""),
        request("POST", "/circuit-breaker/reset?peer=paris", ""),
    ];
    let rounds = std::env::var("DWCP_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600_u64);
    let (mut served, mut refused) = (0, 0);
    for seed in 0..rounds {
        let source = &requests[(seed % requests.len() as u64) as usize];
        let bytes = mutate(source, seed + 1);
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(&bytes);
        stream.shutdown(std::net::Shutdown::Write).unwrap_or(());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            continue;
        }
        let head = String::from_utf8_lossy(&answer[..answer.len().min(15)]).into_owned();
        let status: u16 = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            panic!("seed {seed}: no HTTP: {head:?} for {:?}", String::from_utf8_lossy(&bytes))
        });
        assert!(
            status != 500 && status != 504,
            "seed {seed}: {status} for {:?}",
            String::from_utf8_lossy(&bytes)
        );
        if status < 400 { served += 1 } else { refused += 1 }
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused: too weak or too strong");
    assert_eq!(control.get("/live").status, 200);
    assert_eq!(control.get("/api/v1/dwcp/config").json()["config"]["transport.max_streams"], 256);
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\nx-request-id: a-b\r\nidempotency-key: k{length}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn mutate(source: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let words = [
        "\r\n",
        "\0",
        "content-length: 99999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "{",
        "\"",
        "%00",
        "%",
        "[[[[",
        "18446744073709551616",
        "-1",
        "host: x\r\n",
        "\u{fffd}",
        "/../",
        "GET / HTTP/1.1\r\n\r\n",
        "null",
        "expect: 100-continue\r\n",
    ];
    let mut bytes = source.to_vec();
    for _ in 0..=next(3) {
        let at = next(bytes.len());
        let end = (at + next(24)).min(bytes.len());
        match next(5) {
            0 => bytes[at] ^= 1 << next(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let run = bytes[at..end].to_vec();
                bytes.splice(at..at, run);
            }
            3 => drop(bytes.splice(at..at, words[next(words.len())].bytes())),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

#[test]
fn a_repeated_order_with_the_same_key_is_given_once() {
    let site = Site::new();
    let mut control = site.start();
    let order = |control: &support::Control, key: &str, body: &str| {
        let headers = ["host: localhost", &format!("idempotency-key: {key}")];
        control.ask_tcp("POST", "/api/v1/dwcp/transfers", &headers, body)
    };
    let first = order(&control, "night-1", ORDER);
    assert_eq!(first.status, 201, "{}", first.text());
    let again = order(&control, "night-1", ORDER);
    assert_eq!((again.status, &again.json()["id"]), (201, &first.json()["id"]));
    assert_eq!(again.header("idempotent-replayed").as_deref(), Some("true"));
    let other = order(&control, "night-1", &ORDER.replace("in/x", "in/y"));
    assert_eq!((other.status, other.json()["type"].as_str()), (409, Some("urn:dwcp:problem:conflict")));
    assert_ne!(order(&control, "night-2", ORDER).json()["id"], first.json()["id"]);
    for key in ["", "a b", &"x".repeat(65)] {
        assert_eq!(order(&control, key, ORDER).status, 400, "{key:?}");
    }
    control.kill();
    drop(control);
    let control = site.start();
    assert_eq!(order(&control, "night-1", ORDER).json()["id"], first.json()["id"], "the key did not survive");
    let path = format!("/api/v1/dwcp/transfers/{}", first.json()["id"]);
    assert_eq!(control.ask("DELETE", &path, "").status, 202);
    control.wait_for_state(first.json()["id"].as_u64().unwrap(), "cancelled");
    assert_eq!(
        order(&control, "night-1", ORDER).json()["id"],
        first.json()["id"],
        "the key ended with the transfer"
    );
}

#[test]
fn orders_at_the_same_moment_with_the_same_key_make_one_transfer() {
    let site = Site::new();
    let control = site.start();
    let ids: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let order = || {
            let headers = ["host: localhost", "idempotency-key: once"];
            let answer = control.ask_tcp("POST", "/api/v1/dwcp/transfers", &headers, ORDER);
            assert!([201, 409].contains(&answer.status), "{}", answer.text());
            (answer.status == 201).then(|| answer.json()["id"].to_string())
        };
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(order)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn the_description_names_what_is_served() {
    let site = Site::new();
    let control = site.start();
    let description = control.get("/openapi.json").json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{description}");
    for (path, methods) in description["paths"].as_object().unwrap() {
        let gettable = methods.get("get").is_some();
        if path.contains('{') || !gettable {
            continue;
        }
        // The one that needs to be told what about.
        let query = if path.ends_with("/debug/transport") { "?mode=rdma" } else { "" };
        let answer = control.get(&format!("{path}{query}"));
        // A node that is in no cluster says so.
        let is_alone = answer.status == 404 && answer.json()["title"] == "No cluster";
        assert!(is_alone || [200, 503].contains(&answer.status), "{path}: {}", answer.status);
    }
}
