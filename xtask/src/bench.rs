//! `bench [NAME…]`: builds the binaries of the `benches` crate in release and runs them one after the other.
use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    Outcome, build,
    setup::{self, Group},
    shell, suggest,
};

/// Entry point of the command; all benches where none is named.
///
/// # Errors
/// A build fails.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let known = names(&shell::root().join("benches/src/bin"))?;
    let unknown = arguments.iter().find(|name| !known.contains(name));
    if let Some(name) = unknown {
        eprintln!("xtask bench: no bench '{name}'{}", suggest::hint(name, known.iter().map(String::as_str)));
        return Ok(Outcome::Usage);
    }
    if known.is_empty() {
        println!("bench: skipped: benches/src/bin holds no bench");
        return Ok(Outcome::Skipped);
    }
    setup::prepare(&[Group::Bench]);
    let release = build::release()?;
    shell::run(&mut shell::cargo(["build", "--release", "--package", "dwcp-benches", "--bins"]))?;
    let mut failed = Vec::new();
    for name in if arguments.is_empty() { &known } else { arguments } {
        println!("==> bench {name}");
        let started = Instant::now();
        if let Err(error) = shell::run(&mut shell::command(release.join(name))) {
            println!("bench {name}: {error:#}");
            failed.push(name.as_str());
        }
        println!("==> bench {name}: {:.1} s", started.elapsed().as_secs_f64());
    }
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    println!("bench: failed: {}", failed.join(", "));
    Ok(Outcome::Failed(1))
}

/// Files and folders in the folder of binaries, as cargo names them.
fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let is_bench =
            path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        names.extend(path.file_stem().filter(|_| is_bench).map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_benches_or_none() {
        assert!(names(Path::new("/nonexistent")).unwrap().is_empty());
        let own = names(&shell::root().join("xtask/src")).unwrap();
        assert!(own.contains(&"bench".to_owned()) && !own.contains(&"vm".to_owned()), "{own:?}");
    }
}
