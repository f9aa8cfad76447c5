//! What the tests of the kernel programs share: the object, network namespaces, control groups.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use dwcp_abi::bpf::Class;
use dwcp_dataplane::bpf::{Interfaces, Options};

/// Where `cargo xtask build-ebpf` puts it.
pub(crate) fn object() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    Some(target.join("bpf/dwcp-ebpf")).filter(|path| path.is_file())
}

pub(crate) fn may_load() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The object, or a line that says why this machine cannot test it.
pub(crate) fn object_or_skip() -> Option<PathBuf> {
    if !may_load() {
        println!("skipped: needs root");
        return None;
    }
    let object = object();
    if object.is_none() {
        println!("skipped: no target/bpf/dwcp-ebpf, build it with `cargo xtask build-ebpf`");
    }
    object
}

/// Two namespaces joined by a veth pair; removed when dropped.
pub(crate) struct Pair {
    pub(crate) near: String,
    pub(crate) far: String,
}

impl Pair {
    pub(crate) fn new(tag: &str) -> Result<Self, String> {
        let id = std::process::id();
        let pair = Self { near: format!("dwcp-{tag}-n{id}"), far: format!("dwcp-{tag}-f{id}") };
        let (near, far) = (pair.near.as_str(), pair.far.as_str());
        ip(&["netns", "add", near])?;
        ip(&["netns", "add", far])?;
        ip(&["-n", near, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", far])?;
        for (namespace, name, host) in [(near, "v0", 1), (far, "v1", 2)] {
            ip(&["-n", namespace, "address", "add", &format!("10.77.0.{host}/24"), "dev", name])?;
            ip(&["-n", namespace, "address", "add", &format!("fd77::{host}/64"), "dev", name, "nodad"])?;
            ip(&["-n", namespace, "link", "set", name, "up"])?;
        }
        Ok(pair)
    }

    /// `tc` in the near namespace.
    pub(crate) fn near_tc(&self, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("tc").args(["-n", &self.near]).args(arguments).output();
        let output = output.map_err(|error| format!("tc: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("tc failed").to_owned())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            if let Err(complaint) = ip(&["netns", "delete", namespace]) {
                eprintln!("{complaint}");
            }
        }
    }
}

pub(crate) fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs `body` in a thread of its own inside a namespace.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let place = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let file = std::fs::File::open(place).expect("namespace");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        body()
    })
}

pub(crate) fn options(object: PathBuf, ports: Vec<(u16, Class)>) -> Options {
    Options { objects: vec![object], interfaces: Interfaces::External, ports, pins: None }
}
