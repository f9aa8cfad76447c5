//! The configuration in use and where it came from. Loaded by `main`, loaded again on SIGHUP; a file that is wrong
//! then changes nothing.
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dwcp_api::{ConfigDocument, ConfigurationStatus, PathText, Timestamp};
use dwcp_config::{Applies, Config, Findings};

/// One loaded configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) source: Option<PathBuf>,
    pub(crate) loaded_at: Timestamp,
    /// BLAKE3 of the files' contents, in order.
    pub(crate) hash: String,
    /// Keys whose new values are not in use yet.
    pub(crate) restart_required: Vec<String>,
}

/// Reads files and environment.
///
/// # Errors
/// Every mistake found.
pub(crate) fn load(path: Option<&Path>) -> Result<Settings, Findings> {
    let loaded = dwcp_config::load(path, std::env::vars_os().filter_map(utf8))?;
    let mut hasher = blake3::Hasher::new();
    for file in &loaded.files {
        // The loader has just read it; a file that vanished since then counts as empty.
        hasher.update(&std::fs::read(file).unwrap_or_default());
    }
    Ok(Settings {
        config: loaded.config,
        source: path.map(Path::to_owned),
        loaded_at: Timestamp::from(SystemTime::now()),
        hash: hasher.finalize().to_hex().to_string(),
        restart_required: Vec::new(),
    })
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
            warnings: Vec::new(),
            restart_required: self.restart_required.clone(),
            config: dwcp_config::effective(&self.config),
        }
    }

    /// For `/health?verbose=true`.
    pub(crate) fn status(&self) -> ConfigurationStatus {
        ConfigurationStatus {
            source: self.source_text(),
            dialect: "canonical".into(),
            loaded_at: self.loaded_at,
            hash: self.hash.clone(),
            warnings: Vec::new(),
            restart_required: self.restart_required.clone(),
        }
    }
}
