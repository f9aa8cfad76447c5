//! What belongs to a class of traffic, as an operator writes it: `tcp/5001`, `udp/4789`, `dscp/46`, `mark/0x10`,
//! `cgroup/system.slice/backup.service`, `tcp/10.0.0.1:5000-10.0.0.2:80`.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::value::{Value, read_joined, shorten};
use crate::yaml::{Complaint, Content, Node};

/// One thing that packets are told by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A port at either end.
    Port(Protocol, u16),
    /// One connection: this host's end and the other's.
    Connection(Protocol, SocketAddr, SocketAddr),
    /// A differentiated services code point, 0 to 63.
    Dscp(u8),
    /// A mark of the firewall.
    Mark(u32),
    /// A control group, by its path below the mount point of cgroup2.
    Cgroup(PathBuf),
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

impl Protocol {
    /// Its number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// `classes.*.match`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selectors(pub Vec<Selector>);

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |protocol: &Protocol| match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match self {
            Self::Port(protocol, port) => write!(f, "{}/{port}", name(protocol)),
            Self::Connection(protocol, local, remote) => write!(f, "{}/{local}-{remote}", name(protocol)),
            Self::Dscp(code) => write!(f, "dscp/{code}"),
            Self::Mark(mark) => write!(f, "mark/{mark:#x}"),
            Self::Cgroup(path) => write!(f, "cgroup/{}", path.display()),
        }
    }
}

fn selector(text: &str) -> Option<Selector> {
    let (kind, rest) = text.split_once('/')?;
    match kind {
        "tcp" => ports(Protocol::Tcp, rest),
        "udp" => ports(Protocol::Udp, rest),
        "dscp" => rest.parse().ok().filter(|&code| code <= DSCP_MAX).map(Selector::Dscp),
        "mark" => mark(rest).map(Selector::Mark),
        "cgroup" => {
            let path = PathBuf::from(rest.trim_matches('/'));
            let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            (is_plain && !rest.is_empty()).then_some(Selector::Cgroup(path))
        }
        _ => None,
    }
}

fn ports(protocol: Protocol, text: &str) -> Option<Selector> {
    if let Some((local, remote)) = text.split_once('-') {
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().ok()?, remote.parse().ok()?);
        let is_one_version = local.is_ipv4() == remote.is_ipv4();
        return is_one_version.then_some(Selector::Connection(protocol, local, remote));
    }
    text.parse().ok().filter(|&port| port != 0).map(|port| Selector::Port(protocol, port))
}

fn mark(text: &str) -> Option<u32> {
    let mark = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    mark.ok().filter(|&mark| mark != 0)
}

impl Value for Selectors {
    fn kind() -> String {
        "list of selectors".into()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        if words.len() > SELECTORS_MAX {
            return Err(format!("expected at most {SELECTORS_MAX} selectors"));
        }
        let one = |word: &&str| {
            selector(word).ok_or_else(|| {
                format!(
                    "`{}` is no selector: expected tcp/PORT, udp/PORT, tcp/ADDRESS:PORT-ADDRESS:PORT, dscp/0 to dscp/63, mark/NUMBER or cgroup/PATH",
                    shorten(word)
                )
            })
        };
        words.iter().map(one).collect::<Result<_, _>>().map(Self)
    }
    fn show(&self) -> String {
        self.0.iter().map(Selector::to_string).collect::<Vec<_>>().join(",")
    }
    fn read(node: &Node) -> Result<Self, Complaint> {
        match &node.value {
            Content::Nothing => Ok(Self::default()),
            Content::List(items) if items.is_empty() => Ok(Self::default()),
            _ => read_joined(node),
        }
    }
}

const DSCP_MAX: u8 = 63;
/// Of one class; the kernel's tables hold 256 of each kind.
const SELECTORS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_as_it_was_written() {
        let text = "tcp/5001,udp/4789,dscp/46,mark/0x10,cgroup/system.slice/backup.service,\
                    tcp/10.0.0.1:5000-10.0.0.2:80,udp/[2001:db8::1]:1-[2001:db8::2]:2";
        assert_eq!(Selectors::parse(text).unwrap().show(), text);
        assert_eq!(Selectors::parse("mark/16, tcp/1").unwrap().show(), "mark/0x10,tcp/1");
        assert_eq!(Selectors::parse("").unwrap(), Selectors::default());
    }

    #[test]
    fn what_is_none_is_named() {
        for text in [
            "5001",
            "tcp/0",
            "tcp/70000",
            "icmp/1",
            "dscp/64",
            "mark/0",
            "mark/0xg",
            "cgroup/",
            "cgroup/../x",
            "tcp/10.0.0.1:1-[::1]:2",
            "tcp/a:1-b:2",
            "tcp/1,,",
        ] {
            let message = Selectors::parse(text).unwrap_err();
            assert!(message.contains("is no selector"), "{text}: {message}");
        }
        assert!(Selectors::parse(&"tcp/1,".repeat(70)).unwrap_err().contains("at most"));
    }
}
