//! What the kernel says of RDMA ports, without any library: `/sys/class/infiniband`. Called by [`super::device`] and by
//! whoever shows why there is no RDMA.
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// One port of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// The device's name, as in `rdma link`.
    pub device: String,
    /// The port's number, from 1.
    pub port: u8,
    /// `4: ACTIVE` where it can be used.
    pub state: String,
    /// `Ethernet` or `InfiniBand`.
    pub link_layer: String,
    /// Local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Its addresses.
    pub gids: Vec<Gid>,
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gid {
    /// Its place in the port's table.
    pub index: u8,
    /// The address.
    pub bytes: [u8; 16],
    /// `RoCE v2`, `IB/RoCE v1` or `unknown`.
    pub kind: String,
    /// The network interface that it belongs to; empty where it has none.
    pub interface: String,
}

impl PortFacts {
    /// Whether its link is up.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.contains("ACTIVE")
    }

    /// Whether packets travel over IP.
    #[must_use]
    pub fn is_ethernet(&self) -> bool {
        self.link_layer == "Ethernet"
    }

    /// The address to use towards `theirs`, where it is known already; `near` is this node's address of the connection
    /// that the ends have met on.
    #[must_use]
    pub fn choose(&self, near: IpAddr, theirs: Option<[u8; 16]>) -> Option<&Gid> {
        let near = match near.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let usable = self.gids.iter().filter(|gid| !self.is_ethernet() || gid.kind == "RoCE v2");
        let family = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_ipv4_mapped().is_some();
        let wanted = theirs.map(family);
        usable.max_by_key(|gid| {
            let address = Ipv6Addr::from(gid.bytes);
            let fits = wanted.is_none_or(|wanted| wanted == family(gid.bytes));
            let local_only = address.is_unicast_link_local();
            // The first of equals counts, so that the choice does not depend on later addresses.
            (fits, address == near, family(gid.bytes), !local_only, std::cmp::Reverse(gid.index))
        })
    }
}

impl Gid {
    /// As an address is written.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.bytes)).to_canonical()
    }
}

/// All ports of all devices, by name and number.
#[must_use]
pub fn ports() -> Vec<PortFacts> {
    ports_below(Path::new(ROOT))
}

/// Whether the port is there and its link up.
pub(super) fn is_active(device: &str, port: u8) -> bool {
    text(&Path::new(ROOT).join(format!("{device}/ports/{port}/state"))).contains("ACTIVE")
}

fn ports_below(root: &Path) -> Vec<PortFacts> {
    let mut found = Vec::new();
    for device in names(root) {
        for port in names(&root.join(&device).join("ports")) {
            let Ok(number) = port.parse::<u8>() else { continue };
            let folder = root.join(&device).join("ports").join(&port);
            found.push(PortFacts {
                device: device.clone(),
                port: number,
                state: text(&folder.join("state")),
                link_layer: text(&folder.join("link_layer")),
                lid: u16::from_str_radix(text(&folder.join("lid")).trim_start_matches("0x"), 16).unwrap_or(0),
                gids: gids(&folder),
            });
        }
    }
    found
}

fn gids(port: &Path) -> Vec<Gid> {
    let mut found = Vec::new();
    for index in 0..=GID_INDEX_MAX {
        let Ok(written) = fs::read_to_string(port.join(format!("gids/{index}"))) else { break };
        let Ok(address) = written.trim().parse::<Ipv6Addr>() else { continue };
        if address.is_unspecified() {
            continue;
        }
        let kind = text(&port.join(format!("gid_attrs/types/{index}")));
        let kind = if kind.is_empty() { "unknown".to_owned() } else { kind };
        let interface = text(&port.join(format!("gid_attrs/ndevs/{index}")));
        found.push(Gid { index, bytes: address.octets(), kind, interface });
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A file's first line; empty where it cannot be read.
fn text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

const ROOT: &str = "/sys/class/infiniband";
/// Tables of real devices have up to 256 places; more than this is not looked at.
const GID_INDEX_MAX: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A port as soft-RoCE shows it on an interface with an IPv4 and two IPv6 addresses.
    fn port() -> PortFacts {
        let root = tempfile::TempDir::new().unwrap();
        let gids = [
            "fe80:0000:0000:0000:0011:22ff:fe33:4455",
            "0000:0000:0000:0000:0000:0000:0000:0000",
            "0000:0000:0000:0000:0000:ffff:0a00:0001",
            "0000:0000:0000:0000:0000:ffff:0a00:0002",
            "2001:0db8:0000:0000:0000:0000:0000:0001",
        ];
        for (index, gid) in gids.iter().enumerate() {
            write(root.path(), &format!("rxe0/ports/1/gids/{index}"), &format!("{gid}\n"));
            write(root.path(), &format!("rxe0/ports/1/gid_attrs/types/{index}"), "RoCE v2\n");
            write(root.path(), &format!("rxe0/ports/1/gid_attrs/ndevs/{index}"), "v0\n");
        }
        write(root.path(), "rxe0/ports/1/state", "4: ACTIVE\n");
        write(root.path(), "rxe0/ports/1/link_layer", "Ethernet\n");
        write(root.path(), "rxe0/ports/1/lid", "0x0\n");
        ports_below(root.path()).remove(0)
    }

    #[test]
    fn a_port_is_read_and_empty_places_of_its_table_are_left_out() {
        let port = port();
        assert_eq!((port.device.as_str(), port.port, port.lid), ("rxe0", 1, 0));
        assert!(port.is_active() && port.is_ethernet());
        assert_eq!(port.gids.iter().map(|gid| gid.index).collect::<Vec<_>>(), [0, 2, 3, 4]);
        assert_eq!(port.gids[1].address().to_string(), "10.0.0.1");
        assert_eq!(port.gids[1].interface, "v0");
        assert!(ports_below(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn the_address_of_the_connection_comes_first_then_ipv4_then_what_fits_the_other_end() {
        let port = port();
        let choose = |near: &str, theirs: Option<&str>| {
            let theirs = theirs.map(|theirs| theirs.parse::<Ipv6Addr>().unwrap().octets());
            port.choose(near.parse().unwrap(), theirs).unwrap().index
        };
        assert_eq!(choose("127.0.0.1", None), 2);
        assert_eq!(choose("10.0.0.2", None), 3);
        assert_eq!(choose("2001:db8::1", None), 4);
        assert_eq!(choose("10.0.0.2", Some("2001:db8::9")), 4);
        assert_eq!(choose("2001:db8::1", Some("::ffff:10.0.0.9")), 2);
        let none = PortFacts { gids: Vec::new(), ..port.clone() };
        assert_eq!(none.choose("10.0.0.2".parse().unwrap(), None), None);
        let mut old = port.clone();
        old.gids.iter_mut().for_each(|gid| gid.kind = "IB/RoCE v1".into());
        assert_eq!(old.choose("10.0.0.2".parse().unwrap(), None), None);
    }
}
