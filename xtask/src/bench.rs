//! `bench [NAME [WORD…]]…`: builds the binaries of the `benches` crate in release and runs them one after the other. Words
//! behind a name are that bench's own: they select rows.
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
    let chosen = match chosen(arguments, &known) {
        Ok(chosen) => chosen,
        Err(name) => {
            let hint = suggest::hint(name, known.iter().map(String::as_str));
            eprintln!("xtask bench: no bench '{name}'{hint}");
            return Ok(Outcome::Usage);
        }
    };
    if known.is_empty() {
        println!("bench: skipped: benches/src/bin holds no bench");
        return Ok(Outcome::Skipped);
    }
    setup::prepare(&[Group::Bench]);
    let release = build::release()?;
    shell::run(&mut shell::cargo(["build", "--release", "--package", "dwcp-benches", "--bins"]))?;
    let mut failed = Vec::new();
    for (name, words) in chosen {
        println!("==> bench {name}");
        let started = Instant::now();
        if let Err(error) = shell::run(shell::command(release.join(name)).args(words)) {
            println!("bench {name}: {error:#}");
            failed.push(name);
        }
        println!("==> bench {name}: {:.1} s", started.elapsed().as_secs_f64());
    }
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    println!("bench: failed: {}", failed.join(", "));
    Ok(Outcome::Failed(1))
}

/// Each bench with its words, all of them where none is named; or what stands where a bench should.
fn chosen<'a>(arguments: &'a [String], known: &'a [String]) -> Result<Vec<(&'a str, Vec<&'a str>)>, &'a str> {
    if arguments.is_empty() {
        return Ok(known.iter().map(|name| (name.as_str(), Vec::new())).collect());
    }
    let mut chosen: Vec<(&str, Vec<&str>)> = Vec::new();
    for argument in arguments {
        match chosen.last_mut() {
            _ if known.contains(argument) => chosen.push((argument, Vec::new())),
            Some((_, words)) => words.push(argument),
            None => return Err(argument),
        }
    }
    Ok(chosen)
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
    fn words_belong_to_the_bench_before_them() {
        let list = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        let known = list("file small");
        let arguments = list("file lane tls small");
        assert_eq!(chosen(&arguments, &known), Ok(vec![("file", vec!["lane", "tls"]), ("small", vec![])]));
        assert_eq!(chosen(&[], &known), Ok(vec![("file", vec![]), ("small", vec![])]));
        assert_eq!(chosen(&list("fiel small"), &known), Err("fiel"));
    }

    #[test]
    fn our_own_benches_or_none() {
        assert!(names(Path::new("/nonexistent")).unwrap().is_empty());
        let own = names(&shell::root().join("xtask/src")).unwrap();
        assert!(own.contains(&"bench".to_owned()) && !own.contains(&"vm".to_owned()), "{own:?}");
    }
}
