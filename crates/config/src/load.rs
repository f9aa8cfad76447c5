//! Finds, reads and layers the files, then what an operator set, then the environment. Called by the binaries; all findings are collected, a
//! syntax error ends only its own file.
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::aliases::{self, canonical};
use crate::check::check;
use crate::keys::{EXPORT_KEYS, KEYS, Key, LISTS, PEER_KEYS};
use crate::model::{Config, Environment};
use crate::nearest::nearest;
use crate::overrides::Overrides;
use crate::value::{Value, shorten};
use crate::yaml::{self, Complaint, Content, Entry, Node, Position, START};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, or `environment`.
    pub file: String,
    /// Where in it.
    pub at: Option<Position>,
    /// The key, `peers[0].name` for lists; empty where it concerns the whole file.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        match self.key.as_str() {
            "" => write!(f, ": {}", self.message),
            key => write!(f, " {key}: {}", self.message),
        }
    }
}

/// Every mistake of a configuration, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The files, base first; empty where only defaults and the environment count.
    pub files: Vec<PathBuf>,
    /// What is odd but accepted.
    pub warnings: Vec<Finding>,
    /// Where each key that is not at its default was given.
    pub origins: BTreeMap<String, Origin>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, or `environment`.
    pub file: String,
    /// Where in it.
    pub at: Option<Position>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.at.map_or(Ok(()), |at| write!(f, ":{}", at.line))
    }
}

/// The file to load: `explicit`, else `$DWCP_CONFIG`, else the first of the usual places that exists.
#[must_use]
pub fn locate(explicit: Option<&Path>, environment: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    environment
        .filter(|path| !path.as_os_str().is_empty())
        .or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// Loads `path` with the files that belong to it, then the variables of `environment` that mean a key. Without a
/// path, defaults and environment.
///
/// # Errors
/// Every mistake found.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Findings> {
    load_with(path, &Overrides::default(), "", environment)
}

/// As [`load`], with what an operator set between the files and the environment; `overrides_name` stands in findings.
/// What the files switch off stays off: `enabled: true` counts only where they say so too.
///
/// # Errors
/// Every mistake found.
pub fn load_with(
    path: Option<&Path>,
    overrides: &Overrides,
    overrides_name: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Findings> {
    let files = path.map(layers).unwrap_or_default();
    let mut loader = Loader::new();
    if let Some(environment) = path.and_then(environment_of_name) {
        loader.config.environment = environment;
    }
    for file in &files {
        loader.file = file.display().to_string();
        match read_bounded(file) {
            Ok(text) => loader.text(&text),
            Err(message) => loader.complain(None, "", message),
        }
    }
    loader.overrides(overrides, overrides_name);
    loader.environment(environment);
    loader.finish().map(|(config, warnings, origins)| Loaded { config, files, warnings, origins })
}

/// As [`load`] without an environment; keys and values that this version does not know are left out, and told.
pub(crate) fn load_lenient(path: &Path) -> Result<(Loaded, Vec<Finding>), Findings> {
    let files = layers(path);
    let mut loader = Loader::new();
    loader.config.environment = environment_of_name(path).unwrap_or(loader.config.environment);
    for file in &files {
        loader.file = file.display().to_string();
        let text = read_bounded(file).map_err(|message| {
            Findings(vec![Finding { file: loader.file.clone(), at: None, key: String::new(), message }])
        })?;
        loader.text(&text);
    }
    // A finding without a key concerns the whole file.
    let (dropped, wrong): (Vec<_>, Vec<_>) =
        loader.findings.drain(..).partition(|finding| !finding.key.is_empty());
    if !wrong.is_empty() {
        return Err(Findings(wrong));
    }
    let (config, warnings, origins) = loader.finish()?;
    Ok((Loaded { config, files, warnings, origins }, dropped))
}

/// Reads one text as the whole configuration; `name` stands in the findings.
///
/// # Errors
/// Every mistake found.
pub fn parse(text: &str, name: &str) -> Result<Config, Findings> {
    let mut loader = Loader::new();
    loader.file = name.to_owned();
    loader.text(text);
    loader.finish().map(|(config, ..)| config)
}

/// The base file of an overlay, the siblings of a directory of files, or the file alone.
fn layers(path: &Path) -> Vec<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    if environment_of_name(path).is_some() {
        files.extend(Some(parent.join("dwcp.yaml")).filter(|base| base.exists()));
    }
    files.push(path.to_owned());
    if path.ends_with("v3/config.yaml") {
        let siblings = ["resources.yaml", "security.yaml"].map(|name| parent.join(name));
        files.extend(siblings.into_iter().filter(|sibling| sibling.exists()));
    }
    files
}

fn environment_of_name(path: &Path) -> Option<Environment> {
    let name = path.file_name()?.to_str()?;
    Environment::parse(name.strip_prefix("dwcp.")?.strip_suffix(".yaml")?).ok()
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Where each given key stands.
pub(crate) type Places = HashMap<String, (String, Option<Position>)>;

struct Loader {
    config: Config,
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
    file: String,
    places: Places,
}

impl Loader {
    fn new() -> Self {
        Self {
            config: Config::default(),
            findings: Vec::new(),
            warnings: Vec::new(),
            file: String::new(),
            places: Places::new(),
        }
    }

    fn complain(&mut self, at: Option<Position>, key: &str, message: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            let message = message.into();
            self.findings.push(Finding { file: self.file.clone(), at, key: key.to_owned(), message });
        }
    }

    fn warn(&mut self, at: Option<Position>, key: &str, message: impl Into<String>) {
        if self.warnings.len() < FINDINGS_MAX {
            let (file, key, message) = (self.file.clone(), key.to_owned(), message.into());
            self.warnings.push(Finding { file, at, key, message });
        }
    }

    fn text(&mut self, text: &str) {
        match yaml::parse(text) {
            Ok(root) => self.root(root),
            Err(complaint) => self.complain(Some(complaint.at), "", complaint.message),
        }
    }

    fn root(&mut self, root: Node) {
        let entries = match root.value {
            Content::Map(entries) => unwrapped(entries),
            Content::Nothing => Vec::new(),
            Content::Scalar(_) | Content::List(_) => {
                return self.complain(Some(root.at), "", "expected `key: value` lines");
            }
        };
        self.section("", &entries);
    }

    fn section(&mut self, prefix: &str, entries: &[Entry]) {
        for entry in entries {
            if self.findings.len() >= FINDINGS_MAX {
                return;
            }
            let name = format!("{prefix}{}", entry.key);
            let alias = canonical(&name).and_then(|name| KEYS.iter().find(|key| key.name == name));
            let section = aliases::SECTIONS.iter().find(|(alias, _)| prefix.is_empty() && *alias == name);
            if let Some(key) = KEYS.iter().find(|key| key.name == name) {
                self.set(key, &entry.value, entry.at);
            } else if let Some(key) = alias {
                self.warn(Some(entry.at), &name, format!("is another dialect's name of `{}`", key.name));
                self.set(key, &entry.value, entry.at);
            } else if let Some((_, canonical)) = section {
                self.warn(Some(entry.at), &name, format!("is another dialect's name of `{canonical}`"));
                self.subsection(canonical, entry);
            } else if prefix.is_empty() && LISTS.contains(&name.as_str()) {
                self.list(&name, entry);
            } else if KEYS.iter().any(|key| is_below(key.name, &name)) {
                self.subsection(&name, entry);
            } else {
                self.complain(Some(entry.at), &shorten(&name), unknown(prefix, &entry.key));
            }
        }
    }

    fn subsection(&mut self, name: &str, entry: &Entry) {
        match &entry.value.value {
            Content::Map(entries) => self.section(&format!("{name}."), entries),
            Content::Nothing => {}
            Content::Scalar(_) | Content::List(_) => {
                self.complain(Some(entry.value.at), name, "is a section: its keys stand below it, indented");
            }
        }
    }

    fn set(&mut self, key: &Key<Config>, node: &Node, at: Position) {
        match (key.read)(&mut self.config, node, key.range) {
            Ok(()) => {
                self.places.insert(key.name.to_owned(), (self.file.clone(), Some(at)));
            }
            Err(complaint) => self.complain(Some(complaint.at), key.name, complaint.message),
        }
    }

    fn list(&mut self, name: &str, entry: &Entry) {
        let items: &[Node] = match &entry.value.value {
            Content::List(items) => items,
            Content::Nothing => &[],
            Content::Scalar(_) | Content::Map(_) => {
                return self.complain(Some(entry.value.at), name, "expected a list: one `- name: …` each");
            }
        };
        if items.len() > ITEMS_MAX {
            return self.complain(Some(entry.at), name, format!("more than {ITEMS_MAX} entries"));
        }
        match name {
            "peers" => self.config.peers = self.items(name, items, PEER_KEYS, &["name", "identity"]),
            _ => self.config.exports = self.items(name, items, EXPORT_KEYS, &["name", "path"]),
        }
    }

    fn items<T: Default>(
        &mut self,
        list: &str,
        items: &[Node],
        keys: &[Key<T>],
        required: &[&str],
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let path = format!("{list}[{number}]");
            let Content::Map(entries) = &item.value else {
                self.complain(Some(item.at), &path, "expected `name: …` and more keys");
                continue;
            };
            values.push(self.item(&path, entries, keys));
            self.places.insert(path.clone(), (self.file.clone(), Some(item.at)));
            for name in required {
                if !entries.iter().any(|entry| entry.key == *name) {
                    self.complain(Some(item.at), &format!("{path}.{name}"), "is missing");
                }
            }
        }
        values
    }

    fn item<T: Default>(&mut self, path: &str, entries: &[Entry], keys: &[Key<T>]) -> T {
        let mut value = T::default();
        for entry in entries {
            let full = format!("{path}.{}", shorten(&entry.key));
            let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
                let message = unknown_among(&entry.key, keys.iter().map(|key| key.name));
                self.complain(Some(entry.at), &full, message);
                continue;
            };
            match (key.read)(&mut value, &entry.value, key.range) {
                Ok(()) => {
                    self.places.insert(full, (self.file.clone(), Some(entry.value.at)));
                }
                Err(complaint) => self.complain(Some(complaint.at), &full, complaint.message),
            }
        }
        value
    }

    fn overrides(&mut self, overrides: &Overrides, name: &str) {
        self.file = name.to_owned();
        let is_enabled = self.config.enabled;
        for (name, value) in overrides.iter() {
            let node = Node { at: START, value: Content::Scalar(value.to_owned()) };
            match KEYS.iter().find(|key| key.name == name) {
                Some(key) => match (key.read)(&mut self.config, &node, key.range) {
                    Ok(()) => {
                        self.places.insert(name.to_owned(), (self.file.clone(), None));
                    }
                    Err(complaint) => self.complain(None, name, complaint.message),
                },
                None => self.complain(None, &shorten(name), unknown("", name)),
            }
        }
        if self.config.enabled && !is_enabled {
            self.config.enabled = false;
            self.warn(None, "enabled", "stays false: what the file switches off is switched on only there");
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        self.file = "environment".into();
        let mut named: Vec<(String, String)> = variables.into_iter().collect();
        named.sort();
        for (variable, text) in named {
            let name = match variable.as_str() {
                "DWCP_MODE" => "mode".to_owned(),
                "DWCP_ENV" => "environment".to_owned(),
                "DWCP_LOG_LEVEL" => "monitoring.log_level".to_owned(),
                other => match other.strip_prefix("DWCP__") {
                    Some(rest) => rest.to_lowercase().replace("__", "."),
                    None => continue,
                },
            };
            let node = Node { at: START, value: Content::Scalar(text) };
            let result = match KEYS.iter().find(|key| key.name == name) {
                Some(key) => (key.read)(&mut self.config, &node, key.range),
                None => Err(Complaint::new(START, unknown("", &name))),
            };
            match result {
                Ok(()) => {
                    self.places.insert(name, (self.file.clone(), None));
                }
                Err(complaint) => self.complain(None, &variable, complaint.message),
            }
        }
    }

    fn finish(mut self) -> Result<Finished, Findings> {
        if !self.places.contains_key("monitoring.health_check_interval") {
            self.config.monitoring.health_check_interval = self.config.environment.health_check_interval();
        }
        for (key, message) in check(&self.config) {
            let (file, at) = place(&self.places, &key);
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(Finding {
                    file: file.unwrap_or_else(|| self.file.clone()),
                    at,
                    key,
                    message,
                });
            }
        }
        if !self.findings.is_empty() {
            return Err(Findings(self.findings));
        }
        let is_key = |name: &String| KEYS.iter().any(|key| key.name == *name);
        let places = self.places.into_iter().filter(|(name, _)| is_key(name));
        let origins = places.map(|(name, (file, at))| (name, Origin { file, at })).collect();
        Ok((self.config, self.warnings, origins))
    }
}

/// Values, warnings, and where the values come from.
type Finished = (Config, Vec<Finding>, BTreeMap<String, Origin>);

/// Where a key, or else the list entry that it belongs to, was given.
fn place(places: &Places, key: &str) -> (Option<String>, Option<Position>) {
    let entry = key.split_once(']').map(|(head, _)| format!("{head}]"));
    let found = places.get(key).or_else(|| places.get(&entry?));
    found.map_or((None, None), |(file, at)| (Some(file.clone()), *at))
}

/// Overlays of the first version wrap everything in `dwcp:`.
fn unwrapped(entries: Vec<Entry>) -> Vec<Entry> {
    match <[Entry; 1]>::try_from(entries) {
        Ok([Entry { key, value: Node { value: Content::Map(inner), .. }, .. }]) if key == "dwcp" => inner,
        Ok(only) => only.into(),
        Err(entries) => entries,
    }
}

fn is_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// Looks among the keys of the same section first, then for the same last word anywhere, then for a similar whole.
fn unknown(prefix: &str, word: &str) -> String {
    let here = KEYS.iter().filter_map(|key| key.name.strip_prefix(prefix));
    let heads = here.map(|rest| rest.split('.').next().unwrap_or(rest));
    let lists = LISTS.into_iter().filter(|_| prefix.is_empty());
    if let Some(near) = nearest(word, heads.chain(lists)) {
        return format!("unknown key, did you mean `{prefix}{near}`?");
    }
    let same_leaf = KEYS.iter().find(|key| key.name.rsplit('.').next() == Some(word)).map(|key| key.name);
    let whole = format!("{prefix}{word}");
    match same_leaf.or_else(|| nearest(&whole, KEYS.iter().map(|key| key.name))) {
        Some(near) => format!("unknown key, did you mean `{near}`?"),
        None => "unknown key (docs/configuration.md lists all)".into(),
    }
}

fn unknown_among<'a>(word: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, names.clone()) {
        Some(near) => format!("unknown key, did you mean `{near}`?"),
        None => format!("unknown key, expected one of {}", names.collect::<Vec<_>>().join(", ")),
    }
}

const PLACES: [&str; 3] = ["/etc/dwcp/v3/config.yaml", "/etc/dwcp/config.yaml", "/etc/dwcp/dwcp.yaml"];
const FILE_BYTES_MAX: u64 = 1 << 20;
const FINDINGS_MAX: usize = 200;
const ITEMS_MAX: usize = 256;
