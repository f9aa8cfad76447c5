//! What the loader says about wrong files, word for word, and that the shipped texts are true.
use std::path::{Path, PathBuf};

use dwcp_config::{
    Changes, Config, ExportPeers, Overrides, Workers, load, load_with, locate, parse, reference,
};

fn findings(text: &str) -> Vec<String> {
    match parse(text, "f.yaml") {
        Ok(_) => Vec::new(),
        Err(findings) => findings.0.iter().map(ToString::to_string).collect(),
    }
}

const IDENTITY: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn all_findings_are_reported_with_place_and_way_out() {
    let text = "\
enabled: yes
transprot:
  min_streams: 4
transport:
  min_stream: 4
  connect_timeout: 5 parsecs
  congestion_algorithm: cubik
  max_streams: 4000
min_streams: 3
compression: fast
";
    let expected = [
        "f.yaml:1:10 enabled: expected true or false, found `yes`",
        "f.yaml:2:1 transprot: unknown key, did you mean `transport`?",
        "f.yaml:5:3 transport.min_stream: unknown key, did you mean `transport.min_streams`?",
        "f.yaml:6:20 transport.connect_timeout: expected a duration such as 150ms, 30s, 5m or 1h30m, found `5 parsecs`",
        "f.yaml:7:25 transport.congestion_algorithm: expected one of auto, bbr, cubic, reno, host (did you mean `cubic`?), found `cubik`",
        "f.yaml:8:16 transport.max_streams: must be from 1 to 1024, found 4000",
        "f.yaml:9:1 min_streams: unknown key, did you mean `transport.min_streams`?",
        "f.yaml:10:14 compression: is a section: its keys stand below it, indented",
    ];
    assert_eq!(findings(text), expected);
}

#[test]
fn tunnels_are_checked_against_peers_and_each_other() {
    let text = format!(
        "\
peers: [{{name: paris, identity: '{IDENTITY}'}}]
tunnels:
  listen:
    - 5432 paris:127.0.0.1:5432
    - 127.0.0.1:5432 pari:db:1
    - 0.0.0.0:80 paris:web:80
  allow: ['*:127.0.0.1:22', 'rome:*:*']
"
    );
    let expected = [
        "f.yaml:3:3 tunnels.listen: two tunnels listen at 127.0.0.1:5432",
        "f.yaml:3:3 tunnels.listen: 0.0.0.0:80 is reached by other hosts: that needs tunnels.listen_beyond_loopback: true",
        "f.yaml:3:3 tunnels.listen: `pari` is not in `peers:`, did you mean `paris`?",
        "f.yaml:7:3 tunnels.allow: `rome` is not in `peers:`",
    ];
    assert_eq!(findings(&text), expected);
    assert_eq!(
        findings("tunnels: {listen: ['80'], allow: [a b]}"),
        [
            "f.yaml:1:20 tunnels.listen: expected LISTEN PEER:HOST:PORT such as `127.0.0.1:15432 paris:127.0.0.1:5432`, found `80`",
            "f.yaml:1:35 tunnels.allow: expected PEER:HOST:PORT such as `paris:127.0.0.1:5432`; `*` stands for all, 8000-8099 for a range of ports, found `a b`",
        ]
    );
}

#[test]
fn rules_between_keys_are_checked() {
    let text = format!(
        "\
transport: {{min_streams: 64, initial_streams: 32}}
peers:
  - {{name: paris, identity: '{IDENTITY}', address: 'paris'}}
  - {{name: paris, identity: '{IDENTITY}'}}
  - {{name: berlin}}
  - {{name: tokyo, identity: abc, adress: 'x:1'}}
exports:
  - {{name: in, path: relative, peers: [pari]}}
  - {{name: in, path: /srv/out, access: everything}}
  - {{name: a/b, path: /x}}
"
    );
    let expected = [
        "f.yaml:5:5 peers[2].identity: is missing",
        "f.yaml:6:29 peers[3].identity: expected sha256: and 64 hexadecimal digits (`dwcp status` on the peer shows them), found `abc`",
        "f.yaml:6:34 peers[3].adress: unknown key, did you mean `address`?",
        "f.yaml:9:40 exports[1].access: expected one of read, write, read-write, found `everything`",
        "f.yaml:1:30 transport.initial_streams: is 32, not between min_streams (64) and max_streams (256)",
        "f.yaml:4:12 peers[1].name: `paris` is also the name of peers[0]",
        "f.yaml:9:12 exports[1].name: `in` is also the name of exports[0]",
        "f.yaml:10:12 exports[2].name: `a/b` is no name: letters, digits, `.`, `_`, `-`, not first a dot or dash, at most 64",
        "f.yaml:4:29 peers[1].identity: is also the identity of peers[0] `paris`",
        "f.yaml:3:113 peers[0].address: expected host:port such as paris.example.net:9000 or [2001:db8::1]:9000, found `paris`",
        "f.yaml:8:22 exports[0].path: must be absolute, found `relative`",
        "f.yaml:8:39 exports[0].peers: `pari` is not in `peers:`, did you mean `paris`?",
    ];
    assert_eq!(findings(&text), expected);
}

#[test]
fn syntax_errors_name_their_place() {
    let found = findings("a: [1, 2\nb: }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("f.yaml:2:"), "{found:?}");
    assert_eq!(findings("- a\n"), ["f.yaml:1:1: expected `key: value` lines"]);
}

#[test]
fn hostile_files_are_bounded() {
    let many = "x: 1\n".to_owned() + &(0..5000).map(|n| format!("k{n}: 1\n")).collect::<String>();
    assert_eq!(findings(&many).len(), 200);
    assert!(findings(&"[".repeat(100_000)).len() == 1);
    assert!(findings(&format!("peers: [{}]", "{name: a},".repeat(300)))[0].contains("more than 256"));
    assert!(findings("dataplane: {cores: 0-65535}")[0].contains("expected auto or cores"));
}

#[test]
fn the_wrapper_and_other_spellings_are_read() {
    let text = format!(
        "\
dwcp:
  version: 2.0
  transport: {{send_buffer_size: 16777216, pacing_rate: 10Gbps}}
  dataplane: {{workers: 3, cores: [1, 2, 5]}}
  recovery: {{backoff: [1s, 500ms]}}
  peers: [{{name: paris, identity: '{IDENTITY}'}}]
  exports: [{{name: in, path: /srv/in, peers: all}}, {{name: out, path: /srv/out, peers: [paris]}}]
"
    );
    let config = parse(&text, "f.yaml").expect("valid");
    assert_eq!(config.version, "2.0");
    assert_eq!(config.transport.send_buffer_size.0, 16 << 20);
    assert_eq!(config.transport.pacing_rate.bytes_per_s(), 1_250_000_000);
    assert_eq!(config.dataplane.workers, Workers::Count(3));
    assert_eq!(config.recovery.backoff.len(), 2);
    assert_eq!(config.peers[0].identity.to_string(), IDENTITY);
    assert_eq!(config.exports[0].peers, ExportPeers::All);
    assert_eq!(config.exports[1].peers, ExportPeers::Only(vec!["paris".into()]));
}

#[test]
fn overlays_lie_over_their_base_and_the_environment_over_both() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("dwcp.yaml"), "mode: datacenter\ntransport: {max_streams: 512}\n").unwrap();
    std::fs::write(at("dwcp.staging.yaml"), "dwcp:\n  mode: internet\n").unwrap();
    let variables = [("DWCP__TRANSPORT__MIN_STREAMS", "8"), ("DWCP_LOG_LEVEL", "debug"), ("HOME", "/")];
    let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let loaded = load(Some(&at("dwcp.staging.yaml")), variables).expect("valid");
    let config = loaded.config;
    assert_eq!(loaded.files, [at("dwcp.yaml"), at("dwcp.staging.yaml")]);
    assert_eq!(
        (config.mode.as_str(), config.transport.max_streams, config.transport.min_streams),
        ("internet", 512, 8)
    );
    assert_eq!((config.environment.as_str(), config.monitoring.log_level.as_str()), ("staging", "debug"));
    assert_eq!(config.monitoring.health_check_interval.as_secs(), 30);

    let wrong = load(None, [("DWCP__TRANSPORT__MIN_STREMS".to_owned(), "8".to_owned())]).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "environment DWCP__TRANSPORT__MIN_STREMS: unknown key, did you mean `transport.min_streams`?"
    );
    let missing = load(Some(Path::new("/nowhere/x.yaml")), []).unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/x.yaml: cannot be opened"), "{missing}");
}

#[test]
fn what_an_operator_set_lies_between_files_and_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "enabled: false\ntransport: {max_streams: 300, min_streams: 4}\n").unwrap();
    let changes = [("transport.max_streams", "400"), ("mode", "internet"), ("enabled", "true")];
    let changes = changes.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    let overrides = Overrides::default().with(&Changes::from(changes));
    let environment = [("DWCP_MODE".to_owned(), "datacenter".to_owned())];
    let loaded = load_with(Some(&file), &overrides, "overrides.yaml", environment).unwrap();
    assert_eq!((loaded.config.transport.max_streams, loaded.config.mode.as_str()), (400, "datacenter"));
    assert!(!loaded.config.enabled, "an override must not switch on what the file switches off");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    let origin = |key: &str| loaded.origins.get(key).map(ToString::to_string);
    assert_eq!(origin("transport.min_streams"), Some(format!("{}:2", file.display())));
    assert_eq!(origin("transport.max_streams").as_deref(), Some("overrides.yaml"));
    assert_eq!(origin("mode").as_deref(), Some("environment"));
    assert_eq!(origin("compression.level"), None);

    let wrong =
        Overrides::default().with(&Changes::from([("transport.max_streams".into(), Some("2".into()))]));
    let findings = load_with(Some(&file), &wrong, "overrides.yaml", []).unwrap_err().to_string();
    assert!(findings.contains("transport.min_streams: is 4, above transport.max_streams (2)"), "{findings}");
}

#[test]
fn other_dialects_are_read_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "hde: {level: 9}\ntransport: {pacing_enabled: false}\nhde.algorithm: lz4\n")
        .unwrap();
    let loaded = load(Some(&file), []).unwrap();
    assert_eq!((loaded.config.compression.level.0, loaded.config.transport.enable_pacing), (9, false));
    assert_eq!(loaded.config.compression.algorithm.as_str(), "lz4");
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].ends_with("config.yaml:1:1 hde: is another dialect's name of `compression`"),
        "{warnings:?}"
    );
}

/// Seeded mutations of real configurations: whatever a broken editor or disk makes of a file, the loader says so or
/// takes it, within its bounds. `DWCP_FUZZ_ROUNDS` makes it long.
#[test]
fn mutated_files_are_refused_or_read_but_never_break_the_loader() {
    let sample = std::fs::read_to_string(repository().join("configs/dwcp.yaml")).unwrap();
    let dense = format!(
        "dwcp: {{peers: [{{name: a, identity: '{IDENTITY}'}}], recovery: {{backoff: [1s]}}, hde: {{level: 3}}}}"
    );
    let rounds =
        std::env::var("DWCP_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000_u64);
    let mut read = 0;
    for seed in 0..rounds {
        let source = if seed % 2 == 0 { &sample } else { &dense };
        let text = mutate(source.as_bytes(), seed + 1);
        let text = String::from_utf8_lossy(&text);
        match parse(&text, "f.yaml") {
            Ok(_) => read += 1,
            Err(findings) => {
                assert!((1..=200).contains(&findings.0.len()), "seed {seed}");
                let longest = findings.0.iter().map(|finding| finding.message.len()).max().unwrap();
                assert!(longest < 2000, "seed {seed}: a message of {longest} bytes");
            }
        }
        // The same text as overrides: read back as it is written, or refused.
        if let Ok(overrides) = Overrides::parse(&text, "o.yaml") {
            assert_eq!(Overrides::parse(&overrides.text(), "o.yaml"), Ok(overrides), "seed {seed}");
        }
    }
    assert!(
        read > 0 && read < rounds,
        "{read} of {rounds} were valid: the mutations are too weak or too strong"
    );
}

/// A few edits: bytes flipped, runs removed, doubled, swapped in from elsewhere, and words that YAML has rules for.
fn mutate(source: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let words = [
        "&a ",
        "*a",
        "!!int ",
        "? ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\u{0}",
        "\t",
        "|\n",
        "'",
        "\"",
        "---\n",
        "9999999999999999999",
        "-1",
        "1e400",
        ": ",
    ];
    let mut text = source.to_vec();
    for _ in 0..=next(4) {
        let at = next(text.len());
        let end = (at + next(40)).min(text.len());
        match next(5) {
            0 => text[at] ^= 1 << next(8),
            1 => drop(text.drain(at..end)),
            2 => {
                let run = text[at..end].to_vec();
                let to = next(text.len());
                text.splice(to..to, run);
            }
            3 => drop(text.splice(at..at, words[next(words.len())].bytes())),
            _ => text.truncate(at.max(1)),
        }
        if text.is_empty() {
            text.push(b'a');
        }
    }
    text
}

#[test]
fn every_key_can_be_explained() {
    for key in dwcp_config::KEYS {
        let text = dwcp_config::explain(key.name).unwrap();
        assert!(text.starts_with(key.name) && text.contains("default: "), "{text}");
    }
    assert!(dwcp_config::explain("hde.level").unwrap().starts_with("compression.level\n"));
    assert_eq!(dwcp_config::explain("colour"), None);
}

#[test]
fn the_command_line_wins_over_the_variable() {
    let variable = Some(PathBuf::from("/b"));
    assert_eq!(locate(Some(Path::new("/a")), variable.clone()), Some("/a".into()));
    assert_eq!(locate(None, variable), Some("/b".into()));
}

#[test]
fn the_shipped_sample_says_the_defaults() {
    let sample = repository().join("configs/dwcp.yaml");
    let loaded = load(Some(&sample), []).unwrap_or_else(|findings| panic!("{findings}"));
    assert_eq!(loaded.config, Config::default());
    let text = std::fs::read_to_string(sample).unwrap();
    for key in dwcp_config::KEYS {
        let leaf = key.name.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{leaf}:")), "the sample does not mention {}", key.name);
    }
}

#[test]
fn the_reference_page_is_true() {
    let page = repository().join("docs/configuration.md");
    if std::env::var_os("DWCP_BLESS").is_some() {
        std::fs::write(&page, reference()).unwrap();
    }
    let found = std::fs::read_to_string(page).unwrap();
    assert!(
        found == reference(),
        "docs/configuration.md is old: DWCP_BLESS=1 cargo test -p dwcp-config reference"
    );
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
