//! Four real controls that agree with each other over TLS: they begin, join, decide, lose members to `kill -9` and get
//! them back, change the protocol, and let one go. Each listens on a loopback address of its own.
mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Control, Site, wait_for};

const MEMBERS: &str = "/api/v1/dwcp/cluster/members";

struct Node {
    site: Site,
    control: Option<Control>,
}

impl Node {
    /// Addresses of 127.0.0.0/8 are all this host's: two bytes follow from the process, so that runs do not meet, and the
    /// last one counts.
    fn new(number: u8) -> Self {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let site = Site::new();
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let last = 1 + LAST.fetch_add(1, Ordering::Relaxed);
        site.configure(&format!(
            "node: {{name: node-{number}}}\nconsensus: {{listen: '127.{}.{low}.{last}:6000'}}\n",
            1 + high % 250
        ));
        let control = Some(site.start());
        Self { site, control }
    }

    fn control(&self) -> &Control {
        self.control.as_ref().expect("a running node")
    }

    fn kill(&mut self) {
        self.control = None;
    }

    fn start(&mut self) {
        self.control = Some(self.site.start());
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.control().ask(method, path, &body);
        (answer.status, answer.json())
    }

    fn put(&self, key: &str, value: &str) -> Option<u64> {
        let path = format!("/api/v1/dwcp/cluster/values/{key}");
        let (status, answer) = self.ask("PUT", &path, &json!({ "value": value }));
        (status == 200).then(|| answer["version"].as_u64()).flatten()
    }

    fn value(&self, key: &str) -> Option<String> {
        let (_, answer) = self.ask("GET", &format!("/api/v1/dwcp/cluster/values/{key}"), &Value::Null);
        answer["value"].as_str().map(str::to_owned)
    }

    fn consensus(&self) -> Value {
        self.ask("GET", "/api/v1/dwcp/consensus/cluster", &Value::Null).1
    }

    fn epoch(&self) -> u64 {
        self.consensus()["epoch"].as_u64().unwrap_or(0)
    }
}

fn cluster(count: u8) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=count).map(Node::new).collect();
    let (status, answer) = nodes[0].ask("POST", "/api/v1/dwcp/cluster", &json!({ "region": "here" }));
    assert_eq!(status, 201, "{answer}");
    for node in &nodes[1..] {
        let (status, token) = nodes[0].ask("POST", "/api/v1/dwcp/cluster/token", &Value::Null);
        assert_eq!(status, 201, "{token}");
        let request = json!({ "peer": token["peer"], "token": token["token"] });
        let (status, answer) = node.ask("POST", MEMBERS, &request);
        assert_eq!(status, 201, "{answer}");
        let (status, _) = node.ask("POST", MEMBERS, &request);
        assert_eq!(status, 409, "it is a member already");
    }
    nodes
}

#[test]
fn a_node_alone_needs_none_of_it() {
    let node = Node::new(1);
    let (status, problem) = node.ask("GET", MEMBERS, &Value::Null);
    assert_eq!(status, 404, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("dwcp cluster init"), "{problem}");
    let (status, problem) = node.ask("POST", MEMBERS, &json!({ "peer": "127.0.0.1:1", "token": "dwcp1-00" }));
    assert_eq!(status, 400, "{problem}");
    let token = format!("dwcp1-{}", "0".repeat(96));
    let (status, problem) = node.ask("POST", MEMBERS, &json!({ "peer": "127.0.0.1:1", "token": token }));
    assert_eq!(status, 503, "{problem}");
}

#[test]
fn four_nodes_go_on_deciding_while_one_is_killed_and_comes_back() {
    let mut nodes = cluster(4);
    let (_, list) = nodes[3].ask("GET", MEMBERS, &Value::Null);
    assert_eq!(list["members"].as_array().unwrap().len(), 4, "{list}");
    assert_eq!(list["epoch"], 3, "each admission began an epoch: {list}");

    // What one member was told is done, every other one reads.
    nodes[0].put("plan/a", "one").expect("decided");
    for node in &nodes {
        assert_eq!(node.value("plan/a").as_deref(), Some("one"));
    }

    for victim in [1_usize, 0, 3] {
        nodes[victim].kill();
        let speaker = (victim + 1) % 4;
        let begin = Instant::now();
        let key = format!("while/{victim}/gone");
        wait_for("a decision without one of four", || nodes[speaker].put(&key, "yes"));
        let took = begin.elapsed();
        println!("decided {took:?} after member {victim} was killed");
        assert!(took < Duration::from_secs(30), "{took:?}");
        for count in 0..10 {
            nodes[speaker].put(&format!("while/{victim}/{count}"), "more").expect("decided");
        }
        nodes[victim].start();
        let back = wait_for("the member to be back", || nodes[victim].value(&key));
        assert_eq!(back, "yes");
    }
    // One that is there and says nothing, as behind a link that is down.
    nodes[2].control().signal(Signal::SIGSTOP);
    wait_for("a decision past a silent member", || nodes[0].put("while/silent", "yes"));
    nodes[2].control().signal(Signal::SIGCONT);
    assert_eq!(wait_for("the silent member", || nodes[2].value("while/silent")), "yes");
    // All at once: what was acknowledged is there.
    let last = nodes[2].put("plan/b", "kept").expect("decided");
    nodes.iter_mut().for_each(Node::kill);
    nodes.iter_mut().for_each(Node::start);
    let value = wait_for("the cluster after a power failure", || nodes[1].value("plan/b"));
    assert_eq!(value, "kept");
    assert!(nodes[1].consensus()["position"].as_u64() >= Some(last));
}

#[test]
fn the_protocol_changes_and_a_member_goes_without_losing_anything() {
    let nodes = cluster(4);
    nodes[1].put("before", "pbft").expect("decided");
    let group = "/api/v1/dwcp/consensus/cluster";
    for (algorithm, epoch) in [("bullshark", 4), ("tpbft", 5), ("raft", 6), ("probft", 7), ("pbft", 8)] {
        let (status, answer) = nodes[2].ask("PUT", group, &json!({ "algorithm": algorithm }));
        assert_eq!(status, 200, "{answer}");
        for node in &nodes {
            wait_for("the epoch everywhere", || (node.epoch() >= epoch).then_some(()));
            assert_eq!(node.consensus()["algorithm"], algorithm);
        }
        nodes[0].put(algorithm, "said").expect("decided");
        assert_eq!(nodes[3].value("before").as_deref(), Some("pbft"));
    }
    for algorithm in ["bullshark", "tpbft", "raft", "probft", "pbft"] {
        assert_eq!(nodes[3].value(algorithm).as_deref(), Some("said"));
    }
    let (status, answer) = nodes[2].ask("DELETE", MEMBERS, &Value::Null);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(nodes[2].ask("GET", MEMBERS, &Value::Null).0, 404, "it is alone again");
    wait_for("the others to go on", || nodes[3].put("after", "three"));
    let (_, list) = nodes[0].ask("GET", MEMBERS, &Value::Null);
    assert_eq!(list["members"].as_array().unwrap().len(), 3, "{list}");
}

#[test]
fn the_same_request_is_applied_once() {
    let nodes = cluster(1);
    let control = nodes[0].control();
    let body = json!({ "value": "1" }).to_string();
    let put = |name: &str| {
        let headers = ["host: localhost", &format!("idempotency-key: {name}")];
        control.ask_tcp("PUT", "/api/v1/dwcp/cluster/values/once", &headers, &body).json()
    };
    let first = put("request-1");
    assert_eq!((&first["repeated"], first["version"].is_u64()), (&json!(false), true), "{first}");
    nodes[0].put("once", "2").expect("decided");
    let again = put("request-1");
    assert_eq!(again["repeated"], json!(true), "{again}");
    assert_eq!(nodes[0].value("once").as_deref(), Some("2"), "the repetition changed nothing");
    let expected = json!({ "value": "3", "expected_version": 0 });
    let (status, problem) = nodes[0].ask("PUT", "/api/v1/dwcp/cluster/values/once", &expected);
    assert_eq!(status, 409, "{problem}");
}

#[test]
fn strangers_and_used_tokens_get_nowhere() {
    let nodes = cluster(2);
    let (_, token) = nodes[0].ask("POST", "/api/v1/dwcp/cluster/token", &Value::Null);
    let peer = token["peer"].as_str().expect("an address").to_owned();
    // Noise, and connections that never say anything.
    let noise = vec![0xa5; 4096];
    let held: Vec<TcpStream> = (0..20)
        .filter_map(|number| {
            let mut stream = TcpStream::connect(&peer).ok()?;
            if number % 2 == 0 {
                // The other end may have closed already.
                let _ = stream.write_all(&noise);
            }
            Some(stream)
        })
        .collect();
    nodes[1].put("through/noise", "yes").expect("decided");
    drop(held);
    let stranger = Node::new(9);
    let request = json!({ "peer": peer, "token": token["token"] });
    let (status, answer) = stranger.ask("POST", MEMBERS, &request);
    assert_eq!(status, 201, "{answer}");
    let other = Node::new(10);
    let (status, problem) = other.ask("POST", MEMBERS, &request);
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap_or_default().contains("used"), "{problem}");
    // A token that names another member: whoever listens there is not the one that was meant.
    let text = token["token"].as_str().unwrap_or_default();
    let forged = format!("{}{}", &text[..text.len() - 2], if text.ends_with("00") { "01" } else { "00" });
    let (status, problem) = other.ask("POST", MEMBERS, &json!({ "peer": peer, "token": forged }));
    assert_eq!(status, 503, "{problem}");
    nodes[0].put("afterwards", "yes").expect("decided");
}
