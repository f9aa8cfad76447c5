//! What was replaced, kept in the state directory until it is reverted. Written before each change and made durable:
//! whatever interrupts the command, what was there before is known.
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::Step;
use crate::exit::Failure;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    schema: String,
    /// `/proc/sys/kernel/random/boot_id` of when it was written.
    boot: String,
    /// In the order in which they were applied.
    pub(super) steps: Vec<Step>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    boot: String,
}

impl Store {
    pub(super) fn new(state_directory: &Path, root: &Path) -> Self {
        let boot = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self { path: state_directory.join(NAME), boot: boot.trim().to_owned() }
    }

    /// What is kept of this boot; a reboot has reverted everything by itself.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged: nothing may be changed then.
    pub(super) fn load(&self) -> Result<Saved, Failure> {
        let none = || Saved { schema: SCHEMA.into(), boot: self.boot.clone(), steps: Vec::new() };
        let place = self.path.display();
        let damaged = |error: &dyn std::fmt::Display| {
            let way = "put it right or remove it; then the former values are not known any more";
            Failure::general(format!("{place}: {error}")).with_hint(way)
        };
        let text = match fs::read(&self.path) {
            Ok(text) if text.len() > BYTES_MAX => return Err(damaged(&"too large")),
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(none()),
            Err(error) => return Err(damaged(&error)),
        };
        let saved: Saved = serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
        if saved.schema != SCHEMA {
            return Err(damaged(&format!("is {}, and this command knows {SCHEMA}", saved.schema)));
        }
        Ok(if saved.boot == self.boot { saved } else { none() })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It is not durable: nothing may be changed then.
    pub(super) fn keep(&self, saved: &Saved) -> Result<(), Failure> {
        self.write(saved).map_err(|error| Failure::general(format!("{}: {error}", self.path.display())))
    }

    fn write(&self, saved: &Saved) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        if saved.steps.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => File::open(directory)?.sync_all(),
            };
        }
        let aside = self.path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec_pretty(saved)?)?;
        file.sync_all()?;
        fs::rename(&aside, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

const NAME: &str = "tune.json";
const SCHEMA: &str = "dwcp.tuned/1";
const BYTES_MAX: usize = 1 << 20;
