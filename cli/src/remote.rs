//! `PEER:PATH` arguments. Paths are bytes; the peer is a name of the configuration, never an address.
use std::ffi::{OsStr, OsString};
use std::net::Ipv6Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use dwcp_api::PathText;

use crate::exit::Failure;

/// A place at a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// Name in the configuration.
    pub(crate) peer: String,
    /// `/absolute/below/an/export` or `export/below`.
    pub(crate) path: PathText,
}

impl Remote {
    /// Splits at the first colon.
    pub(crate) fn parse(argument: &OsStr) -> Result<Self, Failure> {
        let shown = argument.to_string_lossy();
        let bytes = argument.as_bytes();
        let Some(colon) = bytes.iter().position(|&byte| byte == b':') else {
            return Err(Failure::usage(format!("'{shown}' names no peer"))
                .with_hint("write PEER:PATH, such as berlin:/srv/data; `dwcp peers` lists the peers"));
        };
        if looks_like_ipv6(bytes) {
            return Err(Failure::usage(format!("'{shown}' looks like an IPv6 address"))
                .with_hint("peers go by their names in the configuration; `dwcp peers` lists them"));
        }
        let (name, path) = (&bytes[..colon], &bytes[colon + 1..]);
        if name.is_empty() {
            return Err(Failure::usage(format!("'{shown}' has no peer's name before the colon")));
        }
        if name.contains(&b'/') {
            return Err(Failure::usage(format!(
                "'{shown}' is a local path: its first '/' is before its first ':'"
            ))
            .with_hint("write PEER:PATH, such as berlin:/srv/data; `dwcp peers` lists the peers"));
        }
        let Ok(peer) = String::from_utf8(name.to_vec()) else {
            return Err(Failure::usage(format!("the peer's name in '{shown}' is not UTF-8")));
        };
        if path.is_empty() {
            return Err(Failure::usage(format!("'{shown}' names no path at the peer"))
                .with_hint(format!("write {peer}:EXPORT, {peer}:EXPORT/below or {peer}:/absolute/path")));
        }
        let path = PathText::new(path).map_err(|error| Failure::usage(format!("'{shown}': {error}")))?;
        Ok(Self { peer, path })
    }
}

/// A local path, made absolute as the daemon runs elsewhere; links are left for the daemon to follow.
pub(crate) fn local(argument: &OsStr) -> Result<PathText, Failure> {
    let shown = argument.to_string_lossy();
    let absolute = std::path::absolute(argument)
        .map_err(|error| Failure::usage(format!("'{shown}' cannot be made absolute: {error}")))?;
    let bytes = OsString::from(absolute).into_vec();
    PathText::new(bytes).map_err(|error| Failure::usage(format!("'{shown}': {error}")))
}

/// `[…]` or colons as in `fe80::1:/path`.
fn looks_like_ipv6(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"[") || bytes.starts_with(b"::") {
        return true;
    }
    let Some(last) = bytes.iter().rposition(|&byte| byte == b':') else {
        return false;
    };
    let candidates = [&bytes[..last], bytes];
    candidates.iter().any(|text| std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(argument: &[u8]) -> Result<(String, Vec<u8>), String> {
        match Remote::parse(OsStr::from_bytes(argument)) {
            Ok(remote) => Ok((remote.peer, remote.path.as_bytes().to_vec())),
            Err(failure) => Err(failure.message),
        }
    }

    #[test]
    fn the_first_colon_parts_peer_and_path() {
        for (argument, peer, path) in [
            (&b"berlin:/srv/data"[..], "berlin", &b"/srv/data"[..]),
            (b"berlin:export/below", "berlin", b"export/below"),
            (b"berlin:/a:b", "berlin", b"/a:b"),
            (b"berlin::odd", "berlin", b":odd"),
            (b"node-1.example:x y", "node-1.example", b"x y"),
            (b"10.0.0.1:/srv", "10.0.0.1", b"/srv"),
            ("köln:/дані".as_bytes(), "köln", "/дані".as_bytes()),
            (b"berlin:/\xff", "berlin", b"/\xff"),
            (b"berlin:-x", "berlin", b"-x"),
        ] {
            assert_eq!(parsed(argument), Ok((peer.to_owned(), path.to_vec())));
        }
    }

    #[test]
    fn what_is_not_peer_and_path_says_why() {
        for (argument, part) in [
            (&b"/srv/data"[..], "names no peer"),
            (b"", "names no peer"),
            (b"./a:b", "is a local path"),
            (b"/srv:x", "is a local path"),
            (b":/srv", "no peer's name"),
            (b"berlin:", "names no path"),
            (b"[::1]:/srv", "IPv6"),
            (b"::1", "IPv6"),
            (b"fe80::1:/srv", "IPv6"),
            (b"2001:db8::7:/srv", "IPv6"),
            (b"2001:db8::7", "IPv6"),
            (b"\xff:/srv", "not UTF-8"),
        ] {
            let message = parsed(argument).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn local_paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(local(OsStr::new("a/b")).unwrap().as_path(), here.join("a/b"));
        assert_eq!(local(OsStr::new("/a/")).unwrap().as_bytes(), b"/a/");
        assert!(local(OsStr::new("")).is_err());
    }
}
