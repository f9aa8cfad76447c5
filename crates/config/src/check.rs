//! Rules between keys. Called by the loader when all layers are read; it knows nothing of files.
use std::collections::HashMap;

use crate::model::{Config, Export, ExportPeers, Identity, Peer, StateBackend};
use crate::nearest::nearest;
use crate::value::{Value, shorten};

/// Every broken rule, as key and message.
pub(crate) fn check(config: &Config) -> Vec<(String, String)> {
    let mut broken = Vec::new();
    streams(config, &mut broken);
    let names: Vec<&str> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
    duplicates("peers", names.iter().copied(), &mut broken);
    duplicates("exports", config.exports.iter().map(|export| export.name.as_str()), &mut broken);
    identities(&config.peers, &mut broken);
    for (number, peer) in config.peers.iter().enumerate() {
        one_peer(number, peer, &mut broken);
    }
    for (number, export) in config.exports.iter().enumerate() {
        one_export(number, export, &names, &mut broken);
    }
    tunnels(config, &names, &mut broken);
    selectors(config, &mut broken);
    for (key, is_empty) in [
        ("security.tls.cipher_suites", config.security.cipher_suites.0.is_empty()),
        ("security.authentication.mechanism", config.security.mechanisms.0.is_empty()),
    ] {
        if is_empty {
            broken.push((key.into(), "needs at least one".into()));
        }
    }
    if config.recovery.backoff.is_empty() || config.recovery.backoff.len() > 16 {
        broken.push(("recovery.backoff".into(), "needs 1 to 16 pauses".into()));
    }
    if config.state.backend == StateBackend::Postgres && config.state.postgres_url.is_empty() {
        let message = "must name the server: postgres://USER@HOST/DATABASE";
        broken.push(("state.postgres_url".into(), message.into()));
    }
    if !config.monitoring.metrics_path.starts_with('/') {
        broken.push(("monitoring.metrics_path".into(), "must begin with `/`".into()));
    }
    broken
}

type Broken = Vec<(String, String)>;

fn streams(config: &Config, broken: &mut Broken) {
    let transport = &config.transport;
    let (low, first, high) = (transport.min_streams, transport.initial_streams, transport.max_streams);
    if low > high {
        broken.push((
            "transport.min_streams".into(),
            format!("is {low}, above transport.max_streams ({high})"),
        ));
    }
    if low <= high && !(low..=high).contains(&first) {
        let message = format!("is {first}, not between min_streams ({low}) and max_streams ({high})");
        broken.push(("transport.initial_streams".into(), message));
    }
}

fn duplicates<'a>(list: &str, names: impl Iterator<Item = &'a str>, broken: &mut Broken) {
    let mut seen = HashMap::new();
    for (number, name) in names.enumerate() {
        let key = format!("{list}[{number}].name");
        if let Some(first) = seen.insert(name, number) {
            broken.push((key, format!("`{name}` is also the name of {list}[{first}]")));
            continue;
        }
        let usable = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // An absent name is reported by the loader.
        if !name.is_empty()
            && (name.len() > NAME_MAX || !name.chars().all(usable) || name.starts_with(['.', '-']))
        {
            let what = format!("letters, digits, `.`, `_`, `-`, not first a dot or dash, at most {NAME_MAX}");
            broken.push((key, format!("`{}` is no name: {what}", shorten(name))));
        }
    }
}

fn identities(peers: &[Peer], broken: &mut Broken) {
    let mut seen = HashMap::new();
    for (number, peer) in peers.iter().enumerate() {
        if peer.identity == Identity::default() {
            continue;
        }
        if let Some(first) = seen.insert(peer.identity, number) {
            let message = format!("is also the identity of peers[{first}] `{}`", peers[first].name);
            broken.push((format!("peers[{number}].identity"), message));
        }
    }
}

/// What belongs to two classes would belong to the one that was written last.
fn selectors(config: &Config, broken: &mut Broken) {
    let mut seen = HashMap::new();
    for (class, rules) in config.classes.named() {
        for selector in &rules.selectors.0 {
            if let Some(first) = seen.insert(selector, class) {
                broken.push((
                    format!("classes.{class}.match"),
                    format!("`{selector}` is also in classes.{first}.match"),
                ));
            }
        }
    }
}

fn one_peer(number: usize, peer: &Peer, broken: &mut Broken) {
    if peer.address.is_empty() {
        return;
    }
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port != 0);
    let whole = peer.address.rsplit_once(':').is_some_and(|(host, tail)| host_is_usable(host) && port(tail));
    if !whole {
        let found = shorten(&peer.address);
        let message = format!(
            "expected host:port such as paris.example.net:9000 or [2001:db8::1]:9000, found `{found}`"
        );
        broken.push((format!("peers[{number}].address"), message));
    }
}

fn host_is_usable(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = inner.split('%').next().unwrap_or(inner);
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.len() <= 253
        && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

fn one_export(number: usize, export: &Export, names: &[&str], broken: &mut Broken) {
    if !export.path.as_os_str().is_empty() && !export.path.is_absolute() {
        let message = format!("must be absolute, found `{}`", export.path.show());
        broken.push((format!("exports[{number}].path"), message));
    }
    let ExportPeers::Only(wanted) = &export.peers else { return };
    for name in wanted.iter().filter(|name| !names.contains(&name.as_str())) {
        let hint = nearest(name, names.iter().copied())
            .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        broken.push((
            format!("exports[{number}].peers"),
            format!("`{}` is not in `peers:`{hint}", shorten(name)),
        ));
    }
}

fn tunnels(config: &Config, names: &[&str], broken: &mut Broken) {
    let mut seen = HashMap::new();
    let mut peers = Vec::new();
    for tunnel in &config.tunnels.listen {
        let key = || "tunnels.listen".to_owned();
        if seen.insert(tunnel.listen, ()).is_some() {
            broken.push((key(), format!("two tunnels listen at {}", tunnel.listen)));
        }
        if !tunnel.listen.ip().is_loopback() && !config.tunnels.listen_beyond_loopback {
            let message = format!(
                "{} is reached by other hosts: that needs tunnels.listen_beyond_loopback: true",
                tunnel.listen
            );
            broken.push((key(), message));
        }
        peers.push((key(), tunnel.peer.as_str()));
    }
    let allowed = config.tunnels.allow.iter().filter_map(|allow| allow.peer.as_deref());
    peers.extend(allowed.map(|peer| ("tunnels.allow".to_owned(), peer)));
    for (key, peer) in peers.into_iter().filter(|(_, peer)| !names.contains(peer)) {
        let hint = nearest(peer, names.iter().copied())
            .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        broken.push((key, format!("`{}` is not in `peers:`{hint}", shorten(peer))));
    }
}

const NAME_MAX: usize = 64;
