//! The road between the two nodes: two network namespaces of our own joined by a veth pair where we may, else
//! loopback. Called by the demo; removed by its janitor.
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::janitor::Janitor;
use crate::shell;

/// Where a node runs and listens.
#[derive(Debug)]
pub(super) struct Site {
    /// Network namespace, or `None` for that of the machine.
    pub(super) namespace: Option<String>,
    /// Address and port for peers.
    pub(super) peer_listen: String,
    /// Address and port of the HTTP interface.
    pub(super) api_listen: String,
}

impl Site {
    /// A command that runs in the site's network.
    pub(super) fn command(&self, program: &std::path::Path) -> Command {
        let Some(namespace) = &self.namespace else { return shell::command(program) };
        let mut command = shell::command("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

/// Makes the sites, and says in one line what they are.
///
/// # Errors
/// There is not even loopback.
pub(super) fn lay(janitor: &mut Janitor) -> Result<([Site; 2], String)> {
    let trouble = if !shell::is_root() {
        "not root".to_owned()
    } else {
        match namespaces(janitor) {
            Ok(sites) => {
                let road = "two network namespaces, 10.77.0.1 and 10.77.0.2 on a veth pair".to_owned();
                return Ok((sites, road));
            }
            Err(error) => format!("{error:#}"),
        }
    };
    let sites = [loopback()?, loopback()?];
    Ok((sites, format!("loopback of this machine, without own network namespaces: {trouble}")))
}

fn namespaces(janitor: &mut Janitor) -> Result<[Site; 2]> {
    let names = ["a", "b"].map(|end| format!("dwcp-demo-{}-{end}", std::process::id()));
    for name in &names {
        janitor.namespace(name)?;
        ip(&["netns", "add", name])?;
    }
    let [first, second] = &names;
    // Each end is made inside its namespace: nothing appears on the machine's own network.
    ip(&["-n", first, "link", "add", "dwcp0", "type", "veth", "peer", "name", "dwcp0", "netns", second])?;
    for (name, address) in names.iter().zip(ADDRESSES) {
        ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", "dwcp0"])?;
        ip(&["-n", name, "link", "set", "dwcp0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
    }
    let [first, second] = names;
    let site = |name: String, address: &str| Site {
        namespace: Some(name),
        peer_listen: format!("{address}:9000"),
        api_listen: "127.0.0.1:8080".to_owned(),
    };
    Ok([site(first, ADDRESSES[0]), site(second, ADDRESSES[1])])
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::run_quietly(Command::new("ip").args(arguments)).map(drop)
}

fn loopback() -> Result<Site> {
    // Both held at once, so that they differ.
    let listeners = [free_port()?, free_port()?];
    let addresses = listeners.iter().map(|listener| listener.local_addr().map(|address| address.to_string()));
    let mut addresses: Vec<String> = addresses.collect::<Result<_, _>>()?;
    let api_listen = addresses.pop().unwrap_or_default();
    let peer_listen = addresses.pop().unwrap_or_default();
    Ok(Site { namespace: None, peer_listen, api_listen })
}

fn free_port() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").context("find a free port on 127.0.0.1")
}

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
