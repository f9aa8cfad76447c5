//! The key table as a page for operators and as JSON for the API. Called by the test that keeps
//! docs/configuration.md true, and by control.
use std::fmt::Write;

use crate::keys::{EXPORT_KEYS, KEYS, Key, PEER_KEYS};
use crate::model::{Config, Export, Peer};

/// docs/configuration.md, whole.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    table(&mut page, KEYS, &Config::default());
    page.push_str(PEERS);
    table(&mut page, PEER_KEYS, &Peer::default());
    page.push_str(EXPORTS);
    table(&mut page, EXPORT_KEYS, &Export::default());
    page
}

/// The values in use, one member for each key of the file.
#[must_use]
pub fn effective(config: &Config) -> serde_json::Value {
    let mut members: serde_json::Map<String, serde_json::Value> =
        KEYS.iter().map(|key| (key.name.to_owned(), (key.json)(config))).collect();
    members.insert("peers".into(), config.peers.iter().map(|peer| record(PEER_KEYS, peer)).collect());
    members
        .insert("exports".into(), config.exports.iter().map(|export| record(EXPORT_KEYS, export)).collect());
    serde_json::Value::Object(members)
}

/// Keys of the file that have different values in the two.
pub fn changed<'a>(a: &'a Config, b: &'a Config) -> impl Iterator<Item = &'static Key<Config>> + 'a {
    KEYS.iter().filter(move |key| (key.show)(a) != (key.show)(b))
}

/// One key for people: what it does, its type, its default, what a change needs. `None` where there is no such key.
#[must_use]
pub fn explain(name: &str) -> Option<String> {
    let name = crate::aliases::canonical(name).unwrap_or_else(|| name.to_owned());
    let key = KEYS.iter().find(|key| key.name == name)?;
    let defaults = Config::default();
    let (kind, default) = ((key.kind)(&defaults).replace("\\|", "|"), (key.show)(&defaults));
    let default = if default.is_empty() { "empty".to_owned() } else { default };
    let change = match key.applies.as_str() {
        "no" => "at once".to_owned(),
        half => format!("with the next start of {half}"),
    };
    Some(format!("{name}\n  {}\n  type:    {kind}\n  default: {default}\n  changes: {change}\n", key.meaning))
}

fn record<T>(keys: &[Key<T>], value: &T) -> serde_json::Value {
    keys.iter().map(|key| (key.name.to_owned(), (key.json)(value))).collect::<serde_json::Map<_, _>>().into()
}

fn table<T>(page: &mut String, keys: &[Key<T>], defaults: &T) {
    page.push_str("| key | type | default | meaning | restart |\n|---|---|---|---|---|\n");
    for key in keys {
        let default = match (key.show)(defaults) {
            text if text.is_empty() || text.ends_with(&"0".repeat(64)) => "–".to_owned(),
            text => format!("`{text}`"),
        };
        let (kind, restart) = ((key.kind)(defaults), key.applies.as_str());
        writeln!(page, "| `{}` | {kind} | {default} | {} | {restart} |", key.name, key.meaning)
            .expect("writing to a String cannot fail");
    }
}

const HEAD: &str = "\
# Configuration

<!-- Generated from crates/config/src/keys.rs: `DWCP_BLESS=1 cargo test -p dwcp-config reference` writes it anew. -->

One YAML file. Found by `--config FILE`, else `$DWCP_CONFIG`, else the first that exists of `/etc/dwcp/v3/config.yaml`,
`/etc/dwcp/config.yaml`, `/etc/dwcp/dwcp.yaml`; without any, the defaults below count. A file named
`dwcp.production.yaml`, `dwcp.staging.yaml` or `dwcp.development.yaml` is laid over the `dwcp.yaml` beside it, and
everything may stand below one `dwcp:` key. Later layers win; lists are replaced whole. The environment wins over files:
`DWCP_MODE`, `DWCP_ENV`, `DWCP_LOG_LEVEL`, and any key as `DWCP__SECTION__KEY`.

Unknown keys are errors, and every mistake is named as `file:line:column key: message`. Check a file with
`dwcp config validate FILE` or `dwcp-control --config FILE --validate`.

Sizes are bytes, `16MiB` (2^20) or `16MB` (10^6). Rates are **bits** per second, `10Gbps` or `125MB/s`. Durations are
`150ms`, `30s`, `5m`, `1h30m`. *restart* says which process must be started again; `no` = `SIGHUP` is enough.

";
const PEERS: &str = "\n## peers\n\nA list: nodes that may connect and be connected to, at most 256.\n\n";
const EXPORTS: &str = "\n## exports\n\nA list: directories that peers may use, at most 256. Nothing else on the node can be reached.\n\n";
