//! Rules about source: where `unsafe` may stand, that a file says what it is, how long it may be, what it must not say.
use crate::{File, holds, tokens};

const UNSAFE_PLACES: &[&str] = &["crates/sys/", "ebpf/", "crates/abi/src/bpf/"];
const LINES_MAX: usize = 900;
/// Spelled so that this file does not complain about itself.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const WORKPLACE: &str = concat!("../", "shared");

fn no_unsafe_elsewhere(files: &[File]) -> Vec<String> {
    let elsewhere =
        |file: &&File| file.is_rust() && !UNSAFE_PLACES.iter().any(|place| file.path.starts_with(place));
    let mut complaints = Vec::new();
    for file in files.iter().filter(elsewhere) {
        let words = tokens::words(file.text().unwrap_or_default());
        for (line, _) in words.into_iter().filter(|(_, word)| *word == "unsafe") {
            complaints.push(format!("{}:{line}: unsafe belongs to {}", file.path, UNSAFE_PLACES.join(", ")));
        }
    }
    complaints
}

fn files_say_what_they_are(files: &[File]) -> Vec<String> {
    let silent = files.iter().filter(|file| file.is_rust() && !file.bytes.starts_with(b"//! "));
    silent.map(|file| format!("{}:1: begins without `//! `: what it is, who calls it", file.path)).collect()
}

fn files_are_short(files: &[File]) -> Vec<String> {
    let lines = |file: &File| file.bytes.iter().filter(|&&byte| byte == b'\n').count();
    let long = files.iter().filter(|file| file.is_rust() && lines(file) > LINES_MAX);
    long.map(|file| format!("{}: {} lines, at most {LINES_MAX}", file.path, lines(file))).collect()
}

fn nothing_is_left_for_later(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text().unwrap_or_default().lines().enumerate() {
            let mut words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
            if let Some(word) = words.find(|word| UNFINISHED.contains(word)) {
                complaints.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    complaints
}

/// What ships must not lean on a folder that only some checkouts have beside them.
fn only_tests_look_outside(files: &[File]) -> Vec<String> {
    let may = |file: &File| file.path.split('/').any(|part| matches!(part, "tests" | "benches"));
    let leaning =
        files.iter().filter(|file| !may(file) && file.text().unwrap_or_default().contains(WORKPLACE));
    leaning
        .map(|file| format!("{}: names {WORKPLACE}, which only tests and benches may", file.path))
        .collect()
}

#[test]
fn unsafe_stands_where_it_may() {
    holds(no_unsafe_elsewhere);
    let code = "//! x\nfn a() {\n    unsafe { b() }\n}\n";
    assert_eq!(no_unsafe_elsewhere(&[File::new("dataplane/src/a.rs", code)]).len(), 1);
    assert_eq!(no_unsafe_elsewhere(&[File::new("crates/abi/src/wire/a.rs", code)]).len(), 1);
    assert!(no_unsafe_elsewhere(&[File::new("crates/sys/src/a.rs", code)]).is_empty());
    assert!(no_unsafe_elsewhere(&[File::new("cli/src/a.rs", "//! no unsafe\n// unsafe\n")]).is_empty());
}

#[test]
fn every_file_says_what_it_is() {
    holds(files_say_what_they_are);
    assert_eq!(
        files_say_what_they_are(&[File::new("a.rs", "use b;\n"), File::new("b.rs", "\n//! x\n")]).len(),
        2
    );
    assert!(files_say_what_they_are(&[File::new("a.rs", "//! A.\n"), File::new("a.md", "b")]).is_empty());
}

#[test]
fn no_file_is_too_long() {
    holds(files_are_short);
    assert_eq!(files_are_short(&[File::new("a.rs", &"\n".repeat(LINES_MAX + 1))]).len(), 1);
    assert!(files_are_short(&[File::new("a.rs", &"\n".repeat(LINES_MAX))]).is_empty());
}

#[test]
fn nothing_is_unfinished() {
    holds(nothing_is_left_for_later);
    for word in UNFINISHED {
        assert_eq!(nothing_is_left_for_later(&[File::new("a.md", &format!("ok\n {word}: b\n"))]).len(), 1);
        assert!(nothing_is_left_for_later(&[File::new("a.md", &format!("MY_{word}S"))]).is_empty());
    }
}

#[test]
fn nothing_that_ships_leans_on_a_neighbour() {
    holds(only_tests_look_outside);
    assert_eq!(only_tests_look_outside(&[File::new("README.md", WORKPLACE)]).len(), 1);
    assert!(only_tests_look_outside(&[File::new("hde/tests/data.rs", WORKPLACE)]).is_empty());
}
