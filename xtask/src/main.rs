//! `cargo xtask COMMAND`: everything that developers and newcomers run. This file finds the command; each command has
//! its own file. It ships nowhere.
mod bench;
mod build;
mod demo;
mod dist;
mod ebpf;
mod install;
mod lab;
mod setup;
mod shell;
mod suggest;
mod test;
mod vm;
mod wan;

use std::{
    io::Write as _,
    process::{ExitCode, Termination},
};

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        print_usage();
        return Outcome::Usage.report();
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print_usage();
        return Outcome::Done.report();
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let names = COMMANDS.iter().map(|command| command.name);
        eprintln!("xtask: no command '{name}'{}", suggest::hint(name, names));
        return Outcome::Usage.report();
    };
    if rest.first().is_some_and(|first| matches!(first.as_str(), "--help" | "-h")) {
        println!("cargo xtask {} {}\n{}", command.name, command.arguments, command.summary);
        return Outcome::Done.report();
    }
    match (command.run)(rest) {
        Ok(outcome) => outcome.report(),
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            Outcome::Failed(1).report()
        }
    }
}

/// How a command ended when nothing unforeseen happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Done.
    Done,
    /// This machine cannot do it; the reason has been printed.
    Skipped,
    /// It was asked for in a way that means nothing; the reason has been printed.
    Usage,
    /// It ran and failed with this status; the reason has been printed.
    Failed(u8),
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            // The status by which test runners know "could not run here".
            Self::Skipped => ExitCode::from(77),
            Self::Usage => ExitCode::from(2),
            Self::Failed(status) => ExitCode::from(status.max(1)),
        }
    }
}

/// One row of the table of commands.
struct Command {
    name: &'static str,
    arguments: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> Result<Outcome>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "setup",
        arguments: "[--for demo|test|vm|bench]...",
        summary: "install what this machine lacks; asks nothing, the second run does nothing",
        run: setup::run,
    },
    Command {
        name: "build",
        arguments: "",
        summary: "release build of dwcp, dwcp-control, dwcp-dataplane and the kernel programs",
        run: build::run,
    },
    Command {
        name: "demo",
        arguments: "[--cluster] [--data DIR] [--programs DIR] [--keep]",
        summary: "set up, build, and see two nodes move this machine's files, or four agree; DIR of programs instead of a build",
        run: demo::run,
    },
    Command {
        name: "build-ebpf",
        arguments: "[--release]",
        summary: "kernel programs to target/bpf/dwcp-ebpf and beside the debug (release) binaries; 77 = cannot here",
        run: ebpf::run,
    },
    Command {
        name: "test",
        arguments: "[FILTER] [--quick | --interface | --machine]",
        summary: "format, lints, kernel programs, all tests; FILTER runs only the tests whose name holds it, --interface what compares HTTP with its description, --machine what runs in the virtual machine",
        run: test::run,
    },
    Command {
        name: "ci",
        arguments: "",
        summary: "test, and the licence and advisory check where cargo-deny is installed",
        run: test::run_ci,
    },
    Command {
        name: "install",
        arguments: "[--prefix /usr/local] [--root /] [--uninstall]",
        summary: "release build, then binaries, units, completions and manual pages; keeps an existing configuration",
        run: install::run,
    },
    Command {
        name: "dist",
        arguments: "",
        summary: "release build, then a Debian package in target/dist",
        run: dist::run,
    },
    Command {
        name: "vm",
        arguments: "[--timeout SECONDS] [--memory MIB] -- COMMAND...",
        summary: "run a command under Debian's kernel in QEMU, with this machine's files read-only",
        run: vm::run,
    },
    Command {
        name: "lab",
        arguments: "[--gate] [--bytes N] [RATE,RTT,LOSS]...",
        summary: "long links in virtual time (Mbit/s, ms, per cent): figures that do not depend on how busy the machine is",
        run: lab::run,
    },
    Command {
        name: "wan",
        arguments: "--there LINK [--back LINK] [--server COMMAND] [-- COMMAND...]",
        summary: "a long link between two network namespaces, by hand; `cargo xtask wan -- --help` says all of it",
        run: wan::run,
    },
    Command {
        name: "bench",
        arguments: "[NAME [WORD...]]...",
        summary: "build and run the benches in release; all where none is named; words select rows of a bench",
        run: bench::run,
    },
];

fn print_usage() {
    let mut text = String::from("cargo xtask COMMAND\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {} {}\n      {}\n", command.name, command.arguments, command.summary));
    }
    // A closed pipe (`| head`) is no reason to fail.
    std::io::stdout().write_all(text.as_bytes()).unwrap_or_default();
}
