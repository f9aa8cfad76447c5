//! What every subcommand needs: how to reach the daemon and how to speak to the person.
use std::path::PathBuf;
use std::time::Duration;

use dwcp_api::client::Client;

use crate::arguments::Global;
use crate::endpoint::{self, Wanted};
use crate::exit::Failure;
use crate::output::{self, Colour};

/// The global arguments, understood.
#[derive(Debug)]
pub(crate) struct Context {
    wanted: Wanted,
    timeout: Option<Duration>,
    /// Results as JSON.
    pub(crate) json: bool,
    /// No notes, no progress.
    pub(crate) quiet: bool,
    /// Says whom it asks.
    pub(crate) verbose: bool,
    /// For stdout.
    pub(crate) colour: Colour,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let variable = || std::env::var_os("DWCP_SOCKET").filter(|value| !value.is_empty());
        let wanted = Wanted {
            socket: global.socket.or_else(|| variable().map(Into::into)),
            address: global.addr,
            runtime_directory: RUNTIME_VARIABLES.iter().find_map(std::env::var_os).map(Into::into),
        };
        // https://no-color.org: any value but the empty one counts.
        let refused = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = if refused || !output::stdout_is_terminal() { Colour::Never } else { Colour::Always };
        Self {
            wanted,
            timeout: global.timeout,
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            colour,
        }
    }

    /// A client of the daemon that the arguments mean.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let endpoint = endpoint::find(&self.wanted)?;
        if self.verbose {
            self.note(&format!("asking {endpoint}"));
        }
        Ok(Client::new(endpoint, self.timeout.unwrap_or(REQUEST_TIMEOUT)))
    }

    /// How long a daemon that went away may take to come back.
    pub(crate) fn return_timeout(&self) -> Duration {
        self.timeout.unwrap_or(RETURN_TIMEOUT)
    }

    /// How long to wait for something that takes `usual`.
    pub(crate) fn timeout_or(&self, usual: Duration) -> Duration {
        self.timeout.unwrap_or(usual)
    }

    /// The sockets that the halves of this node may listen at.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let control = match &self.wanted.socket {
            Some(socket) => vec![socket.clone()],
            None => endpoint::usual_sockets(self.wanted.runtime_directory.as_deref()),
        };
        let dataplane = control.iter().map(|socket| socket.with_file_name(DATAPLANE_SOCKET));
        dataplane.chain(control.iter().cloned()).collect()
    }

    /// Says something beside the result.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            output::error(line);
        }
    }
}

/// What says where the daemon's sockets are: for people, and by systemd.exec(5).
const RUNTIME_VARIABLES: [&str; 2] = ["DWCP_RUNTIME_DIR", "RUNTIME_DIRECTORY"];
/// Beside control's.
const DATAPLANE_SOCKET: &str = "dataplane.sock";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the longest pause of the supervisor and a start of control.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);
