//! What is sent arrives as it was.
use crate::support::{
    exported, handle, is_root, names, receiver, receiver_with, scan, source, state, transfer,
};
use dwcp_dataplane::tree::{Base, Limits, Opening, Options, Source};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn put(path: &Path, bytes: &[u8], mode: u32, time: SystemTime) {
    let file = File::create_new(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_permissions(Permissions::from_mode(mode)).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A tree with everything that file systems allow and tools trip over.
fn nasty(root: &Path) {
    let now = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    let early = UNIX_EPOCH - Duration::new(86_400, 5);
    fs::create_dir_all(root.join("empty/inner")).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    put(&root.join("closed/readonly"), b"r", 0o400, now);
    put(&root.join("closed/none"), b"", 0o600, early);
    for length in [0, 1, 2, 4095, 4096, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 3 << 20] {
        put(&root.join(format!("size-{length}")), &bytes(length), 0o640, now);
    }
    put(&root.join("setuid"), b"#!", 0o755, now);
    put(&root.join(OsStr::from_bytes(b"not-\xff-utf8\n")), b"x", 0o666, early);
    put(&root.join("n".repeat(255)), b"long", 0o777, now);
    let deep = (0..60).fold(root.join("deep"), |path, level| path.join(format!("level-{level}")));
    fs::create_dir_all(&deep).unwrap();
    put(&deep.join("bottom"), b"b", 0o644, now);
    let sparse = File::create_new(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"island", 17 << 20).unwrap();
    symlink("../outside", root.join("dangling")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink(OsStr::from_bytes(b"\xfe\xff"), root.join("closed/link")).unwrap();
    for (directory, mode, time) in
        [("empty/inner", 0o711, early), ("closed", 0o500, now), ("deep", 0o1777, now)]
    {
        let directory = File::open(root.join(directory)).unwrap();
        directory.set_permissions(Permissions::from_mode(mode)).unwrap();
        directory.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

#[test]
fn a_nasty_tree_arrives_equal() {
    let space = tempfile::tempdir().unwrap();
    let from = space.path().join("from");
    fs::create_dir(&from).unwrap();
    nasty(&from);
    let to = space.path().join("to");
    let report = transfer(source(&from), Limits::default(), receiver(&to));
    assert_eq!(report.failures, []);
    assert_eq!(report.totals.failures, []);
    assert_eq!(state(&to.join("from")), state(&from));
    assert_eq!(
        fs::metadata(to.join("from")).unwrap().mtime_nsec(),
        fs::metadata(&from).unwrap().mtime_nsec()
    );
    assert_eq!(report.totals.objects, 3);
    let sparse = fs::metadata(to.join("from/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes: {} blocks", sparse.blocks());

    // Over what is there already, including directories that cannot be written to.
    let report = transfer(source(&from), Limits::default(), receiver(&to));
    assert_eq!(report.failures, []);
    assert_eq!(state(&to.join("from")), state(&from));
    let options = Options { skip_unchanged: true, ..Options::default() };
    let report = transfer(source(&from), Limits::default(), receiver_with(&to, options).unwrap());
    assert_eq!((report.totals.objects, report.totals.bytes), (0, 0));
    assert_eq!(state(&to.join("from")), state(&from));
}

#[test]
fn packs_may_come_in_any_order_and_more_than_once() {
    let space = tempfile::tempdir().unwrap();
    let from = space.path().join("from");
    fs::create_dir(&from).unwrap();
    for directory in 0..30 {
        fs::create_dir_all(from.join(format!("a/{directory}/b"))).unwrap();
        for file in 0..20 {
            let path = from.join(format!("a/{directory}/b/{file}"));
            put(&path, &bytes(3000), 0o600, UNIX_EPOCH);
        }
        let mode = if directory % 2 == 0 { 0o500 } else { 0o755 };
        fs::set_permissions(from.join(format!("a/{directory}/b")), Permissions::from_mode(mode)).unwrap();
    }
    let (packs, finals) = scan(source(&from), Limits::default());
    assert!(packs.len() > 2);
    let to = space.path().join("to");
    let mut receiver = receiver(&to);
    for pack in finals.iter().chain(packs.iter().rev().map(|(pack, _)| pack)).chain(&finals) {
        assert_eq!(receiver.unpack(pack).unwrap().failures, []);
        assert_eq!(receiver.unpack(pack).unwrap().failures, []);
    }
    receiver.finish().unwrap();
    assert_eq!(state(&to.join("from")), state(&from));
}

#[test]
fn names_follow_the_habits_of_cp_and_rsync() {
    let space = tempfile::tempdir().unwrap();
    let root = space.path();
    fs::create_dir_all(root.join("tree/sub")).unwrap();
    fs::write(root.join("tree/sub/file"), "1").unwrap();
    fs::write(root.join("single"), "2").unwrap();
    fs::create_dir(root.join("exists")).unwrap();
    let send = |from: &str, to: &str| {
        let report = transfer(source(root.join(from)), Limits::default(), receiver(root.join(to)));
        assert_eq!(report.failures, []);
        names(&root.join(to))
    };
    assert_eq!(send("tree", "new-1"), ["tree", "tree/sub", "tree/sub/file"]);
    assert_eq!(send("tree/", "new-2/deeper"), ["sub", "sub/file"]);
    assert_eq!(send("single", "new-3/"), ["single"]);
    assert_eq!(send("single", "exists"), ["single"]);
    transfer(source(root.join("single")), Limits::default(), receiver(root.join("renamed/to")));
    assert_eq!(fs::read(root.join("renamed/to")).unwrap(), b"2");
    transfer(source(root.join("single")), Limits::default(), receiver(root.join("renamed/to")));
    assert_eq!(names(&root.join("renamed")), ["to"]);
    fs::create_dir(root.join("nothing")).unwrap();
    assert_eq!(send("nothing/", "new-4"), [""; 0]);
    let both = [source(root.join("single")), source(root.join("tree/sub"))].concat();
    transfer(both, Limits::default(), receiver(root.join("new-5")));
    assert_eq!(names(&root.join("new-5")), ["single", "sub", "sub/file"]);
}

#[test]
fn an_export_serves_and_takes_what_is_below_it() {
    let space = tempfile::tempdir().unwrap();
    let export = space.path().join("export");
    fs::create_dir_all(export.join("data/sub")).unwrap();
    fs::write(export.join("data/sub/file"), "x").unwrap();
    let directory = Arc::new(File::open(&export).unwrap().into());
    let below =
        |path: &[u8]| vec![Source { base: Base::Export(Arc::clone(&directory)), path: path.to_vec() }];
    let report = transfer(below(b"data"), Limits::default(), exported(&export, b"/copies/one/").unwrap());
    assert_eq!(report.failures, []);
    assert_eq!(names(&export.join("copies")), ["one", "one/data", "one/data/sub", "one/data/sub/file"]);
    transfer(below(b"/data/sub/file"), Limits::default(), exported(&export, b"two").unwrap());
    assert_eq!(fs::read(export.join("two")).unwrap(), b"x");
}

#[test]
fn set_id_bits_and_owners_need_an_option() {
    let space = tempfile::tempdir().unwrap();
    let from = space.path().join("from");
    fs::create_dir(&from).unwrap();
    put(&from.join("program"), b"#!", 0o755, UNIX_EPOCH);
    fs::set_permissions(from.join("program"), Permissions::from_mode(0o6755)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let to = space.path().join("to");
    transfer(source(&from), Limits::default(), receiver(&to));
    assert_eq!(mode(&to.join("from/program")), 0o755);
    let options = Options { special_bits: true, ..Options::default() };
    transfer(source(&from), Limits::default(), receiver_with(&to, options).unwrap());
    assert_eq!(mode(&to.join("from/program")), 0o6755);
    if !is_root() {
        println!("skipped: owners need root");
        return;
    }
    nix::unistd::chown(&from.join("program"), Some(1234.into()), Some(4321.into())).unwrap();
    transfer(source(&from), Limits::default(), receiver(&to));
    assert_eq!(fs::metadata(to.join("from/program")).unwrap().uid(), 0);
    let options = Options { owner: true, group: true, ..Options::default() };
    transfer(source(&from), Limits::default(), receiver_with(&to, options).unwrap());
    let program = fs::metadata(to.join("from/program")).unwrap();
    assert_eq!((program.uid(), program.gid()), (1234, 4321));
}

#[test]
fn an_object_of_a_pack_that_came_twice_is_opened_twice_and_settled_once() {
    let space = tempfile::tempdir().unwrap();
    let from = space.path().join("large");
    put(&from, &bytes(300 << 10), 0o644, UNIX_EPOCH);
    let (packs, _) = scan(source(&from), Limits::default());
    let mut receiver = receiver(space.path().join("copy"));
    let first = receiver.unpack(&packs[0].0).unwrap().opened.remove(0);
    let again = receiver.unpack(&packs[0].0).unwrap().opened.remove(0);
    let (Opening::Write(first), Opening::Write(again)) = (first.opening, again.opening) else {
        panic!("both are open");
    };
    let content = bytes(300 << 10);
    handle(&first).write_all_at(&content[..1000], 0).unwrap();
    handle(&again).write_all_at(&content[1000..], 1000).unwrap();
    receiver.commit(1).unwrap();
    receiver.commit(1).unwrap();
    assert!(receiver.commit(2).is_err());
    let late = receiver.unpack(&packs[0].0).unwrap().opened.remove(0);
    assert!(matches!(late.opening, Opening::Committed));
    receiver.finish().unwrap();
    assert_eq!(fs::read(space.path().join("copy")).unwrap(), content);
}
