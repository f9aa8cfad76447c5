//! `dwcp tune` on real kernel parameters: those of a network namespace of its own, which the host does not see.
mod support;

use std::process::{Command, Output};

use support::run;

/// Removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root".into());
        }
        let name = format!("dwcp-tune-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.map_err(|error| format!("ip: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        Ok(Self(name))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new("ip").args(["netns", "exec", &self.0, program]).args(arguments).output().unwrap()
    }

    /// Parameters that belong to the namespace, as one text.
    fn parameters(&self) -> String {
        let names = ["tcp_rmem", "tcp_wmem", "tcp_slow_start_after_idle", "tcp_congestion_control"];
        let paths = names.map(|name| format!("/proc/sys/net/ipv4/{name}"));
        let output = self.run("cat", &paths.each_ref().map(String::as_str));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", &self.0]).output());
    }
}

#[test]
fn real_parameters_are_set_and_put_back() {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(reason) => return println!("skipped: no namespace: {reason}"),
    };
    // Parameters of the whole host are hidden below a file system of this process alone.
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let script = format!(
        "mount -t tmpfs none /proc/sys/net/core 2>/dev/null; exec '{}' tune --only sysctl --state-dir '{state}' \"$@\"",
        env!("CARGO_BIN_EXE_dwcp")
    );
    let tune = |what: &str| namespace.run("unshare", &["-m", "sh", "-c", &script, "sh", what]);
    // A namespace begins with what its maker has, which may be tuned already.
    let small = "echo '4096 131072 6291456' > /proc/sys/net/ipv4/tcp_rmem";
    assert!(namespace.run("sh", &["-c", small]).status.success());
    let before = namespace.parameters();
    let planned = String::from_utf8(tune("--plan").stdout).unwrap();
    assert!(planned.contains("net.ipv4.tcp_rmem") && !planned.contains("net.core"), "{planned}");
    assert_eq!(namespace.parameters(), before, "a plan changes nothing");
    let applied = tune("--apply");
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stdout));
    let after = namespace.parameters();
    assert!(after != before && after.contains("33554432"), "{after}");
    assert_eq!(String::from_utf8(tune("--plan").stdout).unwrap().lines().last(), Some("nothing to do"));
    let reverted = tune("--revert");
    assert!(reverted.status.success(), "{}", String::from_utf8_lossy(&reverted.stdout));
    assert_eq!(namespace.parameters(), before);
    assert!(!std::path::Path::new(state).join("tune.json").exists());
}

#[test]
fn a_plan_needs_no_daemon_and_says_what_it_is() {
    let ran = run(&["tune", "--json", "--only", "xps"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&document["schema"], &document["done"]), (&"dwcp.tune/1".into(), &"planned".into()));
}

#[test]
fn without_root_there_is_one_line_and_a_way_out() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: needs root to become somebody else");
    }
    use std::os::unix::process::CommandExt as _;
    // Where others may not look, the command is copied.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copy = folder.path().join("dwcp");
    // By another program: a child that another thread starts meanwhile would inherit our way of writing it, and what
    // somebody writes cannot be run (ETXTBSY).
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_dwcp")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let ran = Command::new(&copy).args(["tune", "--apply"]).uid(65534).gid(65534).output().unwrap();
    assert_eq!(ran.status.code(), Some(7));
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.starts_with("dwcp: only root may tune the host\n") && said.contains("sudo"), "{said}");
}
