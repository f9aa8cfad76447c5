//! Tunnels over HTTP: added for good or not at all, said to the dataplane with every plan, listed with what it says.
mod support;

use dwcp_abi::link::{Event, TunnelFigures, TunnelPeerFigures, TunnelState};
use support::dataplane::FakeDataplane;
use support::{Site, wait_for};

const TUNNELS: &str = "/api/v1/dwcp/tunnels";
const DATABASE: &str = r#"{"listen":"15432","peer":"paris","target":"127.0.0.1:5432"}"#;

fn figures<'a>(state: TunnelState, text: &'a [u8]) -> Event<'a> {
    Event::Tunnel(TunnelFigures {
        listen: b"127.0.0.1:15432",
        peer: b"paris",
        target: b"127.0.0.1:5432",
        state,
        open: 3,
        opened: 5,
        refused: 2,
        bytes_sent: 10,
        bytes_received: 20,
        text,
    })
}

#[test]
fn what_is_added_lasts_and_is_part_of_every_plan() {
    let site = Site::new();
    site.configure("tunnels: {listen: ['9000 paris:web:80']}\n");
    let mut control = site.start();
    let added = control.ask("POST", TUNNELS, DATABASE);
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["state"], "waiting", "there is no dataplane: {}", added.text());
    control.kill();
    drop(control);

    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    let control = site.start();
    let plan = dataplane.plans.recv().unwrap();
    assert_eq!(plan, ["paris", "127.0.0.1:9000 paris:web:80", "127.0.0.1:15432 paris:127.0.0.1:5432"]);
    dataplane.emit(0, &figures(TunnelState::Listening, b""));
    dataplane.emit(
        0,
        &Event::TunnelPeer(TunnelPeerFigures {
            peer: b"paris",
            lanes: 2,
            rtt_us: 50_000,
            accepted_open: 1,
            accepted: 7,
            refused: 4,
            bytes_sent: 1,
            bytes_received: 2,
            lanes_lost: 6,
        }),
    );
    let list = wait_for("the dataplane's word", || {
        let list = control.get(TUNNELS).json();
        (list["peers"][0]["lanes"] == 2).then_some(list)
    });
    let (database, web) = (&list["tunnels"][0], &list["tunnels"][1]);
    assert_eq!((&database["listen"], &database["origin"]), (&"127.0.0.1:15432".into(), &"operator".into()));
    assert_eq!((&database["state"], &database["connections"]), (&"listening".into(), &3.into()));
    assert_eq!((&web["state"], &web["origin"]), (&"waiting".into(), &"configuration".into()));
    let metrics = control.get("/metrics").text();
    for line in [
        r#"dwcp_tunnel_connections{listen="127.0.0.1:15432",peer="paris"} 3"#,
        r#"dwcp_tunnel_up{listen="127.0.0.1:9000",peer="paris"} 0"#,
        r#"dwcp_tunnel_peer_lanes_lost_total{peer="paris"} 6"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    let removed = control.ask("DELETE", &format!("{TUNNELS}?listen=15432"), "");
    assert_eq!(removed.status, 200, "{}", removed.text());
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris", "127.0.0.1:9000 paris:web:80"]);
    assert_eq!(control.ask("DELETE", &format!("{TUNNELS}?listen=15432"), "").status, 404);
    let configured = control.ask("DELETE", &format!("{TUNNELS}?listen=9000"), "");
    assert_eq!(configured.status, 409);
    assert!(configured.text().contains("tunnels.listen"), "{}", configured.text());
}

#[test]
fn an_address_that_is_taken_is_an_error_and_nothing_is_left_of_the_tunnel() {
    let site = Site::new();
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    let control = site.start();
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"]);
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| control.ask("POST", TUNNELS, DATABASE));
        assert_eq!(dataplane.plans.recv().unwrap().len(), 2);
        dataplane.emit(0, &figures(TunnelState::Failed, b"127.0.0.1:15432 is taken by another program"));
        asking.join().unwrap()
    });
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("127.0.0.1:15432 is taken"), "{}", answer.text());
    assert_eq!(dataplane.plans.recv().unwrap(), ["paris"]);
    assert_eq!(control.get(TUNNELS).json()["tunnels"], serde_json::json!([]));
}

#[test]
fn a_ping_says_how_long_it_took_or_why_there_is_none() {
    let site = Site::new();
    let control = site.start();
    let ping = |peer: &str| control.ask("POST", &format!("/api/v1/dwcp/peers/{peer}/ping"), "");
    assert_eq!(ping("pari").status, 404);
    assert_eq!(ping("paris").status, 503, "there is no dataplane");
    let mut dataplane = FakeDataplane::start(site.dataplane_socket(), 1, 1);
    dataplane.plans.recv().unwrap();
    let answer = std::thread::scope(|scope| {
        let asking = scope
            .spawn(|| wait_for("a dataplane", || Some(ping("paris")).filter(|answer| answer.status == 200)));
        while !asking.is_finished() {
            dataplane.answer_some();
        }
        asking.join().unwrap().json()
    });
    assert_eq!(
        (&answer["rtt_ns"], &answer["error"]),
        (&1_500_000.into(), &serde_json::Value::Null),
        "{answer}"
    );
}

#[test]
fn what_cannot_be_a_tunnel_is_refused_with_the_way_out() {
    let site = Site::new();
    site.configure("tunnels: {listen: ['9000 paris:web:80']}\n");
    let control = site.start();
    let request = |listen: &str, peer: &str, target: &str| {
        format!(r#"{{"listen":"{listen}","peer":"{peer}","target":"{target}"}}"#)
    };
    for (body, status, part) in [
        (request("80", "pari", "x:1"), 422, "paris"),
        (request("80", "paris", "x"), 422, "PEER:HOST:PORT"),
        (request("nowhere:80", "paris", "x:1"), 422, "expected a port"),
        (request("0.0.0.0:80", "paris", "x:1"), 422, "tunnels.listen_beyond_loopback"),
        (request("127.0.0.1:9000", "paris", "x:1"), 409, "tunnels.listen of the configuration"),
        (r#"{"listen":"80"}"#.to_owned(), 400, "missing field"),
        (r#"{"listen":"80","peer":"paris","target":"x:1","udp":true}"#.to_owned(), 400, "unknown field"),
    ] {
        let answer = control.ask("POST", TUNNELS, &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(part), "{body}: {}", answer.text());
    }
    assert_eq!(control.ask("DELETE", &format!("{TUNNELS}?listen=x"), "").status, 400);
    assert_eq!(control.ask("DELETE", TUNNELS, "").status, 400);
}
