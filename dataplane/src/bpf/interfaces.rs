//! Which interfaces there are in this network namespace, and which of them can be counted. Called by the classifier.
use std::collections::BTreeMap;

use nix::{ifaddrs::getifaddrs, libc, net::if_::InterfaceFlags};

use super::Interfaces;

/// Names of the interfaces that are wanted, up and have Ethernet headers, by their index. The index is the identity:
/// a name comes back when an interface is made anew.
///
/// # Errors
/// The kernel does not list interfaces.
pub(super) fn eligible(wanted: &Interfaces) -> Result<BTreeMap<u32, String>, nix::Error> {
    let links = getifaddrs()?.filter_map(|entry| {
        let address = entry.address?;
        let link = address.as_link_addr()?;
        let index = u32::try_from(link.ifindex()).ok()?;
        let found = Found { name: &entry.interface_name, flags: entry.flags, hardware: link.hatype() };
        found.is_eligible(wanted).then(|| (index, entry.interface_name.clone()))
    });
    Ok(links.take(INTERFACES_MAX).collect())
}

struct Found<'a> {
    name: &'a str,
    flags: InterfaceFlags,
    hardware: u16,
}

impl Found<'_> {
    /// Tunnels without link-layer headers are left out: their packets start with the IP header, and the classifier
    /// would read addresses as types.
    fn is_eligible(&self, wanted: &Interfaces) -> bool {
        let framed = matches!(self.hardware, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
        let up = self.flags.contains(InterfaceFlags::IFF_UP);
        framed
            && up
            && match wanted {
                Interfaces::External => !self.flags.contains(InterfaceFlags::IFF_LOOPBACK),
                Interfaces::All => true,
                Interfaces::Named(names) => names.iter().any(|name| name == self.name),
            }
    }
}

/// Hosts of containers have hundreds of interfaces; beyond this the rest is not counted.
const INTERFACES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn eth(flags: InterfaceFlags) -> Found<'static> {
        Found { name: "eth0", flags, hardware: libc::ARPHRD_ETHER }
    }

    #[test]
    fn only_what_is_up_and_framed() {
        assert!(eth(InterfaceFlags::IFF_UP).is_eligible(&Interfaces::External));
        assert!(!eth(InterfaceFlags::empty()).is_eligible(&Interfaces::All));
        let tunnel = Found { name: "tun0", flags: InterfaceFlags::IFF_UP, hardware: libc::ARPHRD_NONE };
        assert!(!tunnel.is_eligible(&Interfaces::Named(vec!["tun0".into()])));
    }

    #[test]
    fn loopback_is_asked_for() {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK;
        let lo = Found { name: "lo", flags, hardware: libc::ARPHRD_LOOPBACK };
        assert!(!lo.is_eligible(&Interfaces::External));
        assert!(lo.is_eligible(&Interfaces::All));
        assert!(lo.is_eligible(&Interfaces::Named(vec!["lo".into()])));
        assert!(!lo.is_eligible(&Interfaces::Named(vec!["eth0".into()])));
    }
}
