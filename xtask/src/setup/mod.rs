//! `setup`: installs what a fresh Debian 12 lacks, says what it did, and says in one line each what it may not do.
//! Called by people and by the other commands before they need something. It never fails because something could
//! not be installed: whatever needs that thing says so itself.
pub(crate) mod apt;
mod kernel_toolchain;
mod tools;

use std::time::Instant;

use anyhow::Result;

use crate::{Outcome, suggest};

/// What the machine is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// `cargo xtask demo`: build and run everything.
    Demo,
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask vm`.
    Vm,
    /// `cargo xtask bench`.
    Bench,
}

impl Group {
    const ALL: [(&'static str, Self); 4] =
        [("demo", Self::Demo), ("test", Self::Test), ("vm", Self::Vm), ("bench", Self::Bench)];

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Demo => &[],
            Self::Test => &["postgresql"],
            Self::Vm => &[
                "qemu-system-x86",
                "busybox-static",
                "cpio",
                "kmod",
                "xz-utils",
                // Inside, RDMA ports are driven and measured against.
                "ibverbs-providers",
                "perftest",
            ],
            Self::Bench => &["iperf3", "rsync", "xdelta3", "zstd", "rclone", "aria2"],
        }
    }
}

/// Entry point of the command; all groups where none is named.
///
/// # Errors
/// None today; what cannot be installed is printed.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let groups = match parse(arguments) {
        Ok(groups) => groups,
        Err(complaint) => {
            eprintln!("xtask setup: {complaint}");
            return Ok(Outcome::Usage);
        }
    };
    prepare(&groups);
    Ok(Outcome::Done)
}

/// Installs what these groups need and is missing, and prints what was done.
pub(crate) fn prepare(groups: &[Group]) {
    let started = Instant::now();
    let mut report = Report::default();
    let mut packages = BASE_PACKAGES.to_vec();
    packages.extend(groups.iter().flat_map(|group| group.packages()));
    apt::install(&packages, &mut report);
    kernel_toolchain::install(&mut report);
    if groups.contains(&Group::Vm) {
        crate::vm::fetch_kernel(&mut report);
    }
    if groups.contains(&Group::Test) {
        tools::fetch(&mut report);
        tools::fetch_schemathesis(&mut report);
    }
    report.print(started.elapsed().as_secs_f64());
}

/// Installs what the virtual machine alone needs. Quiet where everything is there: its output is the command's.
pub(crate) fn prepare_vm() {
    let started = Instant::now();
    let mut report = Report::default();
    apt::install(Group::Vm.packages(), &mut report);
    crate::vm::fetch_kernel(&mut report);
    if !(report.done.is_empty() && report.missing.is_empty()) {
        report.print(started.elapsed().as_secs_f64());
    }
}

/// What happened, line by line.
#[derive(Debug, Default)]
pub(crate) struct Report {
    done: Vec<String>,
    missing: Vec<String>,
}

impl Report {
    /// Something was installed.
    pub(crate) fn did(&mut self, what: impl Into<String>) {
        self.done.push(what.into());
    }

    /// Something is missing and stays so; `why` says what that costs.
    pub(crate) fn lacks(&mut self, why: impl Into<String>) {
        self.missing.push(why.into());
    }

    fn print(&self, elapsed_s: f64) {
        for line in &self.done {
            println!("setup: installed {line}");
        }
        for line in &self.missing {
            println!("setup: not installed: {line}");
        }
        match (self.done.is_empty(), self.missing.is_empty()) {
            (true, true) => println!("setup: nothing to do, everything is there ({elapsed_s:.1} s)"),
            (true, false) => println!("setup: nothing more could be installed ({elapsed_s:.1} s)"),
            (false, _) => println!("setup: done in {elapsed_s:.1} s"),
        }
    }
}

fn parse(arguments: &[String]) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let names = match (word.strip_prefix("--for="), word.as_str()) {
            (Some(names), _) => names,
            (None, "--for") => words.next().ok_or("--for needs a group")?,
            (None, other) => return Err(format!("unknown argument '{other}'; there is: --for GROUP")),
        };
        for name in names.split(',') {
            let known = Group::ALL.iter().find(|(known, _)| *known == name);
            let (_, group) = known.ok_or_else(|| {
                format!(
                    "no group '{name}'{}",
                    suggest::hint(name, Group::ALL.iter().map(|(known, _)| *known))
                )
            })?;
            groups.push(*group);
        }
    }
    if groups.is_empty() {
        groups.extend(Group::ALL.iter().map(|(_, group)| *group));
    }
    Ok(groups)
}

/// What every build and every test needs: a C compiler for the vendored libraries, namespaces and file systems for
/// tests, the topology library for pinning.
const BASE_PACKAGES: &[&str] = &[
    "gcc",
    "g++",
    "libc6-dev",
    "make",
    "pkg-config",
    "ca-certificates",
    "iproute2",
    "e2fsprogs",
    "libhwloc-dev",
    "libudev-dev",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn groups_are_read_in_both_spellings() {
        assert_eq!(parse(&words("--for demo")).unwrap(), [Group::Demo]);
        assert_eq!(
            parse(&words("--for=test,vm --for bench")).unwrap(),
            [Group::Test, Group::Vm, Group::Bench]
        );
        assert_eq!(parse(&[]).unwrap().len(), 4);
    }

    #[test]
    fn mistakes_name_the_way_out() {
        assert!(parse(&words("--for tets")).unwrap_err().contains("'test'"));
        assert!(parse(&words("--for")).unwrap_err().contains("needs a group"));
        assert!(parse(&words("--with demo")).unwrap_err().contains("--for GROUP"));
    }
}
