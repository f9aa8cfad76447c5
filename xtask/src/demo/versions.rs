//! A file and its next version at 200 Mbit/s: of the second only the differences are sent. The file is one of the demo's own
//! programs; its next version has a kilobyte more near the front, and a byte changed in every hundred thousand.
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::node::{EXPORT, Node};
use super::report::Job;
use super::verify::{self, Equal};

/// Sends both.
///
/// # Errors
/// One does not arrive as it is.
pub(super) fn show(run: &Path, programs: &Path, nodes: [&Node; 2]) -> Result<(Vec<Job>, Equal)> {
    let [berlin, paris] = nodes;
    let source = run.join("program");
    let content = fs::read(programs.join("dwcp-control")).context("the demo's own program")?;
    berlin.change("config set transport.pacing_rate=200Mbps")?;
    let mut jobs = Vec::new();
    let mut equal = Equal::default();
    for (title, content) in
        [("a program at 200 Mbit/s", content.clone()), ("its next version", next(content))]
    {
        fs::write(&source, content).with_context(|| source.display().to_string())?;
        let destination = format!("paris:{EXPORT}/program");
        let command = format!("send {} {destination}", source.display());
        let arguments = ["send".into(), source.clone().into_os_string(), destination.into()];
        jobs.push(super::make(title, &command, &arguments, nodes)?);
        equal = equal.and(verify::compare(&source, &paris.data().join("program"))?);
        berlin.wait_until("to keep what it has sent", || {
            let stats = berlin.ask(&["stats", "compression"])?;
            Ok((stats.text("baselines") == jobs.len().to_string()).then_some(()))
        })?;
    }
    berlin.show("stats compression --detailed", &["stats", "compression", "--detailed"].map(OsStr::new))?;
    berlin.change("config unset transport.pacing_rate")?;
    Ok((jobs, equal))
}

fn next(mut content: Vec<u8>) -> Vec<u8> {
    let place = content.len() / 10;
    content.splice(place..place, std::iter::repeat_n(b'+', 1024));
    content.iter_mut().step_by(100_000).for_each(|byte| *byte ^= 1);
    content
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_next_version_is_longer_and_hardly_another() {
        let next = super::next(vec![7; 1_000_000]);
        assert_eq!(next.len(), 1_001_024);
        assert_eq!(next.iter().filter(|byte| **byte == 7).count(), 1_000_000 - 10);
    }
}
