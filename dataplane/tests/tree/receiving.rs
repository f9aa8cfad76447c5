//! A receiver on file systems that fail, in jobs that end early.
use crate::support::{
    handle, header, inline, is_root, link, names, object, pack, receiver, receiver_with, seal,
};
use dwcp_abi::wire::{Code, EntryHeader, EntryKind};
use dwcp_dataplane::tree::{Opening, Options, TreeError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A small tmpfs of its own, or `None` with a line that says why.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, options: &str) -> Option<Self> {
        let mounted = mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options));
        if let Err(errno) = mounted {
            println!("skipped: a tmpfs cannot be mounted here ({errno})");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn nothing_incomplete_is_visible_when_a_job_ends_early() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path().join("to"));
    let unpacked = receiver
        .unpack(&pack(&[inline(b"small", b"whole"), object(1, b"d/large", 10), object(2, b"other", 10)]))
        .unwrap();
    let Opening::Write(partly) = &unpacked.opened[0].opening else { panic!("it is new") };
    handle(partly).write_all_at(b"half", 0).unwrap();
    let visible = |name: &&String| !name.contains(".dwcp.");
    let seen = names(space.path());
    assert_eq!(seen.iter().filter(visible).collect::<Vec<_>>(), ["to", "to/d", "to/small"]);
    drop(receiver);
    assert_eq!(names(space.path()), ["to", "to/d", "to/small"]);
}

#[test]
fn a_damaged_pack_is_refused_whole_and_may_come_again() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path());
    let sent = pack(&[inline(b"fine", b"x"), inline(b"damaged", b"before")]);
    for at in 0..sent.len() {
        let mut arrived = sent.clone();
        arrived[at] ^= 1;
        assert!(matches!(receiver.unpack(&arrived), Err(TreeError::Damaged)), "byte {at}");
        assert!(receiver.unpack(&sent[..at.max(1)]).is_err());
    }
    assert_eq!(names(space.path()), [""; 0]);
    let unpacked = receiver.unpack(&sent).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (2, 7));
    receiver.finish().unwrap();
    assert_eq!(names(space.path()), ["damaged", "fine"]);
}

#[test]
fn a_pack_that_breaks_the_format_leaves_only_complete_files() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path());
    let mut bytes = pack(&[inline(b"a", b"1"), inline(b"b", b"2")]);
    bytes.pop();
    seal(&mut bytes);
    assert!(matches!(receiver.unpack(&bytes), Err(TreeError::Malformed(_))));
    drop(receiver);
    assert!(names(space.path()).iter().all(|name| name == "a"));
}

#[test]
fn staged_packs_become_visible_together() {
    // On a disk where there is one: in memory files are put in place at once.
    let space = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).unwrap();
    let mut receiver = receiver(space.path());
    fs::create_dir(space.path().join("taken")).unwrap();
    for name in [&b"a"[..], b"b", b"d/c", b"taken", b"e"] {
        let staged = receiver.stage(&pack(&[inline(name, b"x")])).unwrap();
        assert_eq!((staged.entries, staged.failures.len()), (1, 0));
    }
    assert!(matches!(receiver.stage(&[0; 40]), Err(TreeError::Damaged)));
    let failures = receiver.publish().unwrap();
    assert_eq!((failures.len(), failures[0].path.as_slice()), (1, &b"taken"[..]));
    assert_eq!(names(space.path()), ["a", "b", "d", "d/c", "e", "taken"]);
    receiver.stage(&pack(&[inline(b"late", b"x")])).unwrap();
    receiver.finish().unwrap();
    assert_eq!(names(space.path()), ["a", "b", "d", "d/c", "e", "late", "taken"]);
}

#[test]
fn the_last_of_two_equal_names_wins() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path());
    let unpacked = receiver
        .unpack(&pack(&[
            inline(b"a", b"first"),
            inline(b"a", b"second"),
            link(b"b", b"x"),
            inline(b"b", b"file"),
        ]))
        .unwrap();
    assert_eq!(unpacked.failures, []);
    receiver.finish().unwrap();
    assert_eq!(fs::read(space.path().join("a")).unwrap(), b"second");
    assert_eq!(fs::read(space.path().join("b")).unwrap(), b"file");
}

#[test]
fn failures_at_the_sender_are_passed_on() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path());
    let told = pack(&[(header(EntryKind::Failed), b"a/b", b"a/b: cannot read it\x1b[2J")]);
    let failures = receiver.unpack(&told).unwrap().failures;
    assert_eq!(failures[0].path, b"a/b");
    assert_eq!(failures[0].text, "a/b: cannot read it\\u{1b}[2J (at the sender)");
    assert_eq!(receiver.finish().unwrap().failed, 1);
}

#[test]
fn a_name_that_the_file_system_refuses_fails_alone() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path());
    // 300 levels of 10 bytes pass PATH_MAX as a whole, and are opened a component at a time.
    let deep = [b"0123456789/".repeat(300), b"x".to_vec()].concat();
    let unpacked = receiver.unpack(&pack(&[inline(&deep, b"x"), inline(b"b", b"x")])).unwrap();
    assert_eq!(unpacked.failures, []);
    receiver.finish().unwrap();
}

#[test]
fn metadata_of_too_many_directories_is_reported() {
    let space = tempfile::tempdir().unwrap();
    let options = Options { finals_bytes_max: 64, ..Options::default() };
    let mut receiver = receiver_with(space.path(), options).unwrap();
    let directory = header(EntryKind::Directory);
    let last = EntryHeader { mode: 0o711, ..header(EntryKind::DirectoryFinal) };
    let pack = pack(&[
        (directory, b"a", b""),
        (directory, b"b", b""),
        (last, b"a", b""),
        (last, b"b", b""),
        (last, b"c", b""),
    ]);
    receiver.unpack(&pack).unwrap();
    let totals = receiver.finish().unwrap();
    assert_eq!((totals.failed, totals.failures.len()), (1, 1));
    assert!(totals.failures[0].text.contains("too many directories"));
}

#[test]
fn a_full_disk_stops_the_job_and_keeps_what_was_complete() {
    let space = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(space.path(), "size=256k") else { return };
    let mut receiver = receiver(space.path().join("to"));
    let content = vec![7; 100 << 10];
    let fits = pack(&[inline(b"fits", &content)]);
    assert_eq!(receiver.unpack(&fits).unwrap().failures, []);
    let full = pack(&[inline(b"small", b"x"), inline(b"b", &content), inline(b"c", &content)]);
    let Err(TreeError::Destination(failure)) = receiver.unpack(&full) else { panic!("the disk is full") };
    assert_eq!(failure.code, Code::NoSpace);
    assert!(failure.text.starts_with("c: ") && failure.text.contains("free space"), "{}", failure.text);
    drop(receiver);
    let kept = names(&space.path().join("to"));
    assert!(kept.contains(&"fits".to_owned()));
    assert!(kept.iter().all(|name| ["b", "fits", "small"].contains(&name.as_str())), "{kept:?}");
}

#[test]
fn a_read_only_file_system_stops_the_job() {
    let space = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(space.path(), "size=256k,ro") else { return };
    let mut receiver = receiver(space.path());
    let Err(TreeError::Destination(failure)) = receiver.unpack(&pack(&[inline(b"a", b"x")])) else {
        panic!("nothing can be written");
    };
    assert!(failure.text.contains("mount it writable"), "{}", failure.text);
}

#[test]
fn another_file_system_below_the_destination_fails_alone() {
    let space = tempfile::tempdir().unwrap();
    let below = space.path().join("below");
    fs::create_dir(&below).unwrap();
    let Some(_small) = Small::mount(&below, "size=64k") else { return };
    let mut receiver = receiver(space.path());
    let content = vec![7; 100 << 10];
    let unpacked = receiver.unpack(&pack(&[inline(b"below/a", &content), inline(b"b", &content)])).unwrap();
    assert_eq!(unpacked.failures.len(), 1);
    assert_eq!(unpacked.failures[0].code, Code::NoSpace);
    receiver.finish().unwrap();
    assert_eq!(names(space.path()), ["b", "below"]);
}

#[test]
fn a_directory_without_rights_is_this_users_to_open() {
    if is_root() {
        println!("skipped: root may do everything");
        return;
    }
    let space = tempfile::tempdir().unwrap();
    for mode in [0o500, 0o000] {
        let closed = space.path().join(format!("closed-{mode:o}"));
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut receiver = receiver(space.path());
    let unpacked =
        receiver.unpack(&pack(&[inline(b"closed-500/a", b"x"), inline(b"closed-0/a", b"x")])).unwrap();
    assert_eq!(unpacked.failures, []);
    receiver.finish().unwrap();
}
