//! Sources that change, vanish or cannot be read, and destinations that cannot be written: the job's end names them,
//! and the rest arrives.
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use dwcp_abi::link::Outcome;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::data::{assert_no_lie, bytes, files, is_temporary, tree};
use crate::node::{CLEAR, Node, address, pair, pair_over};
use crate::valve::Valve;

const REST: [usize; 3] = [50, 100_000, 700_000];

/// A pair in the middle of sending `moving`, 24 MB, and the rest of a tree beside it.
struct Moving {
    directory: TempDir,
    sender: Node,
    receiver: Node,
    valve: Valve,
}

impl Moving {
    fn new() -> Self {
        let listen = address();
        let valve = Valve::new(&listen, 2_000_000);
        let (directory, mut sender, receiver) = pair_over(CLEAR, &listen, &valve.address);
        // Most of it must be unread when it changes.
        sender.transport.send_buffer_size = 64 * 1024;
        sender.know(&[receiver.named("peer", &valve.address)]);
        let source = directory.path().join("source");
        tree(&source, &REST);
        fs::write(source.join("moving"), bytes(24_000_000, 1)).unwrap();
        sender.send(1, &[&source], "data/");
        sender.progress_of(1);
        Self { directory, sender, receiver, valve }
    }

    fn moving(&self) -> PathBuf {
        self.directory.path().join("source/moving")
    }

    /// The rest is there, and of the moving file nothing.
    #[track_caller]
    fn assert_rest(mut self, words: &[&str]) {
        self.valve.open();
        let end = self.sender.end_of(1);
        end.assert_says(Outcome::Partial, words);
        assert_eq!(end.counts.failures, 1);
        let arrived = self.receiver.export().join("source");
        assert_eq!(files(&arrived).len(), REST.len(), "{:?}", files(&arrived));
        assert_no_lie(&self.directory.path().join("source"), &arrived);
    }
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_named_and_left_out() {
    let moving = Moving::new();
    File::options().append(true).open(moving.moving()).unwrap().write_all(b"more").unwrap();
    moving.assert_rest(&["moving", "changed"]);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_named_and_left_out() {
    let moving = Moving::new();
    File::options().write(true).open(moving.moving()).unwrap().set_len(1000).unwrap();
    moving.assert_rest(&["moving", "changed"]);
}

#[test]
fn a_tree_that_vanishes_while_it_is_sent_leaves_nothing_untrue() {
    let mut moving = Moving::new();
    let (source, kept) = (moving.directory.path().join("source"), moving.directory.path().join("kept"));
    fs::create_dir(&kept).unwrap();
    for name in files(&source) {
        fs::copy(source.join(&name), kept.join(&name)).unwrap();
    }
    fs::remove_dir_all(&source).unwrap();
    moving.valve.open();
    let end = moving.sender.end_of(1);
    assert!(matches!(end.outcome, Outcome::Done | Outcome::Partial), "{end:?}");
    let arrived = moving.receiver.export().join("source");
    assert_no_lie(&kept, &arrived);
    assert!(!files(&arrived).iter().any(|name| is_temporary(name)));
}

#[test]
fn sources_that_are_not_there_or_not_readable_are_named_and_the_rest_arrives() {
    let (directory, mut sender, receiver) = pair(CLEAR);
    let source = directory.path().join("source");
    tree(&source, &REST);
    let missing = directory.path().join("missing");
    sender.send(1, &[&source, &missing], "data/");
    let end = sender.end_of(1);
    end.assert_says(Outcome::Partial, &["missing"]);
    assert_eq!(files(&receiver.export().join("source")).len(), REST.len());

    let secret = source.join("secret");
    fs::write(&secret, bytes(200_000, 1)).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if File::open(&secret).is_ok() {
        return eprintln!("skipped: this user may read every file");
    }
    sender.send(2, &[&source], "data/");
    sender.end_of(2).assert_says(Outcome::Partial, &["secret"]);
}

/// A small file system of its own; gone at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// None without the right to mount.
    fn new(at: PathBuf, flags: MsFlags, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        match mount(Some("dwcp-test"), &at, Some("tmpfs"), flags, Some(options)) {
            Ok(()) => Some(Self(at)),
            Err(errno) => {
                eprintln!("skipped: no file system for the test: {errno}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

fn send_into(at: &str, flags: MsFlags, sizes: &[usize]) -> Option<(crate::events::End, Vec<PathBuf>)> {
    let (directory, mut sender, receiver) = pair(CLEAR);
    let mounted = Mounted::new(receiver.export().join(at), flags, "size=4m")?;
    let source = directory.path().join("source");
    tree(&source, sizes);
    sender.send(1, &[&source], &format!("data/{at}/"));
    let end = sender.end_of(1);
    // The receiver is through with it as well: its next job is served, and nothing of the first remains.
    sender.send(2, &[Path::new("/etc/hostname")], "data/");
    sender.end_of(2).assert_done();
    let mut receiver = receiver;
    let left = mounted.0.clone();
    receiver.until("the leftovers are gone", |_| !files(&left).iter().any(|name| is_temporary(name)));
    assert_no_lie(&source.join(".."), &left);
    Some((end, files(&left)))
}

#[test]
fn a_disk_that_fills_up_ends_the_job_and_names_what_did_not_fit() {
    let Some((end, left)) = send_into("full", MsFlags::empty(), &[100, 1_000_000, 9_000_000]) else { return };
    end.assert_says(Outcome::Failed, &["2-9000000", "room"]);
    assert!(left.len() < 3);
}

#[test]
fn many_small_files_that_fill_the_disk_end_the_job() {
    let sizes = [90_000; 60];
    let Some((end, _)) = send_into("full", MsFlags::empty(), &sizes) else { return };
    end.assert_says(Outcome::Failed, &["-90000"]);
}

#[test]
fn a_destination_that_is_read_only_ends_the_job_and_is_named() {
    let Some((end, left)) = send_into("read-only", MsFlags::MS_RDONLY, &[100, 1_000_000]) else { return };
    assert!(matches!(end.outcome, Outcome::Failed | Outcome::Partial), "{end:?}");
    assert!(end.text.contains("ead-only"), "{end:?}");
    assert!(left.is_empty());
}
