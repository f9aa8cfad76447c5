//! The configuration in use and where it came from: files, what an operator set, environment. Loaded by `main`, loaded
//! again on SIGHUP and by HTTP; what is wrong then changes nothing. Also writes what an operator sets, at once or not at
//! all.
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dwcp_api::{ConfigChange, ConfigDocument, ConfigurationStatus, KeyChange, PathText, Timestamp};
use dwcp_config::{Applies, Changes, Config, Finding, Findings, Overrides};

/// Where the configuration comes from, beside the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file; defaults where there is none.
    pub(crate) file: Option<PathBuf>,
    /// What an operator set; may not exist.
    pub(crate) overrides: Option<PathBuf>,
}

/// One loaded configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) source: Option<PathBuf>,
    pub(crate) loaded_at: Timestamp,
    /// BLAKE3 of the files' contents, in order, and of what was set.
    pub(crate) hash: String,
    pub(crate) warnings: Vec<String>,
    pub(crate) origins: BTreeMap<String, String>,
    pub(crate) overrides: Overrides,
    /// Keys whose new values are not in use yet.
    pub(crate) restart_required: Vec<String>,
}

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    /// The configuration would be wrong.
    #[error("{0}")]
    Wrong(Findings),
    /// The file of the overrides cannot be written.
    #[error("{file} cannot be written: {error}")]
    Unwritable {
        /// Which.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Another change came in between.
    #[error("the configuration is another one by now: look at it again, then decide")]
    Stale,
    /// This control was started without a place for overrides.
    #[error("there is no place to keep it: dwcp-control was started without a state directory")]
    NoPlace,
}

/// Reads files, overrides and environment.
///
/// # Errors
/// Every mistake found.
pub(crate) fn load(sources: &Sources) -> Result<Settings, Findings> {
    candidate(sources, read_overrides(sources)?)
}

/// What the configuration is with these overrides.
///
/// # Errors
/// Every mistake found.
pub(crate) fn candidate(sources: &Sources, overrides: Overrides) -> Result<Settings, Findings> {
    let path = sources.file.as_deref();
    let environment = std::env::vars_os().filter_map(utf8);
    let loaded = dwcp_config::load_with(path, &overrides, &overrides_name(sources), environment)?;
    let mut hasher = blake3::Hasher::new();
    for file in &loaded.files {
        // The loader has just read it; a file that vanished since then counts as empty.
        hasher.update(&std::fs::read(file).unwrap_or_default());
    }
    if !overrides.is_empty() {
        hasher.update(overrides.text().as_bytes());
    }
    Ok(Settings {
        config: loaded.config,
        source: path.map(Path::to_owned),
        loaded_at: Timestamp::from(SystemTime::now()),
        hash: hasher.finalize().to_hex().to_string(),
        warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
        origins: loaded.origins.into_iter().map(|(key, origin)| (key, origin.to_string())).collect(),
        overrides,
        restart_required: Vec::new(),
    })
}

/// Judges changes, and keeps them unless only a look was asked for.
///
/// # Errors
/// They are wrong, or cannot be kept.
pub(crate) fn set(
    sources: &Sources,
    current: &Settings,
    changes: &Changes,
    keep: Keep,
) -> Result<Settings, SetError> {
    let overrides = current.overrides.with(changes);
    let settings = candidate(sources, overrides).map_err(SetError::Wrong)?;
    if keep == Keep::Yes {
        let path = sources.overrides.as_deref().ok_or(SetError::NoPlace)?;
        replace(path, settings.overrides.text().as_bytes())
            .map_err(|error| SetError::Unwritable { file: path.display().to_string(), error })?;
    }
    Ok(settings)
}

/// Whether changes are to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Only a look was asked for.
    No,
    /// They are.
    Yes,
}

fn overrides_name(sources: &Sources) -> String {
    sources.overrides.as_deref().map_or_else(String::new, |path| path.display().to_string())
}

fn read_overrides(sources: &Sources) -> Result<Overrides, Findings> {
    let Some(path) = &sources.overrides else { return Ok(Overrides::default()) };
    let finding = |message: String| {
        Findings(vec![Finding { file: path.display().to_string(), at: None, key: String::new(), message }])
    };
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() as u64 > OVERRIDES_BYTES_MAX => {
            Err(finding(format!("is larger than {OVERRIDES_BYTES_MAX} bytes")))
        }
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| finding("is not UTF-8".into()))?;
            Overrides::parse(&text, &path.display().to_string())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Overrides::default()),
        Err(error) => Err(finding(format!("cannot be read: {error}"))),
    }
}

/// Replaces a file so that a crash leaves either the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(directory)?.sync_all()
}

fn utf8((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    let name = name.into_string().ok().filter(|name| name.starts_with("DWCP_"))?;
    Some((name, value.to_string_lossy().into_owned()))
}

impl Settings {
    /// Notes which keys differ from those that the processes were started with.
    pub(crate) fn compare_with_start(&mut self, start: &Config) {
        self.restart_required = dwcp_config::changed(start, &self.config)
            .filter(|key| key.applies != Applies::Reload)
            .map(|key| key.name.to_owned())
            .collect();
    }

    /// What is different from another configuration, for the API.
    pub(crate) fn change_from(&self, before: &Self, keep: Keep) -> ConfigChange {
        let changed: Vec<_> = dwcp_config::changed(&before.config, &self.config).collect();
        let one = |key: &&'static dwcp_config::Key<Config>| KeyChange {
            key: key.name.to_owned(),
            from: key.text(&before.config),
            to: key.text(&self.config),
        };
        let at_once = changed.iter().filter(|key| key.applies == Applies::Reload);
        let mut changes: Vec<KeyChange> = changed.iter().map(one).collect();
        for (list, differs) in [
            ("peers", before.config.peers != self.config.peers),
            ("exports", before.config.exports != self.config.exports),
        ] {
            if differs {
                let count = |config: &Config| match list {
                    "peers" => config.peers.len(),
                    _ => config.exports.len(),
                };
                let (from, to) = (count(&before.config).to_string(), count(&self.config).to_string());
                changes.push(KeyChange { key: list.into(), from, to });
            }
        }
        let lists = changes[changed.len()..].iter().map(|change| change.key.clone());
        ConfigChange {
            schema: ConfigChange::SCHEMA,
            dry_run: keep == Keep::No,
            hash: self.hash.clone(),
            applied: at_once.map(|key| key.name.to_owned()).chain(lists).collect(),
            restart_required: self.restart_required.clone(),
            warnings: self.warnings.clone(),
            changes,
        }
    }

    fn source_text(&self) -> Option<PathText> {
        use std::os::unix::ffi::OsStrExt;
        PathText::new(self.source.as_ref()?.as_os_str().as_bytes()).ok()
    }

    /// For `GET /api/v1/dwcp/config`.
    pub(crate) fn document(&self) -> ConfigDocument {
        ConfigDocument {
            schema: ConfigDocument::SCHEMA,
            source: self.source_text(),
            loaded_at: self.loaded_at,
            hash: self.hash.clone(),
            warnings: self.warnings.clone(),
            restart_required: self.restart_required.clone(),
            config: dwcp_config::effective(&self.config),
            origins: None,
        }
    }

    /// For `/health?verbose=true`.
    pub(crate) fn status(&self) -> ConfigurationStatus {
        ConfigurationStatus {
            source: self.source_text(),
            dialect: "canonical".into(),
            loaded_at: self.loaded_at,
            hash: self.hash.clone(),
            warnings: self.warnings.clone(),
            restart_required: self.restart_required.clone(),
        }
    }
}

const OVERRIDES_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(directory: &tempfile::TempDir) -> Sources {
        let file = directory.path().join("config.yaml");
        std::fs::write(&file, "transport: {max_streams: 300}\n").unwrap();
        Sources { file: Some(file), overrides: Some(directory.path().join("overrides.yaml")) }
    }

    fn change(key: &str, value: Option<&str>) -> Changes {
        Changes::from([(key.to_owned(), value.map(str::to_owned))])
    }

    #[test]
    fn what_is_set_lasts_and_what_is_wrong_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let sources = sources(&directory);
        let first = load(&sources).unwrap();
        let second = set(&sources, &first, &change("transport.max_streams", Some("400")), Keep::Yes).unwrap();
        assert_eq!(load(&sources).unwrap().config.transport.max_streams, 400);
        assert_ne!(first.hash, second.hash);
        let text = std::fs::read_to_string(sources.overrides.as_ref().unwrap()).unwrap();
        for (key, value) in [("transport.max_streams", "2"), ("transport.max_strems", "500"), ("mode", "x")] {
            let wrong = set(&sources, &second, &change(key, Some(value)), Keep::Yes);
            assert!(matches!(wrong, Err(SetError::Wrong(_))), "{key}");
        }
        set(&sources, &second, &change("mode", Some("internet")), Keep::No).unwrap();
        assert_eq!(std::fs::read_to_string(sources.overrides.as_ref().unwrap()).unwrap(), text);
        let third = set(&sources, &second, &change("transport.max_streams", None), Keep::Yes).unwrap();
        assert_eq!((third.config.transport.max_streams, third.hash), (300, first.hash));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let sources = Sources { overrides: Some(directory.path().join("gone/overrides.yaml")), file: None };
        let settings = load(&sources).unwrap();
        let error = set(&sources, &settings, &change("mode", Some("internet")), Keep::Yes).unwrap_err();
        assert!(error.to_string().contains("gone/overrides.yaml cannot be written"), "{error}");
        let nowhere = set(&Sources::default(), &settings, &change("mode", Some("internet")), Keep::Yes);
        assert!(matches!(nowhere, Err(SetError::NoPlace)));
    }

    #[test]
    fn changes_say_what_needs_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let sources = sources(&directory);
        let before = load(&sources).unwrap();
        let changes = Changes::from([
            ("mode".to_owned(), Some("internet".to_owned())),
            ("api.listen".to_owned(), Some(":1".to_owned())),
        ]);
        let mut after = set(&sources, &before, &changes, Keep::No).unwrap();
        after.compare_with_start(&before.config);
        let change = after.change_from(&before, Keep::No);
        assert_eq!(
            (change.applied, change.restart_required),
            (vec!["mode".to_owned()], vec!["api.listen".to_owned()])
        );
        let mode = change.changes.iter().find(|change| change.key == "mode").unwrap();
        assert_eq!((mode.from.as_str(), mode.to.as_str()), ("hybrid", "internet"));
    }
}
