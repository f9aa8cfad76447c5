//! What outlives a dataplane: pins, pacing without a process, take-over by the next life, and that nothing stays when
//! nothing is asked for.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use aya::{
    programs::links::{FdLink, PinnedLink},
    util::KernelVersion,
};
use dwcp_dataplane::bpf::{Interfaces, Options, Policy, Programs};

use crate::{
    pacing::{Stream, listen, policy},
    support::{Pair, inside, object_or_skip, options},
};

/// A bpf file system of this test's own.
struct BpfFs(tempfile::TempDir);

impl BpfFs {
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let output = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(folder))
    }

    fn pins(&self) -> Option<(PathBuf, String)> {
        Some((self.0.path().join("dwcp"), "node".to_owned()))
    }

    fn links(&self) -> PathBuf {
        self.0.path().join("dwcp/node/v1/links")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

/// The program behind a pinned link.
fn program_of(pin: &Path) -> u32 {
    FdLink::from(PinnedLink::from_pin(pin).expect("pinned")).info().unwrap().program_id()
}

fn is_loaded(id: u32) -> bool {
    aya::programs::loaded_programs().flatten().any(|program| program.id() == id)
}

/// Programs are freed a moment after their last user.
fn goes(id: u32) -> bool {
    (0..50).any(|_| {
        sleep(Duration::from_millis(20));
        !is_loaded(id)
    })
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A life of the dataplane with this policy; the first of its steps in the namespace.
fn life(near: &str, options: &Options, policy: &Policy) -> Programs {
    let (options, policy) = (options.clone(), policy.clone());
    let begun = inside(near, move || {
        let mut programs = Programs::load(options).expect("programs load");
        programs.apply(&policy).expect("policy");
        programs
    });
    begun.join().unwrap()
}

#[test]
fn pacing_stays_without_a_process_and_is_taken_over() {
    let Some(object) = object_or_skip() else { return };
    let (pair, bpffs) = match (Pair::new("last"), BpfFs::mount()) {
        (Ok(pair), Ok(bpffs)) => (pair, bpffs),
        (Err(reason), _) | (_, Err(reason)) => return println!("skipped: {reason}"),
    };
    let (listener, second) = (listen(&pair), listen(&pair));
    let [port, second_port] = [&listener, &second].map(|listener| listener.local_addr().unwrap().port());
    let mut held = policy(port, 40_000_000);
    held.selectors.extend(policy(second_port, 0).selectors);
    let options = Options {
        pins: bpffs.pins(),
        interfaces: Interfaces::Named(vec!["v0".into()]),
        ..options(object, Vec::new())
    };

    let first = life(&pair.near, &options, &held);
    assert!(first.report().text().contains("pins\tyes"), "{}", first.report().text());
    let stream = Stream::start(&pair, listener);
    let links = names(&bpffs.links());
    // Filters of kernels before 6.6 cannot be pinned.
    let has_tcx = KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0);
    assert_eq!(links.len(), if has_tcx { 3 } else { 1 }, "both directions of v0 and the sockets: {links:?}");
    let before: Vec<u32> = links.iter().map(|name| program_of(&bpffs.links().join(name))).collect();
    // A process that is killed closes its descriptors and does nothing else; so does this.
    drop(first);
    assert!(before.iter().all(|&id| is_loaded(id)));
    let is_held = |stream: &Stream| {
        sleep(Duration::from_millis(300));
        let rates = (0..3).map(|_| stream.measure(Duration::from_millis(300)));
        rates.fold(f64::MAX, f64::min) < 48e6
    };
    assert!(is_held(&stream), "a connection that stood");
    drop(stream);
    let stream = Stream::start(&pair, second);
    assert!(is_held(&stream), "and one that came while no dataplane ran");

    let next = life(&pair.near, &options, &held);
    assert!(is_held(&stream));
    assert_eq!(names(&bpffs.links()), links, "no more attachments than before");
    let after: Vec<u32> = links.iter().map(|name| program_of(&bpffs.links().join(name))).collect();
    assert!(before.iter().all(|id| !after.contains(id)), "{before:?} {after:?}");
    assert!(before.iter().all(|&id| goes(id)), "what was replaced is gone");
    drop(stream);

    let near = pair.near.clone();
    let nothing = inside(&near, move || {
        let mut programs = next;
        programs.apply(&Policy::default()).expect("policy");
        programs
    });
    let nothing = nothing.join().unwrap();
    assert!(!bpffs.0.path().join("dwcp/node").exists(), "nothing asked for, nothing pinned");
    assert!(after.iter().all(|&id| is_loaded(id)), "still counting");
    drop(nothing);
    assert!(after.iter().all(|&id| goes(id)), "and nothing stays");
}

#[test]
fn pins_of_another_version_go_and_no_bpf_file_system_is_no_failure() {
    let Some(object) = object_or_skip() else { return };
    let bpffs = match BpfFs::mount() {
        Ok(bpffs) => bpffs,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let old = bpffs.0.path().join("dwcp/node/v0/links");
    fs::create_dir_all(&old).unwrap();
    let nowhere = Interfaces::Named(Vec::new());
    let options = Options { pins: bpffs.pins(), interfaces: nowhere, ..options(object, Vec::new()) };
    let mut programs = Programs::load(options.clone()).unwrap();
    programs.apply(&policy(9, 1_000_000)).unwrap();
    assert!(!old.exists() && bpffs.links().join("socket").exists());
    drop(programs);
    let plain = tempfile::tempdir().unwrap();
    let options = Options { pins: Some((plain.path().to_owned(), "node".into())), ..options };
    let mut programs = Programs::load(options).unwrap();
    programs.apply(&policy(9, 1_000_000)).unwrap();
    let report = programs.report();
    assert!(report.text().contains("is no bpf file system") && programs.paces(), "{}", report.text());
    dwcp_dataplane::bpf::forget_pins(&bpffs.pins().unwrap());
    assert!(!bpffs.0.path().join("dwcp/node").exists());
}

#[test]
fn maps_that_do_not_fit_are_thrown_away() {
    let Some(object) = object_or_skip() else { return };
    let bpffs = match BpfFs::mount() {
        Ok(bpffs) => bpffs,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let nowhere = Interfaces::Named(Vec::new());
    let options = Options { pins: bpffs.pins(), interfaces: nowhere, ..options(object, Vec::new()) };
    let mut programs = Programs::load(options.clone()).unwrap();
    programs.apply(&policy(9, 1_000_000)).unwrap();
    drop(programs);
    let maps = bpffs.0.path().join("dwcp/node/v1/maps");
    fs::remove_file(maps.join("DWCP_POLICY")).unwrap();
    fs::rename(maps.join("DWCP_GUARD"), maps.join("DWCP_POLICY")).unwrap();
    let mut programs = Programs::load(options).expect("begins anew");
    programs.apply(&policy(9, 1_000_000)).unwrap();
    assert!(programs.paces() && programs.report().text().contains("pins\tyes"));
    assert!(maps.join("DWCP_GUARD").exists());
}
