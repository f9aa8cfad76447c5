//! Tunnels as they are written: `LISTEN PEER:HOST:PORT` for one that begins here, `PEER:HOST:PORT` for targets that peers
//! may be connected to here. The same words stand in files, in `dwcp tunnel add` and in the API.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::value::{LIST_MAX, Value, shorten};
use crate::yaml::{Complaint, Content, Node};

/// A listener here, and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Where programs connect.
    pub listen: SocketAddr,
    /// Name of the peer that connects the target.
    pub peer: String,
    /// `host:port`, as seen from the peer.
    pub target: String,
}

/// Targets that peers' tunnels may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelAllow {
    /// Which peer; none = every peer.
    pub peer: Option<String>,
    /// The host as tunnels have to name it, without brackets; none = every host.
    pub host: Option<String>,
    /// Which ports.
    pub ports: RangeInclusive<u16>,
}

/// `tunnels.*`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the key table documents every field where operators read it")]
pub struct Tunnels {
    pub listen: Vec<Tunnel>,
    pub allow: Vec<TunnelAllow>,
    pub listen_beyond_loopback: bool,
}

impl Tunnel {
    /// Reads the two words of a tunnel. A port alone listens at loopback.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn new(listen: &str, destination: &str) -> Result<Self, String> {
        let (peer, target) = destination.split_once(':').ok_or_else(|| wrong_destination(destination))?;
        let (host, port) = split(target).ok_or_else(|| wrong_destination(destination))?;
        if peer.is_empty() || host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err(wrong_destination(destination));
        }
        Ok(Self { listen: parse_listen(listen)?, peer: peer.to_owned(), target: target.to_owned() })
    }
}

impl FromStr for Tunnel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(listen), Some(destination), None) => Self::new(listen, destination),
            _ => Err("expected LISTEN PEER:HOST:PORT such as `127.0.0.1:15432 paris:127.0.0.1:5432`".into()),
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.listen, self.peer, self.target)
    }
}

impl FromStr for TunnelAllow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "expected PEER:HOST:PORT such as `paris:127.0.0.1:5432`; `*` stands for all, 8000-8099 for a range of ports"
                .to_owned()
        };
        let (peer, target) = text.split_once(':').ok_or_else(wrong)?;
        let (host, ports) = split(target).ok_or_else(wrong)?;
        if peer.is_empty() || host.is_empty() || text.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let ports = match ports {
            "*" => 1..=u16::MAX,
            ports => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let port = |text: &str| text.parse().ok().filter(|&port: &u16| port != 0).ok_or_else(wrong);
                port(first)?..=port(last)?
            }
        };
        if ports.is_empty() {
            return Err("the range of ports ends before it begins".into());
        }
        let unless_all = |text: &str| (text != "*").then(|| text.to_owned());
        Ok(Self { peer: unless_all(peer), host: unless_all(host), ports })
    }
}

impl fmt::Display for TunnelAllow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("*");
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}:{open}{host}{close}:", self.peer.as_deref().unwrap_or("*"))?;
        match (*self.ports.start(), *self.ports.end()) {
            (1, u16::MAX) => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Host, without brackets, and port.
fn split(target: &str) -> Option<(&str, &str)> {
    if target.len() > TARGET_BYTES_MAX {
        return None;
    }
    let (host, port) = target.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(host) => Some((host.strip_suffix(']')?, port)),
        None if host.contains(':') => None,
        None => Some((host, port)),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let host = if host == "localhost" { Some(IpAddr::from(Ipv4Addr::LOCALHOST)) } else { None };
    match (host, port.parse()) {
        (Some(host), Ok(port)) => Ok(SocketAddr::new(host, port)),
        _ => text.parse().map_err(|_| {
            format!(
                "expected a port, or an address to listen at such as 127.0.0.1:15432, found `{}`",
                shorten(text)
            )
        }),
    }
}

fn wrong_destination(found: &str) -> String {
    format!("expected PEER:HOST:PORT such as `paris:127.0.0.1:5432`, found `{}`", shorten(found))
}

impl Value for Vec<Tunnel> {
    fn kind() -> String {
        "list of `LISTEN PEER:HOST:PORT`".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse_list(text)
    }
    fn show(&self) -> String {
        show_list(self)
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        read_list(node, &<Self as Value>::kind())
    }
    fn json(&self) -> serde_json::Value {
        self.iter().map(ToString::to_string).collect()
    }
}

impl Value for Vec<TunnelAllow> {
    fn kind() -> String {
        "list of `PEER:HOST:PORT`".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse_list(text)
    }
    fn show(&self) -> String {
        show_list(self)
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        read_list(node, &<Self as Value>::kind())
    }
    fn json(&self) -> serde_json::Value {
        self.iter().map(ToString::to_string).collect()
    }
}

/// Items between commas; none in an empty text.
fn parse_list<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items: Vec<T> = items.map(str::parse).collect::<Result<_, _>>()?;
    if items.len() > LIST_MAX { Err(format!("more than {LIST_MAX} items")) } else { Ok(items) }
}

fn show_list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn read_list<T: FromStr<Err = String>>(node: &Node, kind: &str) -> Result<Vec<T>, Complaint> {
    let complain =
        |at, message: String, text: &str| Complaint::new(at, format!("{message}, found `{}`", shorten(text)));
    match &node.value {
        Content::Nothing => Ok(Vec::new()),
        Content::Scalar(text) => parse_list(text).map_err(|message| complain(node.at, message, text)),
        Content::List(items) if items.len() <= LIST_MAX => {
            let one = |item: &Node| {
                let Content::Scalar(text) = &item.value else {
                    return Err(Complaint::new(item.at, format!("expected {kind}")));
                };
                text.parse().map_err(|message| complain(item.at, message, text))
            };
            items.iter().map(one).collect()
        }
        Content::List(_) => Err(Complaint::new(node.at, format!("more than {LIST_MAX} items"))),
        Content::Map(_) => Err(Complaint::new(node.at, format!("expected {kind}"))),
    }
}

/// A name (RFC 1035 §2.3.4), brackets, colon and port.
const TARGET_BYTES_MAX: usize = 262;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_written_as_they_are_read() {
        for (text, shown) in [
            ("15432 paris:127.0.0.1:5432", "127.0.0.1:15432 paris:127.0.0.1:5432"),
            (":80 p:db.example:5432", "127.0.0.1:80 p:db.example:5432"),
            ("localhost:80 p:[::1]:1", "127.0.0.1:80 p:[::1]:1"),
            ("[::1]:80  p:x:65535", "[::1]:80 p:x:65535"),
            ("0.0.0.0:80 p:x:1", "0.0.0.0:80 p:x:1"),
        ] {
            let tunnel: Tunnel = text.parse().unwrap();
            assert_eq!(tunnel.to_string(), shown);
            assert_eq!(shown.parse(), Ok(tunnel));
        }
        for text in [
            "",
            "80",
            "80 p",
            "80 p:5432",
            "80 :x:1",
            "80 p:x:0",
            "80 p:x:70000",
            "host:80 p:x:1",
            "80 p:::1:5",
            "80 p:x:1 more",
        ] {
            assert!(text.parse::<Tunnel>().is_err(), "{text}");
        }
    }

    #[test]
    fn allowances_are_written_as_they_are_read() {
        for text in ["paris:127.0.0.1:5432", "*:*:*", "p:db:8000-8099", "p:[::1]:80", "p:*:22"] {
            let allow: TunnelAllow = text.parse().unwrap();
            assert_eq!(allow.to_string(), text);
        }
        for text in ["", "p", "p:5432", "p:x:0", "p:x:9-8", "p:x:1-", ":x:1", "p::1", "p:x y:1", "p:::1:80"] {
            assert!(text.parse::<TunnelAllow>().is_err(), "{text}");
        }
    }
}
