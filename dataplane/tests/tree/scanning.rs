//! A scanner on trees that it cannot read, or not all of.
use crate::support::{entries, is_root, scan, source};
use dwcp_abi::wire::{Code, EntryKind};
use dwcp_dataplane::tree::{Filters, Limits, Scanner, verify_unchanged};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

#[test]
fn special_files_are_reported_and_not_opened() {
    let space = tempfile::tempdir().unwrap();
    let fifo = space.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(space.path().join("socket")).unwrap();
    fs::write(space.path().join(".dwcp.0000000000000001.3.part"), "incomplete").unwrap();
    let contents = space.path().join("");
    let (packs, _) = scan(source(contents), Limits::default());
    let failed: Vec<_> = entries(&packs[0].0)
        .into_iter()
        .filter(|entry| entry.header.kind != EntryKind::Directory)
        .map(|entry| (entry.header.kind, entry.name.to_vec()))
        .collect();
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|(kind, _)| *kind == EntryKind::Failed));
    for failure in &packs[0].1.failures {
        assert!(failure.text.contains("not a regular file, directory or symbolic link"), "{}", failure.text);
    }
    let (packs, _) = scan(source(fifo), Limits::default());
    assert_eq!(packs[0].1.failures.len(), 1);
    let (packs, _) = scan(source("/dev/null"), Limits::default());
    assert_eq!(packs[0].1.failures.len(), 1);
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let (packs, _) = scan(source("/no/such/place"), Limits::default());
    let failure = &packs[0].1.failures[0];
    assert_eq!((failure.path.as_slice(), failure.code), (&b"place"[..], Code::NotFound));
    assert!(failure.text.starts_with("/no/such/place: cannot open it to read"), "{}", failure.text);
}

#[test]
fn files_that_vanish_during_the_walk_are_reported() {
    let space = tempfile::tempdir().unwrap();
    for number in 0..20 {
        fs::write(space.path().join(format!("{number}")), vec![1; 10 << 10]).unwrap();
    }
    let mut scanner = Scanner::new(source(space.path()), Filters::default(), Limits::default());
    let mut bytes = vec![0; 96 << 10];
    let first = scanner.fill(&mut bytes);
    assert!(first.failures.is_empty() && !first.end);
    let sent = first.entries - 1;
    for entry in fs::read_dir(space.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let rest = scanner.fill(&mut bytes);
    assert!(rest.end);
    // The one name that found no room in the first pack is among them.
    assert_eq!(rest.failures.len() as u32, 20 - sent);
    assert!(rest.failures.iter().all(|failure| failure.code == Code::Changed));
}

#[test]
fn packs_end_at_their_bounds() {
    let space = tempfile::tempdir().unwrap();
    for number in 0..50 {
        fs::write(space.path().join(format!("{number}")), vec![1; 2000]).unwrap();
    }
    let limits = Limits { inline_bytes_max: 1999, objects_per_pack_max: 8, ..Limits::default() };
    let (packs, _) = scan(source(space.path()), limits);
    let objects: Vec<_> = packs.iter().map(|(_, filled)| filled.objects.len()).collect();
    assert_eq!(objects, [8, 8, 8, 8, 8, 8, 2]);
    let numbers: Vec<_> =
        packs.iter().flat_map(|(_, filled)| filled.objects.iter().map(|found| found.object)).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());

    let limits = Limits { depth_max: 3, ..Limits::default() };
    fs::create_dir_all(space.path().join("a/b/c/d")).unwrap();
    let (packs, _) = scan(source(space.path()), limits);
    let failures: Vec<_> = packs.iter().flat_map(|(_, filled)| &filled.failures).collect();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].path.ends_with(b"/a/b/c"));
}

#[test]
fn a_file_that_does_not_fit_a_small_pack_becomes_an_object() {
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("file"), vec![1; 120 << 10]).unwrap();
    let mut scanner = Scanner::new(source(space.path().join("file")), Filters::default(), Limits::default());
    let filled = scanner.fill(&mut vec![0; 96 << 10]);
    assert_eq!((filled.objects.len(), filled.objects[0].size), (1, 120 << 10));
}

#[test]
fn changes_of_an_object_are_noticed() {
    let space = tempfile::tempdir().unwrap();
    let path = space.path().join("large");
    fs::write(&path, vec![1; 300 << 10]).unwrap();
    let (packs, _) = scan(source(&path), Limits::default());
    let found = &packs[0].1.objects[0];
    assert!(verify_unchanged(&found.file, &found.fingerprint));
    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_len(5).unwrap();
    writer.write_all_at(&vec![2; 300 << 10], 0).unwrap();
    assert!(!verify_unchanged(&found.file, &found.fingerprint));
}

#[test]
fn directories_beyond_the_bound_are_reported() {
    let space = tempfile::tempdir().unwrap();
    for number in 0..10 {
        fs::create_dir(space.path().join(format!("{number}"))).unwrap();
    }
    let limits = Limits { finals_bytes_max: 200, ..Limits::default() };
    let mut scanner = Scanner::new(source(space.path()), Filters::default(), limits);
    let mut bytes = vec![0; 96 << 10];
    assert!(scanner.fill(&mut bytes).end);
    let finals = scanner.fill_finals(&mut bytes);
    assert_eq!(finals.failures.len(), 1);
    assert!(finals.failures[0].text.contains("are not kept"), "{}", finals.failures[0].text);
}

#[test]
fn links_are_sent_as_they_are() {
    let space = tempfile::tempdir().unwrap();
    symlink("../../x", space.path().join("link")).unwrap();
    let (packs, _) = scan(source(space.path().join("link")), Limits::default());
    let entry = entries(&packs[0].0)[0];
    assert_eq!(
        (entry.header.kind, entry.name, entry.content),
        (EntryKind::Symlink, &b"link"[..], &b"../../x"[..])
    );
}

#[test]
fn unreadable_files_are_reported_and_the_rest_is_sent() {
    if is_root() {
        println!("skipped: root reads everything");
        return;
    }
    let space = tempfile::tempdir().unwrap();
    fs::write(space.path().join("secret"), "x").unwrap();
    fs::write(space.path().join("open"), "x").unwrap();
    fs::set_permissions(space.path().join("secret"), Permissions::from_mode(0o000)).unwrap();
    let (packs, _) = scan(source(space.path()), Limits::default());
    assert_eq!(packs[0].1.failures.len(), 1);
    assert_eq!(packs[0].1.failures[0].code, Code::Forbidden);
    assert_eq!(packs[0].1.entries, 3);
}
