//! Where the daemon listens: what the arguments say, else the first place where somebody answers.
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dwcp_api::client::Endpoint;

use crate::exit::Failure;

/// What the arguments and the environment say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// `--socket` or `$DWCP_SOCKET`.
    pub(crate) socket: Option<PathBuf>,
    /// `--addr`.
    pub(crate) address: Option<String>,
    /// `$DWCP_RUNTIME_DIR`, else `$RUNTIME_DIRECTORY`: one or several separated by colons (systemd.exec(5)).
    pub(crate) runtime_directory: Option<PathBuf>,
}

/// The endpoint to use. Sockets that nobody serves are passed over; the last resort is [`TCP_DEFAULT`].
pub(crate) fn find(wanted: &Wanted) -> Result<Endpoint, Failure> {
    if let Some(address) = &wanted.address {
        return parse_address(address).map(Endpoint::Tcp);
    }
    if let Some(socket) = &wanted.socket {
        return Ok(Endpoint::Unix(socket.clone()));
    }
    let served =
        usual_sockets(wanted.runtime_directory.as_deref()).into_iter().find(|socket| is_served(socket));
    Ok(served.map_or_else(|| Endpoint::Tcp(TCP_DEFAULT.to_owned()), Endpoint::Unix))
}

/// Every socket that is tried without `--socket` and `--addr`, in order.
pub(crate) fn usual_sockets(runtime_directory: Option<&Path>) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    if let Some(directories) = runtime_directory {
        sockets.extend(std::env::split_paths(directories).map(|directory| directory.join(SOCKET_NAME)));
    }
    for directory in RUNTIME_DIRECTORIES {
        sockets.push(Path::new(directory).join(SOCKET_NAME));
    }
    sockets
}

/// A socket that only lacks the permission is the right one: its error says what to do.
fn is_served(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// `host:port`, with or without `http://` before and `/` behind.
fn parse_address(text: &str) -> Result<String, Failure> {
    if text.starts_with("https://") {
        return Err(Failure::usage("--addr: https is not supported")
            .with_hint("use http:// on a trusted network, or the socket by way of `ssh -L`"));
    }
    let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').unwrap_or(("", ""));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty()
        || port.parse::<u16>().is_err()
        || (host.contains(':') && !bracketed)
        || host.contains('/')
    {
        return Err(Failure::usage(format!("--addr: '{text}' is not http://HOST:PORT")));
    }
    Ok(authority.to_owned())
}

/// Directories that control makes its socket in, in the order of its own search.
pub(crate) const RUNTIME_DIRECTORIES: [&str; 2] = ["/run/dwcp", "/var/lib/dwcp/run"];
const SOCKET_NAME: &str = "control.sock";
const TCP_DEFAULT: &str = "127.0.0.1:8080";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://node-1:80/", "node-1:80"),
            ("localhost:8080", "localhost:8080"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(parse_address(text).unwrap(), authority);
        }
        for text in
            ["", "node", "node:", "node:99999", "https://node:8443", "::1:8080", "http://node:80/path", ":80"]
        {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arguments_win_and_the_rest_is_searched() {
        let wanted = Wanted { socket: Some("/x".into()), ..Wanted::default() };
        assert_eq!(find(&wanted).unwrap(), Endpoint::Unix("/x".into()));
        let sockets = usual_sockets(Some(Path::new("/run/a:/run/b")));
        let expected = [
            "/run/a/control.sock",
            "/run/b/control.sock",
            "/run/dwcp/control.sock",
            "/var/lib/dwcp/run/control.sock",
        ];
        assert_eq!(sockets, expected.map(PathBuf::from));
    }
}
