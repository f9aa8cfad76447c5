//! Packs that mean harm. Beside every root lies a canary directory that must stay as it was.
use crate::support::{
    Random, exported, header, inline, link, names, object, pack, receiver_with, seal, state,
};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{Code, EntryHeader, EntryKind, FLAG_SOLE};
use dwcp_dataplane::tree::{Base, Filters, Limits, Opening, Options, Receiver, Scanner, Source, TreeError};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Arena {
    space: TempDir,
    export: PathBuf,
    canary: PathBuf,
}

impl Arena {
    fn new() -> Self {
        // In memory where there is such a place: thousands of flushes cost minutes on a slow disk.
        let space = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (export, canary) = (space.path().join("export"), space.path().join("canary"));
        fs::create_dir_all(export.join("in")).unwrap();
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("bird"), "sings").unwrap();
        Self { space, export, canary }
    }

    fn receiver(&self) -> Receiver {
        exported(&self.export, b"in").unwrap()
    }

    fn check(&self) {
        assert_eq!(names(&self.canary), ["bird"]);
        assert_eq!(fs::read(self.canary.join("bird")).unwrap(), b"sings");
        let mut beside: Vec<_> =
            fs::read_dir(self.space.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["canary", "export"]);
        assert_eq!(fs::read_dir(&self.export).unwrap().count(), 1);
    }
}

#[test]
fn names_that_leave_the_root_break_the_format() {
    let arena = Arena::new();
    let long = [b'x'; 256];
    let deep = [b"d/".repeat(600), b"x".to_vec()].concat();
    let bad: [&[u8]; 9] = [b"../x", b"/x", b"a/../../x", b"a//x", b"./x", b"x/", b"x\0y", &long, &deep];
    for name in bad {
        for kind in
            [EntryKind::InlineFile, EntryKind::Directory, EntryKind::Symlink, EntryKind::DirectoryFinal]
        {
            let mut bytes = [0; 4096];
            let header = EntryHeader { name_length: name.len() as u16, ..header(kind) };
            let start = 32 + header.encode(&mut bytes[32..]).unwrap();
            let pack = &mut bytes[..start + name.len()];
            pack[start..].copy_from_slice(name);
            seal(pack);
            let result = arena.receiver().unpack(pack);
            assert!(matches!(result, Err(TreeError::Malformed(_))), "{name:?}");
        }
    }
    arena.check();
    assert_eq!(names(&arena.export), ["in"]);
}

#[test]
fn a_link_of_the_same_pack_is_not_followed() {
    for target in [&b"../../canary"[..], b"/etc", b"."] {
        let arena = Arena::new();
        let mut receiver = arena.receiver();
        let unpacked = receiver.unpack(&pack(&[link(b"d", target)])).unwrap();
        assert_eq!(unpacked.failures, []);
        let hostile = pack(&[
            inline(b"d/bird", b"dead"),
            (header(EntryKind::Directory), b"d/sub", b""),
            link(b"d/link", b"x"),
            object(1, b"d/object", 10),
            (header(EntryKind::Directory), b"d", b""),
        ]);
        let unpacked = receiver.unpack(&hostile).unwrap();
        assert_eq!(unpacked.failures.len(), 5);
        assert!(unpacked.failures[0].text.contains("is in the way"), "{}", unpacked.failures[0].text);
        assert_eq!(unpacked.failures[3].object, Some(1));
        receiver.unpack(&pack(&[(header(EntryKind::DirectoryFinal), b"d", b"")])).unwrap();
        assert_eq!(receiver.finish().unwrap().failures.len(), 1);
        arena.check();
        assert_eq!(names(&arena.export), ["in", "in/d"]);
    }
}

#[test]
fn a_link_never_takes_the_place_of_a_directory_in_use() {
    let arena = Arena::new();
    let mut receiver = arena.receiver();
    let hostile = pack(&[
        inline(b"d/a", b"1"),
        link(b"d", b"../../canary"),
        inline(b"d/bird", b"dead"),
        inline(b"e", b"2"),
    ]);
    let unpacked = receiver.unpack(&hostile).unwrap();
    assert_eq!(unpacked.failures.len(), 1);
    assert_eq!(unpacked.failures[0].path, b"d");
    receiver.finish().unwrap();
    assert_eq!(names(&arena.export), ["in", "in/d", "in/d/a", "in/d/bird", "in/e"]);
    arena.check();
}

#[test]
fn links_planted_in_advance_are_not_followed() {
    let arena = Arena::new();
    symlink(&arena.canary, arena.export.join("in/planted")).unwrap();
    symlink(arena.canary.join("bird"), arena.export.join("in/file")).unwrap();
    let mut receiver = arena.receiver();
    let hostile =
        pack(&[inline(b"planted/bird", b"dead"), inline(b"file", b"new"), object(1, b"planted/o", 1)]);
    let unpacked = receiver.unpack(&hostile).unwrap();
    assert_eq!(unpacked.failures.len(), 2);
    receiver.finish().unwrap();
    // The link itself was replaced, not what it pointed to.
    assert_eq!(fs::read(arena.export.join("in/file")).unwrap(), b"new");
    arena.check();
}

#[test]
fn leftovers_planted_under_temporary_names_are_not_followed() {
    let arena = Arena::new();
    for name in ["1", "2", "o1"] {
        let planted = arena.export.join(format!("in/.dwcp.000000000000002a.{name}.part"));
        symlink(arena.canary.join("bird"), planted).unwrap();
    }
    let mut receiver = arena.receiver();
    let unpacked =
        receiver.unpack(&pack(&[inline(b"a", b"1"), link(b"l", b"x"), object(1, b"o", 0)])).unwrap();
    assert_eq!((unpacked.failures.len(), unpacked.opened.len()), (0, 1));
    receiver.commit(1).unwrap();
    receiver.finish().unwrap();
    let visible: Vec<_> = names(&arena.export).into_iter().filter(|name| !name.contains(".dwcp.")).collect();
    assert_eq!(visible, ["in", "in/a", "in/l", "in/o"]);
    arena.check();
}

#[test]
fn destinations_and_sources_stay_below_the_export() {
    let arena = Arena::new();
    symlink(&arena.canary, arena.export.join("in/planted")).unwrap();
    for destination in [&b"../canary"[..], b"in/../../canary", b"in/planted/x", b"in/planted/", b"a\0b"] {
        let result = exported(&arena.export, destination);
        let refused = match result {
            Err(TreeError::Destination(_)) => true,
            Err(TreeError::Damaged | TreeError::Malformed(_) | TreeError::Entry(_)) => false,
            Ok(mut receiver) => receiver.unpack(&pack(&[inline(b"x", b"dead")])).is_err(),
        };
        assert!(refused, "{destination:?}");
    }
    let directory = Arc::new(fs::File::open(&arena.export).unwrap().into());
    for path in [&b"../canary"[..], b"in/../../canary/bird", b"in/planted/bird", b"in/planted/"] {
        let base = Base::Export(Arc::clone(&directory));
        let mut scanner =
            Scanner::new(vec![Source { base, path: path.to_vec() }], Filters::default(), Limits::default());
        let filled = scanner.fill(&mut vec![0; 96 << 10]);
        assert_eq!((filled.entries, filled.failures.len(), filled.objects.len()), (1, 1, 0), "{path:?}");
    }
    arena.check();
}

#[test]
fn reserved_names_and_the_root_itself_are_refused() {
    let arena = Arena::new();
    let mut receiver = arena.receiver();
    let reserved = b".dwcp.0000000000000001.7.part";
    let inside = [&reserved[..], b"/x"].concat();
    let unpacked = receiver.unpack(&pack(&[inline(reserved, b"x"), inline(&inside, b"x")])).unwrap();
    assert_eq!(unpacked.failures.len(), 2);
    assert_eq!(unpacked.failures[0].code, Code::Forbidden);
    let (sole, name, content) = inline(b"whole", b"root");
    let replaced = pack(&[(EntryHeader { flags: FLAG_SOLE, ..sole }, name, content)]);
    assert_eq!(receiver.unpack(&replaced).unwrap().failures, []);
    receiver.finish().unwrap();
    assert_eq!(names(&arena.export), ["in", "in/whole"]);
    arena.check();
}

#[test]
fn an_export_is_never_replaced_by_a_file() {
    let arena = Arena::new();
    let (sole, name, content) = inline(b"whole", b"root");
    for destination in [&b""[..], b"/", b"."] {
        let mut receiver = exported(&arena.export.join("in"), destination).unwrap();
        receiver.unpack(&pack(&[(EntryHeader { flags: FLAG_SOLE, ..sole }, name, content)])).unwrap();
        receiver.finish().unwrap();
        assert_eq!(names(&arena.export), ["in", "in/whole"]);
    }
}

#[test]
fn numbers_of_objects_are_bounded_and_their_own() {
    let arena = Arena::new();
    let options = Options { objects_max: 2, ..Options::default() };
    let mut receiver = receiver_with(arena.export.join("in"), options).unwrap();
    let many = pack(&[object(1, b"a", 1), object(2, b"b", 1), object(3, b"c", 1), object(1, b"other", 1)]);
    let unpacked = receiver.unpack(&many).unwrap();
    assert_eq!(unpacked.opened.len(), 2);
    let codes: Vec<_> = unpacked.failures.iter().map(|failure| (failure.object, failure.code)).collect();
    assert_eq!(codes, [(Some(3), Code::Busy), (Some(1), Code::Protocol)]);
    // A size that no file system here allows is this entry's failure, and leaves nothing behind.
    receiver.discard(1);
    let unpacked = receiver.unpack(&pack(&[object(9, b"huge", i64::MAX as u64)])).unwrap();
    for opened in unpacked.opened {
        assert!(matches!(opened.opening, Opening::Write(_)));
    }
    drop(receiver);
    assert_eq!(names(&arena.export), ["in"]);
}

#[test]
fn mutated_packs_stay_inside_and_never_panic() {
    let arena = Arena::new();
    let honest = pack(&[
        (header(EntryKind::Directory), b"d", b""),
        inline(b"d/file", b"content"),
        link(b"d/link", b"../../canary"),
        inline(b"d/link/bird", b"dead"),
        object(1, b"d/object", 5),
        object(2, b"x/object", 5),
        (header(EntryKind::DirectoryFinal), b"d", b""),
        (header(EntryKind::Failed), b"d/failed", b"text"),
    ]);
    let before = state(&arena.canary);
    let mut random = Random(7);
    for round in 0..3000 {
        let mut bytes = honest.clone();
        for _ in 0..1 + random.next() % 3 {
            let at = 32 + random.next() % (bytes.len() - 32);
            bytes[at] = b"./\0d\xff\x01\x02\x03\x04"[random.next() % 9];
        }
        bytes.truncate(bytes.len() - random.next() % 3 * 11);
        seal(&mut bytes);
        let mut receiver = arena.receiver();
        for _ in 0..2 {
            if let Ok(unpacked) = receiver.unpack(&bytes) {
                for opened in &unpacked.opened {
                    if round % 2 == 0 && receiver.commit(opened.object).is_err() {
                        receiver.discard(opened.object);
                    }
                }
            }
        }
        if round % 3 == 0 {
            receiver.finish().unwrap();
        }
    }
    assert_eq!(state(&arena.canary), before);
    arena.check();
    open_up(&arena.export);
    let leftovers = names(&arena.export).into_iter().filter(|name| name.contains(".part")).count();
    assert_eq!(leftovers, 0);
}

/// Packs may have closed directories, even to their owner.
fn open_up(directory: &Path) {
    fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            open_up(&entry.path());
        }
    }
}

#[test]
fn another_directory_in_the_way_is_reported() {
    let arena = Arena::new();
    fs::create_dir_all(arena.export.join("in/taken/full")).unwrap();
    fs::write(arena.export.join("in/plain"), "file").unwrap();
    let mut receiver = arena.receiver();
    let pack = pack(&[
        inline(b"taken", b"x"),
        link(b"taken", b"x"),
        object(1, b"taken", 0),
        (header(EntryKind::Directory), b"plain", b""),
        inline(b"plain/below", b"x"),
        inline(b"fine", b"x"),
    ]);
    let unpacked = receiver.unpack(&pack).unwrap();
    assert_eq!(unpacked.failures.len(), 4);
    for failure in &unpacked.failures {
        assert!(failure.text.contains("remove it or choose another destination"), "{}", failure.text);
    }
    let TreeError::Entry(failure) = receiver.commit(1).unwrap_err() else { panic!("only this entry fails") };
    assert!(failure.text.starts_with("taken: "), "{}", failure.text);
    receiver.finish().unwrap();
    assert_eq!(names(&arena.export), ["in", "in/fine", "in/plain", "in/taken", "in/taken/full"]);
    assert!(arena.export.join("in/taken").is_dir());
}
