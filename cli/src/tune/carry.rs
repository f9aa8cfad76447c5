//! Carries steps out and takes them back. Files are changed below a root, so that tests bring their own host.
use std::fs;
use std::path::Path;

use super::plan::{Change, Step};
use super::tools::run;

/// Makes a step's wanted value be the value.
///
/// # Errors
/// What refused, in one line.
pub(super) fn apply(root: &Path, step: &Step) -> Result<(), String> {
    match &step.change {
        Change::File(path) => write(root, path, &step.wanted),
        Change::Discipline { interface, queues } => discipline(interface, *queues),
        Change::Rings { interface } => rings(interface, &step.wanted),
        Change::AllowedCores { unit } => allowed_cores(unit, &step.wanted),
    }
}

/// Makes what was replaced be the value again.
///
/// # Errors
/// What refused, in one line.
pub(super) fn revert(root: &Path, step: &Step) -> Result<(), String> {
    match &step.change {
        Change::File(path) => write(root, path, &step.current),
        // The kernel puts its own choice back; ours was only ever put over that.
        Change::Discipline { interface, .. } => {
            run("tc", &["qdisc", "delete", "dev", interface, "root"]).map(drop)
        }
        Change::Rings { interface } => rings(interface, &step.current),
        Change::AllowedCores { unit } => allowed_cores(unit, &step.current),
    }
}

/// The value as it is now; `None` where it cannot be told.
pub(super) fn now(root: &Path, step: &Step) -> Option<String> {
    match &step.change {
        Change::File(path) => Some(plain(&fs::read_to_string(root.join(path)).ok()?)),
        Change::Discipline { interface, .. } => {
            let (own, leaves) = super::tools::disciplines(root, interface);
            let (kind, _) = own?;
            let has_fq = kind == "fq" || kind == "mq" && leaves.iter().all(|leaf| leaf == "fq");
            Some(if has_fq { step.wanted.clone() } else { kind })
        }
        Change::Rings { interface } => {
            let [(receive, _), (transmit, _)] = super::tools::rings(root, interface)?;
            Some(format!("rx {receive} tx {transmit}"))
        }
        Change::AllowedCores { unit } => super::tools::allowed_cores(root, unit),
    }
}

fn write(root: &Path, path: &str, value: &str) -> Result<(), String> {
    let place = root.join(path);
    fs::write(&place, value).map_err(|error| format!("{}: {error}", place.display()))?;
    // Some files take a value and do less: hugepages that are not there, for one.
    let found = fs::read_to_string(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    match plain(&found) {
        found if found == value => Ok(()),
        found => Err(format!("{}: took {value}, and says {found}", place.display())),
    }
}

/// One space between fields, as plans have it.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn discipline(interface: &str, queues: u32) -> Result<(), String> {
    if queues < 2 {
        return run("tc", &["qdisc", "replace", "dev", interface, "root", "fq"]).map(drop);
    }
    // The kernel's own mq has no handle, so that nothing can be put below it.
    run("tc", &["qdisc", "replace", "dev", interface, "root", "handle", "1:", "mq"])?;
    for queue in 1..=queues {
        run("tc", &["qdisc", "replace", "dev", interface, "parent", &format!("1:{queue:x}"), "fq"])?;
    }
    Ok(())
}

fn rings(interface: &str, text: &str) -> Result<(), String> {
    let words: Vec<&str> = text.split(' ').collect();
    let arguments = ["-G", interface].into_iter().chain(words);
    run("ethtool", &arguments.collect::<Vec<_>>()).map(drop)
}

fn allowed_cores(unit: &str, cores: &str) -> Result<(), String> {
    run("systemctl", &["set-property", "--runtime", unit, &format!("AllowedCPUs={cores}")]).map(drop)
}
