//! The command line, and the places that follow from it. Used by `main`.
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use dwcp_config::Config;

/// The half of DWCP that decides: HTTP interface, jobs, health. Moves no payload.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    /// Configuration file [default: $DWCP_CONFIG, else the first in /etc/dwcp]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the job store lies
    #[arg(long, value_name = "DIR", env = "DWCP_STATE_DIR", default_value = "/var/lib/dwcp/state")]
    pub(crate) state_dir: PathBuf,
    /// Where the sockets are made [default: $RUNTIME_DIRECTORY, else /run/dwcp, else /var/lib/dwcp/run]
    #[arg(long, value_name = "DIR", env = "DWCP_RUNTIME_DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Unix socket of the HTTP interface [default: api.socket, else control.sock in the run-time directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Socket of the dataplane [default: dataplane.sock in the run-time directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) dataplane_socket: Option<PathBuf>,
    /// Address of the HTTP interface instead of api.listen
    #[arg(long, value_name = "ADDR:PORT", overrides_with = "listen")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Address of the HTTPS interface instead of api.tls_listen
    #[arg(long, value_name = "ADDR:PORT", overrides_with = "tls_listen")]
    pub(crate) tls_listen: Option<std::net::SocketAddr>,
    /// Check the configuration, print every mistake, start nothing (exit 78 where there are any)
    #[arg(long)]
    pub(crate) validate: bool,
}

/// Every path and address that this process uses.
pub(crate) struct Places {
    pub(crate) store: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) dataplane_socket: PathBuf,
    pub(crate) listen: std::net::SocketAddr,
    pub(crate) tls_listen: std::net::SocketAddr,
}

impl Places {
    /// Decides the places and creates their directories.
    pub(crate) fn new(arguments: &Arguments, config: &Config) -> anyhow::Result<Self> {
        make_directory(&arguments.state_dir)?;
        let runtime_dir = runtime_dir(arguments.runtime_dir.as_deref())?;
        let from_config = Some(&config.api.socket).filter(|path| !path.as_os_str().is_empty()).cloned();
        let socket =
            arguments.socket.clone().or(from_config).unwrap_or_else(|| runtime_dir.join("control.sock"));
        let dataplane_socket =
            arguments.dataplane_socket.clone().unwrap_or_else(|| runtime_dir.join("dataplane.sock"));
        let listen = arguments.listen.unwrap_or(config.api.listen);
        let tls_listen = arguments.tls_listen.unwrap_or(config.api.tls_listen);
        Ok(Self {
            store: arguments.state_dir.join("control.db"),
            socket,
            dataplane_socket,
            listen,
            tls_listen,
        })
    }
}

fn runtime_dir(wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(directory) = wanted {
        make_directory(directory)?;
        return Ok(directory.to_owned());
    }
    if let Some(directories) = std::env::var_os("RUNTIME_DIRECTORY")
        && let Some(first) = std::env::split_paths(&directories).next()
    {
        return Ok(first);
    }
    let mut last = None;
    for directory in ["/run/dwcp", "/var/lib/dwcp/run"].map(PathBuf::from) {
        match make_directory(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no run-time directory")).context("give --runtime-dir DIR"))
}

fn make_directory(directory: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .with_context(|| format!("cannot create {}", directory.display()))
}
