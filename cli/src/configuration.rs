//! Where this command finds a node's configuration, the same way as the daemons do. Used by whatever judges or needs
//! it; the reading itself is the config crate's.
use std::path::{Path, PathBuf};

use dwcp_config::{Findings, Loaded};

use crate::exit::{Code, Failure};

/// `file`, else `$DWCP_CONFIG`, else the first of the usual places that exists.
pub(crate) fn locate(file: Option<&Path>) -> Option<PathBuf> {
    dwcp_config::locate(file, std::env::var_os("DWCP_CONFIG").map(Into::into))
}

/// Loads what [`locate`] finds, and this process's environment.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded, Findings> {
    // Variables that are not UTF-8 cannot mean a key.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    dwcp_config::load(locate(file).as_deref(), environment)
}

/// As [`load`], for commands that need a valid one.
pub(crate) fn require(file: Option<&Path>) -> Result<Loaded, Failure> {
    load(file).map_err(|findings| {
        let count = findings.0.len();
        let what = if count == 1 { "a mistake".to_owned() } else { format!("{count} mistakes") };
        Failure::new(Code::Configuration, format!("the configuration has {what}\n{findings}"))
    })
}
