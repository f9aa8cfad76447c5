//! `demo`: installs what is missing, builds, starts two nodes, sends real files of this machine from one to the other,
//! fetches some back, compares everything, and shows the figures. This file is the order of events; nothing that it
//! makes outlives it unless `--keep` says so.
mod cluster;
mod data;
mod janitor;
mod json;
mod network;
mod node;
mod place;
mod process;
mod report;
mod verify;
mod versions;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use self::{janitor::Janitor, node::Node, report::Job, verify::Equal};
use crate::{Outcome, build, setup, suggest};

/// Name of the node that sends.
const SENDER: &str = "berlin";

/// Entry point of the command.
///
/// # Errors
/// Anything does not work, or what arrived differs from what was sent.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    if arguments.first().is_some_and(|argument| argument == janitor::ARGUMENT) {
        return Ok(if janitor::serve() { Outcome::Done } else { Outcome::Failed(1) });
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!("xtask demo: {complaint}");
            return Ok(Outcome::Usage);
        }
    };
    let programs = match &options.programs {
        Some(folder) => folder.canonicalize().with_context(|| folder.display().to_string())?,
        None => {
            setup::prepare(&[setup::Group::Demo]);
            build::release()?
        }
    };
    let started = Instant::now();
    let mut janitor = Janitor::start()?;
    let result = match options.subject {
        Subject::Transfers => show(&options, &programs, &mut janitor),
        Subject::Cluster => cluster::show(&programs, &mut janitor),
    };
    if options.afterwards == Afterwards::Keep {
        janitor.keep()?;
    }
    let cleaned = janitor.finish();
    result?;
    cleaned?;
    let shown = match options.subject {
        Subject::Transfers => "everything is equal at both ends",
        Subject::Cluster => "everything that was decided is the same at all four",
    };
    println!("\ndemo: {shown} ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(Outcome::Done)
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    data: Option<PathBuf>,
    programs: Option<PathBuf>,
    afterwards: Afterwards,
    subject: Subject,
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Transfers,
    Cluster,
}

/// What becomes of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    CleanUp,
    Keep,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options =
            Self { data: None, programs: None, afterwards: Afterwards::CleanUp, subject: Subject::Transfers };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--data" => options.data = Some(words.next().ok_or("--data needs a directory")?.into()),
                "--programs" => {
                    options.programs = Some(words.next().ok_or("--programs needs a directory")?.into())
                }
                "--keep" => options.afterwards = Afterwards::Keep,
                "--cluster" => options.subject = Subject::Cluster,
                other => {
                    let known = ["--data", "--programs", "--keep", "--cluster"].into_iter();
                    return Err(format!("unknown argument '{other}'{}", suggest::hint(other, known)));
                }
            }
        }
        Ok(options)
    }
}

/// Everything between the start and the end of the janitor.
fn show(options: &Options, programs: &Path, janitor: &mut Janitor) -> Result<()> {
    let choice = match &options.data {
        Some(directory) => data::named(directory)?,
        None => data::of_the_machine(),
    };
    if choice.directories.is_empty() {
        bail!(
            "this machine has nothing to send in /usr/share and /usr/lib: name a directory with --data DIR"
        );
    }
    let large_bytes = if options.data.is_none() { data::LARGE_FILE_BYTES } else { 0 };
    // Copies at the receiver, the large file at the sender, and what is fetched back.
    let run = place::find(choice.bytes.saturating_mul(2).saturating_add(2 * large_bytes + ROOM_BYTES))?;
    janitor.directory(&run)?;
    fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
    let (sites, road) = network::lay(janitor)?;
    println!("\ndemo: two nodes, berlin and paris, on {road}; their files are in {}", run.display());
    let [first, second] = sites;
    let berlin = Node::start(SENDER, first, &run, programs, janitor)?;
    let paris = Node::start("paris", second, &run, programs, janitor)?;
    berlin.meet(&paris)?;
    paris.meet(&berlin)?;
    println!("demo: each made its identity and knows the other by it: paris is {}", paris.fingerprint);
    let nodes = [&berlin, &paris];
    let result = transfer(&choice, large_bytes, (&run, programs), nodes);
    let (jobs, equal) = result.inspect_err(|_| {
        eprintln!("demo: the ends of the logs:{}{}", berlin.log_end(), paris.log_end());
    })?;
    report::print(&jobs, nodes)?;
    println!(
        "\nCompared by BLAKE2b-512 at both ends: {} files with {} MiB; {} entries with modes, times and links",
        equal.files,
        equal.bytes >> 20,
        equal.entries
    );
    if options.afterwards == Afterwards::Keep {
        print_farewell(&run, programs, nodes);
    }
    Ok(())
}

/// All transfers, each compared with its source as soon as it is done.
fn transfer(
    choice: &data::Choice,
    large_bytes: u64,
    (run, programs): (&Path, &Path),
    nodes: [&Node; 2],
) -> Result<(Vec<Job>, Equal)> {
    let [berlin, paris] = nodes;
    let mut jobs = Vec::new();
    let mut equal = Equal::default();
    let arrived = paris.data();

    let mut arguments: Vec<OsString> = vec!["send".into()];
    arguments.extend(choice.directories.iter().map(|directory| directory.clone().into_os_string()));
    arguments.push(format!("paris:{}/tree", node::EXPORT).into());
    let directories = shown(&choice.directories);
    let command = format!("send {directories} paris:{}/tree", node::EXPORT);
    println!(
        "demo: {} directories with {} entries and {} MiB",
        choice.directories.len(),
        choice.entries,
        choice.bytes >> 20
    );
    jobs.push(make(
        &format!("tree of {} directories", choice.directories.len()),
        &command,
        &arguments,
        nodes,
    )?);
    for directory in &choice.directories {
        let name = directory.file_name().unwrap_or_default();
        equal = equal.and(verify::compare(directory, &arrived.join("tree").join(name))?);
    }

    if large_bytes > 0 {
        let large = run.join("large.bin");
        data::write_large_file(&large)?;
        let destination = format!("paris:{}/large.bin", node::EXPORT);
        let command = format!("send {} {destination}", large.display());
        let arguments = ["send".into(), large.clone().into_os_string(), destination.into()];
        jobs.push(make("one large file", &command, &arguments, nodes)?);
        equal = equal.and(verify::compare(&large, &arrived.join("large.bin"))?);
    }

    let small = data::small(&choice.directories);
    let name = small.file_name().unwrap_or_default();
    let mut source = OsString::from(format!("paris:{}/tree/", node::EXPORT));
    source.push(name);
    let back = run.join("back");
    let command = format!("fetch {} {}", source.display(), back.display());
    let arguments = ["fetch".into(), source, back.clone().into_os_string()];
    jobs.push(make(&format!("{} fetched back", name.display()), &command, &arguments, nodes)?);
    equal = equal.and(verify::compare(small, &back.join(name))?);

    let (versions, same) = versions::show(run, programs, nodes)?;
    jobs.extend(versions);
    equal = equal.and(same);

    berlin.show("status", &[OsStr::new("status")])?;
    Ok((jobs, equal))
}

/// Runs one transfer from the first node in the terminal and asks how it was.
fn make(title: &str, command: &str, arguments: &[OsString], nodes: [&Node; 2]) -> Result<Job> {
    let cpu = || nodes.map(|node| process::cpu_s(node.dataplane));
    let before = cpu();
    let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    nodes[0].show(command, &arguments)?;
    let [sender, receiver] = cpu();
    let newest = nodes[0].ask(&["transfers", "--limit", "1"])?;
    let Some(transfer) = newest.list("transfers").first().cloned() else {
        bail!("{title}: no transfer is known")
    };
    if transfer.text("state") != "done" {
        bail!("{title}: the transfer is {}: {}", transfer.text("state"), transfer.text("error"));
    }
    Ok(Job { title: title.to_owned(), transfer, cpu_s: [sender - before[0], receiver - before[1]] })
}

/// Some of many, for a line in the terminal.
fn shown(directories: &[PathBuf]) -> String {
    let names: Vec<_> = directories.iter().take(SHOWN_MAX).map(|path| path.display().to_string()).collect();
    let more = if directories.len() > SHOWN_MAX { " …" } else { "" };
    format!("{}{more}", names.join(" "))
}

fn print_farewell(run: &Path, programs: &Path, nodes: [&Node; 2]) {
    println!("\nThe nodes stay. Talk to them:");
    for node in nodes {
        println!("  {} --socket {} status", programs.join("dwcp").display(), node.socket().display());
        println!("  curl --unix-socket {} http://localhost/metrics", node.socket().display());
    }
    println!("Take them away:");
    println!("  kill {} {}", nodes[0].supervisor, nodes[1].supervisor);
    for name in nodes.iter().filter_map(|node| node.site.namespace.as_ref()) {
        println!("  ip netns delete {name}");
    }
    println!("  rm -r {}", run.display());
}

/// Identities, logs, stores of two nodes, versions of a program, and what file systems need themselves.
const ROOM_BYTES: u64 = 512 << 20;
const SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_understood() {
        let options = parse("--keep --data /srv").unwrap();
        assert_eq!(options.data, Some(PathBuf::from("/srv")));
        assert_eq!(options.afterwards, Afterwards::Keep);
        assert_eq!(parse("").unwrap().afterwards, Afterwards::CleanUp);
    }

    #[test]
    fn mistakes_name_the_way_out() {
        assert!(parse("--kepe").unwrap_err().contains("'--keep'"));
        assert!(parse("--data").unwrap_err().contains("needs a directory"));
    }
}
