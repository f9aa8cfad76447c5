//! Which server, how it is reached, and how this node shows who it is. The password is in a file of its own and is read at
//! every connection, so that it can be changed.
use std::path::PathBuf;
use std::time::Duration;

use dwcp_config::State;
use postgres::config::{Host, SslMode};
use postgres::{Client, NoTls};

use super::tls::Tls;
use crate::store::database::Fault;

/// As configured.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    config: Box<postgres::Config>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

impl Server {
    /// Reads the configuration.
    ///
    /// # Errors
    /// What is wrong with the address, and the key to change.
    pub(crate) fn new(state: &State) -> Result<Self, String> {
        let mut config: postgres::Config = state
            .postgres_url
            .parse()
            .map_err(|error| format!("`state.postgres_url` is no address of a PostgreSQL server: {error}"))?;
        if config.get_hosts().is_empty() {
            return Err("`state.postgres_url` names no host: postgres://USER@HOST/DATABASE".into());
        }
        if config.get_password().is_some() {
            return Err("`state.postgres_url` has a password, which everybody could read: put it into a file, and the \
                file's name into `state.postgres_password_file`"
                .into());
        }
        let named = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let ca_file = named(&state.postgres_ca_file);
        match (&ca_file, config.get_ssl_mode()) {
            (Some(_), _) => {
                config.ssl_mode(SslMode::Require);
            }
            (None, SslMode::Require) => {
                return Err("`sslmode=require` needs `state.postgres_ca_file`: encryption without knowing the server \
                    protects from nobody"
                    .into());
            }
            (None, _) => {
                config.ssl_mode(SslMode::Disable);
            }
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(SILENCE_MAX).application_name("dwcp");
        Ok(Self { config: Box::new(config), password_file: named(&state.postgres_password_file), ca_file })
    }

    /// Host and database, without user and secrets.
    pub(crate) fn name(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        format!("{host}/{}", self.config.get_dbname().unwrap_or_default())
    }

    /// Connects.
    pub(super) fn connect(&self) -> Result<Client, Fault> {
        let mut config = self.config.clone();
        if let Some(file) = &self.password_file {
            let password = std::fs::read_to_string(file)
                .map_err(|error| Fault::Away(format!("{} cannot be read: {error}", file.display())))?;
            config.password(password.trim_end_matches(['\r', '\n']));
        }
        Ok(match &self.ca_file {
            Some(file) => config.connect(Tls::new(file).map_err(Fault::Away)?)?,
            None => config.connect(NoTls)?,
        })
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What was sent and is not acknowledged for so long means that the server is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, ca_file: &str) -> Result<Server, String> {
        Server::new(&State { postgres_url: url.into(), postgres_ca_file: ca_file.into(), ..State::default() })
    }

    #[test]
    fn secrets_and_half_measures_are_refused() {
        assert_eq!(server("postgres://dwcp@db.example/dwcp", "").unwrap().name(), "db.example/dwcp");
        assert!(server("postgres://dwcp:secret@db/dwcp", "").unwrap_err().contains("postgres_password_file"));
        assert!(
            server("postgres://dwcp@db/dwcp?sslmode=require", "").unwrap_err().contains("postgres_ca_file")
        );
        assert!(server("mysql://db", "").is_err());
        assert!(server("", "").unwrap_err().contains("postgres://"));
    }
}
