//! The part of the plan that the kernel programs carry out: classes of traffic, what belongs to them, the guard.
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use dwcp_abi::bpf;
use dwcp_abi::link::{Class, GuardMode, Kernel, Selector, SelectorKind, Setup};
use dwcp_config::Config;
use dwcp_sys::link::{LinkError, send_message};

use super::plan::congestion;

/// Sends it, between the exports and the plan's end.
pub(super) fn send(socket: &UnixStream, config: &Config) -> Result<(), LinkError> {
    send_message(socket, &Setup::Kernel(kernel(config)))?;
    for (name, rules) in config.classes.named() {
        let class = number(name);
        send_message(
            socket,
            &Setup::Class(Class {
                class,
                flow_bytes_per_s: rules.flow_rate.bytes_per_s(),
                peer_bytes_per_s: rules.peer_rate.bytes_per_s(),
                congestion: congestion(rules.congestion),
                // The configuration allows 15 at most.
                priority: rules.priority as u8,
            }),
        )?;
        for one in &rules.selectors.0 {
            send_message(socket, &Setup::Selector(selector(class, one)))?;
        }
    }
    Ok(())
}

fn kernel(config: &Config) -> Kernel<'_> {
    Kernel {
        enabled: config.ebpf.enabled,
        cgroup: config.ebpf.cgroup.as_os_str().as_bytes(),
        guard: match config.guard.mode {
            dwcp_config::GuardMode::Off => GuardMode::Off,
            dwcp_config::GuardMode::On => GuardMode::On,
            dwcp_config::GuardMode::Force => GuardMode::Force,
        },
        guard_source_per_s: config.guard.source_rate,
        guard_total_per_s: config.guard.total_rate,
    }
}

/// The class of a name; the configuration has no other names than the kernel programs.
fn number(name: &str) -> u8 {
    bpf::Class::ALL.into_iter().find(|class| class.name() == name).map_or(0, |class| class.number() as u8)
}

fn selector(class: u8, one: &dwcp_config::Selector) -> Selector<'_> {
    let mut message = Selector {
        class,
        kind: SelectorKind::Port,
        protocol: 0,
        local_port: 0,
        remote_port: 0,
        local: [0; 16],
        remote: [0; 16],
        value: 0,
        path: &[],
    };
    match one {
        dwcp_config::Selector::Port(protocol, port) => {
            (message.protocol, message.local_port) = (protocol.number(), *port);
        }
        dwcp_config::Selector::Connection(protocol, local, remote) => {
            (message.kind, message.protocol) = (SelectorKind::Connection, protocol.number());
            (message.local, message.local_port) = end(*local);
            (message.remote, message.remote_port) = end(*remote);
        }
        dwcp_config::Selector::Dscp(code) => {
            (message.kind, message.value) = (SelectorKind::Dscp, u32::from(*code));
        }
        dwcp_config::Selector::Mark(mark) => (message.kind, message.value) = (SelectorKind::Mark, *mark),
        dwcp_config::Selector::Cgroup(path) => {
            (message.kind, message.path) = (SelectorKind::Cgroup, path.as_os_str().as_bytes());
        }
    }
    message
}

fn end(address: SocketAddr) -> ([u8; 16], u16) {
    let octets = match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    (octets, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_the_configuration_has_a_number() {
        let config = Config::default();
        let numbers: Vec<u8> = config.classes.named().iter().map(|(name, _)| number(name)).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn selectors_say_what_they_are() {
        let config = dwcp_config::parse(
            "classes:\n  tunnel:\n    match: [udp/4789, \"tcp/10.0.0.1:5-10.0.0.2:6\", mark/7, cgroup/a/b]\n",
            "test",
        )
        .unwrap();
        let found: Vec<Selector<'_>> =
            config.classes.tunnel.selectors.0.iter().map(|one| selector(2, one)).collect();
        assert_eq!((found[0].kind, found[0].protocol, found[0].local_port), (SelectorKind::Port, 17, 4789));
        assert_eq!((found[1].local_port, found[1].remote_port, found[1].remote[15]), (5, 6, 2));
        assert_eq!((found[2].kind, found[2].value), (SelectorKind::Mark, 7));
        assert_eq!(found[3].path, b"a/b");
    }
}
