//! The systemd units: systemd itself accepts them, and they expose as little as promised. Offline, without root.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Exposure that `systemd-analyze security` may report at most, times ten.
const EXPOSURE_MAX: [(&str, &str); 2] = [("dwcp-dataplane.service", "25"), ("dwcp-manager.service", "15")];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// `None`, with a line that says so, where systemd's tools are not installed.
fn analyze(arguments: &[&str], units: &[PathBuf]) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(arguments).args(units).output();
    if output.is_err() {
        println!("skipped: systemd-analyze is not installed");
    }
    output.ok()
}

/// The units as they are installed, but for programs that this machine has.
fn installed(folder: &Path) -> Vec<PathBuf> {
    let mut units = Vec::new();
    for entry in fs::read_dir(sources()).unwrap() {
        let source = entry.unwrap().path();
        let name = source.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".service") && !name.ends_with(".slice") {
            continue;
        }
        let text = fs::read_to_string(&source).unwrap();
        let lines = text.lines().map(|line| match line.split_once("=@") {
            Some(("ExecStart", _)) => "ExecStart=/bin/true",
            Some(("ExecStop", _)) => "ExecStop=/bin/true",
            _ => line,
        });
        let unit = folder.join(name);
        fs::write(&unit, lines.collect::<Vec<_>>().join("\n")).unwrap();
        units.push(unit);
    }
    units
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_accepts_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    let units = installed(folder.path());
    assert_eq!(units.len(), 4);
    let Some(output) = analyze(&["verify", "--man=no"], &units) else { return };
    let said = said(&output);
    // Unknown keys are warnings to systemd, and mistakes to us. It also speaks of other units on this machine.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("dwcp")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn systemd_accepts_the_example_of_a_drop_in() {
    let folder = tempfile::tempdir().unwrap();
    installed(folder.path());
    let drop_ins = folder.path().join("dwcp-dataplane.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::copy(sources().join("owners.conf"), drop_ins.join("owners.conf")).unwrap();
    let unit = folder.path().join("dwcp-dataplane.service");
    let Some(output) = analyze(&["verify", "--man=no"], &[unit]) else { return };
    let said = said(&output);
    assert!(output.status.success() && !said.contains("dwcp"), "{said}");
}

#[test]
fn a_wrong_key_would_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("dwcp-wrong.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\nNoSuchKey=yes\n").unwrap();
    let Some(output) = analyze(&["verify", "--man=no"], &[unit]) else { return };
    assert!(said(&output).contains("NoSuchKey"), "{}", said(&output));
}

#[test]
fn units_expose_little() {
    let folder = tempfile::tempdir().unwrap();
    installed(folder.path());
    for (name, threshold) in EXPOSURE_MAX {
        let unit = folder.path().join(name);
        let threshold = format!("--threshold={threshold}");
        let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &threshold], &[unit]) else {
            return;
        };
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
}
