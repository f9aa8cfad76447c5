//! What a receiver leaves for the next attempt, and what it makes of what it finds.
use crate::support::{handle, header, names, object, pack, receiver, receiver_with};
use dwcp_abi::wire::{CHUNK_BYTES, EntryHeader, EntryKind};
use dwcp_dataplane::tree::{Opening, Options, Partly};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const CHUNK: u64 = CHUNK_BYTES as u64;
const SIZE: u64 = 3 * CHUNK + 5;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at % 251) as u8).collect()
}

fn open(receiver: &mut dwcp_dataplane::tree::Receiver, number: u64, mtime_s: i64) -> Partly {
    let header = EntryHeader { object: number, size: SIZE, mtime_s, ..header(EntryKind::Object) };
    let mut opened = receiver.unpack(&pack(&[(header, b"d/large", b"")])).unwrap().opened;
    match opened.remove(0).opening {
        Opening::Write(partly) => partly,
        other => panic!("{other:?}"),
    }
}

fn write(partly: &Partly, chunk: u64) {
    let (start, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(SIZE));
    let partial = partly.partial.as_ref().unwrap();
    assert!(partial.begin());
    handle(partly).write_all_at(&content()[start as usize..end as usize], start).unwrap();
    partial.mark(chunk as u32, 1);
}

/// Leaves two of four chunks behind: the file.
fn leave(space: &Path) -> PathBuf {
    let mut receiver = receiver(space.join("to"));
    let partly = open(&mut receiver, 1, 5);
    assert_eq!(partly.held, []);
    write(&partly, 3);
    write(&partly, 1);
    drop(receiver);
    assert!(!partly.partial.unwrap().begin(), "nobody writes to what was left");
    let left = names(space).into_iter().find(|name| name.contains(".dwcp.")).expect("something is left");
    space.join(left)
}

#[test]
fn what_was_written_is_held_by_the_next_attempt_under_another_number() {
    let space = tempfile::tempdir().unwrap();
    leave(space.path());
    let mut receiver = receiver(space.path().join("to"));
    let partly = open(&mut receiver, 9, 5);
    assert_eq!(partly.held, [(CHUNK, 2 * CHUNK), (3 * CHUNK, SIZE)]);
    write(&partly, 0);
    write(&partly, 2);
    receiver.commit(9).unwrap();
    receiver.finish().unwrap();
    assert_eq!(names(space.path()), ["to", "to/d", "to/d/large"]);
    assert!(fs::read(space.path().join("to/d/large")).unwrap() == content(), "nothing but the object");
}

#[test]
fn what_is_of_another_source_or_damaged_is_not_held() {
    for damage in 0..5 {
        let space = tempfile::tempdir().unwrap();
        let left = leave(space.path());
        let file = File::options().write(true).open(&left).unwrap();
        let length = file.metadata().unwrap().len();
        match damage {
            0 => {}
            1 => file.set_len(length - 1).unwrap(),
            2 => file.write_all_at(b"x", SIZE.next_multiple_of(4096) + 20).unwrap(),
            3 => fs::hard_link(&left, space.path().join("other")).unwrap(),
            _ => {
                fs::remove_file(&left).unwrap();
                std::os::unix::fs::symlink("/dev/null", &left).unwrap();
            }
        }
        let mut receiver = receiver(space.path().join("to"));
        let mtime = if damage == 0 { 6 } else { 5 };
        assert_eq!(open(&mut receiver, 1, mtime).held, [], "damage {damage}");
        receiver.abandon();
        assert!(!names(space.path()).iter().any(|name| name.contains(".dwcp.")), "damage {damage}");
    }
}

#[test]
fn a_file_that_was_complete_and_not_named_yet_is_held_whole() {
    let space = tempfile::tempdir().unwrap();
    let left = leave(space.path());
    let file = File::options().write(true).open(&left).unwrap();
    file.write_all_at(&content(), 0).unwrap();
    file.set_len(SIZE).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(5, header(EntryKind::Object).mtime_ns)).unwrap();
    let mut receiver = receiver(space.path().join("to"));
    assert_eq!(open(&mut receiver, 1, 5).held, [(0, SIZE)]);
    receiver.commit(1).unwrap();
    receiver.finish().unwrap();
    assert!(fs::read(space.path().join("to/d/large")).unwrap() == content());
}

#[test]
fn leftovers_of_this_job_go_when_it_ends_and_those_of_others_stay() {
    let space = tempfile::tempdir().unwrap();
    leave(space.path());
    let directory = space.path().join("to/d");
    // The content of one that is about to be named is as old as its source.
    let other = directory.join(".dwcp.0000000000000007.k0000000000000000000000000000abce.part");
    File::create(&other).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let mut receiver = receiver(space.path().join("to"));
    receiver.unpack(&pack(&[object(1, b"d/other", 3)])).unwrap();
    receiver.commit(1).unwrap();
    receiver.finish().unwrap();
    assert_eq!(names(&directory), [other.file_name().unwrap().to_str().unwrap(), "other"]);
}

#[test]
fn two_objects_of_one_path_do_not_share_a_file() {
    let space = tempfile::tempdir().unwrap();
    let mut receiver = receiver(space.path().join("to"));
    let (first, second) = (open(&mut receiver, 1, 5), open(&mut receiver, 2, 5));
    assert_ne!(handle(&first).metadata().unwrap().ino(), handle(&second).metadata().unwrap().ino());
    (0..4).for_each(|chunk| write(&first, chunk));
    receiver.commit(1).unwrap();
    assert!(fs::read(space.path().join("to/d/large")).unwrap() == content());
    receiver.abandon();
    assert_eq!(names(space.path()), ["to", "to/d", "to/d/large"]);
}

#[test]
fn what_an_attempt_has_put_in_place_stays_and_what_was_there_before_does_not() {
    let space = tempfile::tempdir().unwrap();
    let place = space.path().join("file");
    let mut entry = crate::support::inline(b"file", b"new");
    (entry.0.mtime_s, entry.0.mtime_ns) = (5, 0);
    let put = |since: Option<(i64, i64)>| {
        fs::write(&place, "old").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        File::options().write(true).open(&place).unwrap().set_modified(time).unwrap();
        let options = Options { placed_since: since, ..Options::default() };
        let mut receiver = receiver_with(space.path(), options).unwrap();
        receiver.unpack(&pack(&[entry])).unwrap();
        receiver.finish().unwrap();
        fs::read(&place).unwrap()
    };
    assert_eq!(put(None), b"new");
    assert_eq!(put(Some((i64::MAX, 0))), b"new");
    assert_eq!(put(Some((0, 0))), b"old");
}
