//! The shipped alerts: Prometheus itself accepts them, and its own test runner tries each, on idle and disabled nodes
//! too. Skipped with a line where promtool is not there; `cargo xtask setup --for test` brings it.
use std::path::{Path, PathBuf};
use std::process::Command;

fn promtool() -> Option<Command> {
    let target = std::env::current_exe().ok()?.ancestors().nth(3)?.join("tools/promtool");
    let found = [target, PathBuf::from("promtool")].into_iter().find(|program| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        println!("skipped: promtool is not installed (cargo xtask setup --for test)");
    }
    found.map(Command::new)
}

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/prometheus")
}

/// Exit status and all that was said.
fn ran(arguments: &[&str], file: &Path) -> Option<(bool, String)> {
    let output = promtool()?.args(arguments).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Some((output.status.success(), said.concat()))
}

#[test]
fn prometheus_accepts_the_rules() {
    let Some((is_fine, said)) =
        ran(&["check", "rules", "--lint=all", "--lint-fatal"], &rules().join("dwcp.rules.yml"))
    else {
        return;
    };
    assert!(is_fine, "{said}");
}

#[test]
fn every_alert_fires_when_it_should_and_not_on_idle_nodes() {
    let Some((is_fine, said)) = ran(&["test", "rules"], &rules().join("dwcp.rules.test.yml")) else { return };
    assert!(is_fine, "{said}");
    let alerts = std::fs::read_to_string(rules().join("dwcp.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(rules().join("dwcp.rules.test.yml")).unwrap();
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is never seen firing");
    }
}

#[test]
fn a_wrong_rule_would_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.yml");
    std::fs::write(&file, "groups: [{name: a, rules: [{alert: B, expr: 'sum('}]}]\n").unwrap();
    let Some((is_fine, said)) = ran(&["check", "rules"], &file) else { return };
    assert!(!is_fine, "{said}");
}
