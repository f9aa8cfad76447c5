//! What is taken over of a tree beside contents, modes and times: hard links, attributes, owners, special files.
use crate::support::{TAG, header, is_root, names, pack, receiver_with, source, treated};
use dwcp_abi::codec::Encoded;
use dwcp_abi::wire::{
    Attribute, EntryHeader, EntryKind, Extra, FLAG_SOLE, Node, NodeKind, OwnerName, PackWriter, TreeOptions,
};
use dwcp_dataplane::tree::{Options, Receiver, Root};
use dwcp_sys::attributes;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chown, mkfifo};
use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn pair() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let space = tempfile::tempdir().unwrap();
    let (from, to) = (space.path().join("from"), space.path().join("to"));
    fs::create_dir(&from).unwrap();
    (space, from, to)
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// A pack of one entry with records.
fn told(header: EntryHeader, name: &[u8], extra: &[Extra<'_>]) -> Vec<u8> {
    let mut records = Vec::new();
    for extra in extra {
        let mut bytes = vec![0; 1024];
        let length = extra.encode(&mut bytes).unwrap();
        records.extend_from_slice(&bytes[..length]);
    }
    let mut bytes = vec![0; 64 << 10];
    let mut writer = PackWriter::new(&mut bytes);
    let content: &[u8] = if header.kind == EntryKind::InlineFile { b"content" } else { b"" };
    writer.append_with(header, (name, &records), content).unwrap();
    let length = writer.seal(|entries| *blake3::hash(entries).as_bytes());
    bytes.truncate(length);
    bytes
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let (_space, from, to) = pair();
    fs::create_dir(from.join("sub")).unwrap();
    for (name, size) in [("small", 5), ("large", 1 << 20), ("alone", 7)] {
        fs::write(from.join(name), vec![1; size]).unwrap();
    }
    fs::hard_link(from.join("small"), from.join("sub/small")).unwrap();
    fs::hard_link(from.join("small"), from.join("third")).unwrap();
    fs::hard_link(from.join("large"), from.join("sub/large")).unwrap();
    let tree = TreeOptions::HARD_LINKS;
    // What stands in the way of a link is replaced.
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::write(to.join("sub/large"), "in the way").unwrap();
    for _ in 0..2 {
        let report = treated(tree, b"", from.join(""), &to);
        assert!(
            report.failures.is_empty() && report.totals.failures.is_empty(),
            "{:?}",
            report.totals.failures
        );
        assert_eq!(names(&from), names(&to));
        assert_eq!(
            (inode(to.join("small")), inode(to.join("third"))),
            (inode(to.join("sub/small")), inode(to.join("small")))
        );
        assert_eq!(inode(to.join("large")), inode(to.join("sub/large")));
        assert_eq!(fs::read(to.join("sub/large")).unwrap(), vec![1; 1 << 20]);
    }
    let rehearsal = tree.with(TreeOptions::DRY_RUN, true).with(TreeOptions::CHECKSUM, true);
    assert_eq!(treated(rehearsal, b"", from.join(""), &to).totals.changes.replaced, 0);
    fs::remove_file(to.join("third")).unwrap();
    assert_eq!(treated(rehearsal, b"", from.join(""), &to).totals.changes.created, 1);
    // Without the option they are files of their own.
    treated(TreeOptions::NONE, b"", from.join(""), to.join("again"));
    assert_ne!(inode(to.join("again/small")), inode(to.join("again/third")));
}

#[test]
fn a_hostile_link_leads_nowhere() {
    let (space, _, to) = pair();
    fs::create_dir_all(to.join("sub")).unwrap();
    fs::write(space.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(space.path(), to.join("planted")).unwrap();
    std::os::unix::fs::symlink("../secret", to.join("link")).unwrap();
    let hard = |name: &'static [u8], target: &'static [u8]| (header(EntryKind::HardLink), name, target);
    let options = Options::of(TreeOptions::HARD_LINKS.with(TreeOptions::DELETE, true));
    let mut receiver = receiver_with(&to, options).unwrap();
    let entries = [
        hard(b"a", b"planted/secret"),
        hard(b"b", b"link"),
        hard(b"c", b"sub"),
        hard(b"d", b"d"),
        hard(b"e", b"none"),
    ];
    assert!(receiver.unpack(&pack(&entries)).unwrap().failures.is_empty());
    let totals = receiver.finish().unwrap();
    assert_eq!(totals.failed_at_end, 6, "{:?}", totals.failures);
    assert!(totals.failures.iter().any(|failure| failure.text.contains("nothing is deleted")));
    assert_eq!(names(&to), ["link", "planted", "sub"]);
    // Nobody asked for any, or the job is but one file.
    let mut receiver = receiver_with(&to, Options::default()).unwrap();
    assert_eq!(receiver.unpack(&pack(&entries)).unwrap().failures.len(), 5);
    let mut receiver = receiver_with(&to, options).unwrap();
    let sole = EntryHeader { flags: FLAG_SOLE, ..header(EntryKind::HardLink) };
    assert_eq!(receiver.unpack(&pack(&[(sole, b"a", b"b")])).unwrap().failures.len(), 1);
}

fn set(path: &Path, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    attributes::set(File::open(path).unwrap(), name, value)
}

fn value(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    attributes::value(File::open(path).unwrap(), name, &mut vec![0; 64 << 10]).ok().map(<[u8]>::to_vec)
}

/// An access list that lets user 1234 read (linux/posix_acl_xattr.h: version 2, then tag, permissions, number).
fn access_list() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1234), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    list
}

#[test]
fn attributes_and_access_lists_are_kept_where_they_are_asked_for() {
    let (_space, from, to) = pair();
    fs::create_dir(from.join("sub")).unwrap();
    fs::write(from.join("small"), "x").unwrap();
    fs::write(from.join("sub/large"), vec![1; 1 << 20]).unwrap();
    if set(&from.join("small"), c"user.comment", b"kept") == Err(Errno::EOPNOTSUPP) {
        println!("skipped: this file system keeps no attributes");
        return;
    }
    for name in ["sub", "sub/large"] {
        set(&from.join(name), c"user.comment", name.as_bytes()).unwrap();
    }
    let lists = set(&from.join("small"), c"system.posix_acl_access", &access_list()).is_ok();
    let tree = TreeOptions::XATTRS.with(TreeOptions::ACLS, true);
    treated(tree, b"", from.join(""), &to);
    for name in ["small", "sub", "sub/large"] {
        assert_eq!(
            value(&to.join(name), c"user.comment"),
            value(&from.join(name), c"user.comment"),
            "{name}"
        );
    }
    assert_eq!(value(&to.join("small"), c"system.posix_acl_access").is_some(), lists);
    assert_eq!(
        fs::metadata(to.join("small")).unwrap().mode(),
        fs::metadata(from.join("small")).unwrap().mode()
    );
    assert_eq!(
        fs::metadata(to.join("sub")).unwrap().mtime(),
        fs::metadata(from.join("sub")).unwrap().mtime()
    );

    // What a directory has of its own goes; a file whose content stays gets the new value.
    set(&to.join("sub"), c"user.other", b"x").unwrap();
    set(&from.join("small"), c"user.comment", b"new").unwrap();
    let before = inode(to.join("small"));
    treated(tree.with(TreeOptions::CHECKSUM, true), b"", from.join(""), &to);
    assert_eq!(value(&to.join("sub"), c"user.other"), None);
    assert_eq!(
        (value(&to.join("small"), c"user.comment").unwrap(), inode(to.join("small"))),
        (b"new".to_vec(), before)
    );

    treated(TreeOptions::NONE, b"", from.join(""), to.join("without"));
    assert_eq!(value(&to.join("without/small"), c"user.comment"), None);
    assert_eq!(value(&to.join("without/small"), c"system.posix_acl_access"), None);
}

/// A file arrives without attributes that are too large, and the report says so; a peer cannot set those that programs
/// trust.
#[test]
fn attributes_are_bounded_and_never_trusted() {
    let (_space, from, to) = pair();
    fs::write(from.join("file"), "x").unwrap();
    // ext4 has no room for as much; then there is nothing to bound.
    if set(&from.join("file"), c"user.large", &vec![1; 20 << 10]).is_ok() {
        let report = treated(TreeOptions::XATTRS, b"", from.join(""), &to);
        assert!(report.failures[0].text.contains("16 KiB"), "{:?}", report.failures);
        assert_eq!(fs::read(to.join("file")).unwrap(), b"x");
    }
    let mut receiver =
        receiver_with(&to, Options::of(TreeOptions::XATTRS.with(TreeOptions::ACLS, true))).unwrap();
    let attribute = |name: &'static [u8]| Extra::Attribute(Attribute { name, value: b"v" });
    let names: [&[u8]; 4] = [b"security.capability", b"trusted.x", b"user.", b"user.good"];
    receiver.unpack(&told(header(EntryKind::InlineFile), b"evil", &names.map(attribute))).unwrap();
    receiver.unpack(&told(header(EntryKind::InlineFile), b"nul", &[attribute(b"user.a\0b")])).unwrap();
    receiver
        .unpack(&told(header(EntryKind::InlineFile), b"acl", &[attribute(b"system.posix_acl_access")]))
        .unwrap();
    let totals = receiver.finish().unwrap();
    let failures = &totals.failures;
    assert!(failures.len() == 1 && failures[0].text.starts_with("destination: 2 entries"), "{failures:?}");
    for name in [c"security.capability", c"trusted.x"] {
        assert_eq!(value(&to.join("evil"), name), None);
    }
    assert_eq!(fs::read(to.join("nul")).unwrap(), b"content");
}

#[test]
fn special_files_are_made_where_they_are_asked_for() {
    let (_space, from, to) = pair();
    mkfifo(&from.join("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap());
    let device = makedev(1, 3);
    let has_device = mknod(&from.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, device).is_ok();
    let report = treated(TreeOptions::NONE, b"", from.join(""), &to);
    assert_eq!(report.failures.len(), 2 + usize::from(has_device));
    let tree = TreeOptions::SPECIALS.with(TreeOptions::DEVICES, true);
    for _ in 0..2 {
        let report = treated(tree.with(TreeOptions::DELETE, true), b"", from.join(""), &to);
        assert!(report.failures.is_empty() && report.totals.failures.is_empty(), "{:?}", report.failures);
    }
    let kind = |name| fs::symlink_metadata(to.join(name)).unwrap();
    assert!(kind("pipe").file_type().is_fifo() && kind("socket").file_type().is_socket());
    assert_eq!((kind("pipe").mode(), kind("pipe").mtime()), {
        let pipe = fs::symlink_metadata(from.join("pipe")).unwrap();
        (pipe.mode(), pipe.mtime())
    });
    if has_device {
        assert!(kind("null").file_type().is_char_device() && kind("null").rdev() == device);
    }
    let rehearsal = treated(tree.with(TreeOptions::DRY_RUN, true), b"", from.join(""), &to).totals.changes;
    assert_eq!((rehearsal.created, rehearsal.replaced), (0, 0));
}

/// Whatever a job asks for: without privilege a peer makes no device, no other owner and no set-user-ID program.
#[test]
fn a_peer_without_privilege_gets_none() {
    let (_space, _, to) = pair();
    fs::create_dir(&to).unwrap();
    let all = [TreeOptions::OWNER, TreeOptions::GROUP, TreeOptions::DEVICES, TreeOptions::SPECIALS];
    let all = all.into_iter().fold(TreeOptions::NONE, |all, option| all.with(option, true));
    let options = Options::of(all);
    assert!(options.needs_privilege() && !options.unprivileged().needs_privilege());
    let root = Root::Export { directory: File::open(&to).unwrap().into(), destination: Vec::new() };
    let mut receiver = Receiver::open(root, TAG, options.unprivileged()).unwrap();
    let program = EntryHeader { mode: 0o6755, uid: 1234, gid: 1234, ..header(EntryKind::InlineFile) };
    receiver.unpack(&pack(&[(program, b"program", b"#!")])).unwrap();
    let node = |kind| [Extra::Node(Node { kind, major: 1, minor: 3 })];
    let special = header(EntryKind::Special);
    for kind in [NodeKind::Block, NodeKind::Character] {
        let failures = receiver.unpack(&told(special, b"device", &node(kind))).unwrap().failures;
        assert!(failures[0].text.contains("privileged"), "{failures:?}");
    }
    assert_eq!(receiver.unpack(&told(special, b"nothing", &[])).unwrap().failures.len(), 1);
    receiver.unpack(&told(special, b"pipe", &node(NodeKind::Fifo))).unwrap();
    receiver.finish().unwrap();
    assert_eq!(names_of(&to), ["pipe", "program"]);
    let made = fs::metadata(to.join("program")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, nix::unistd::geteuid().as_raw()));
}

fn names_of(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn owners_go_by_name_or_by_number() {
    if !is_root() {
        println!("skipped: owners need root");
        return;
    }
    let (_space, from, to) = pair();
    fs::write(from.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("file", from.join("link")).unwrap();
    chown(&from.join("file"), Some(1234.into()), Some(4321.into())).unwrap();
    fs::set_permissions(from.join("file"), Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::lchown(from.join("link"), Some(7), Some(8)).unwrap();
    let both = TreeOptions::OWNER.with(TreeOptions::GROUP, true);
    treated(both.with(TreeOptions::NUMERIC_IDS, true), b"", from.join(""), &to);
    let owners = |name| {
        let found = fs::symlink_metadata(to.join(name)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!((owners("file"), owners("link")), ((1234, 4321), (7, 8)));
    assert_eq!(fs::metadata(to.join("file")).unwrap().mode() & 0o7777, 0o4755);
    treated(TreeOptions::GROUP, b"", from.join(""), to.join("group"));
    let found = fs::metadata(to.join("group/file")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 4321, 0o755));

    // What has size and time already gets a new owner all the same.
    chown(&from.join("file"), Some(77.into()), None).unwrap();
    let skipping = both.with(TreeOptions::SKIP_UNCHANGED, true).with(TreeOptions::NUMERIC_IDS, true);
    let before = inode(to.join("file"));
    treated(skipping, b"", from.join(""), &to);
    assert_eq!((owners("file"), inode(to.join("file"))), ((77, 4321), before));

    // A name that is known here counts more than the number, and one that is not leaves it.
    let known = nix::unistd::User::from_name("daemon").unwrap().expect("there is a user called daemon");
    let mut receiver = receiver_with(&to, Options::of(both)).unwrap();
    let foreign = EntryHeader { uid: 54_321, gid: 54_321, ..header(EntryKind::InlineFile) };
    let user = |name: &'static [u8]| [Extra::User(OwnerName { name })];
    receiver.unpack(&told(foreign, b"known", &user(b"daemon"))).unwrap();
    receiver.unpack(&told(foreign, b"unknown", &user(b"nobody-of-that-name"))).unwrap();
    receiver.finish().unwrap();
    assert_eq!((owners("known"), owners("unknown")), ((known.uid.as_raw(), 54_321), (54_321, 54_321)));
}

/// Nothing but what is named in the source is told.
#[test]
fn a_tree_without_options_has_no_records() {
    let (_space, from, _) = pair();
    fs::write(from.join("file"), "x").unwrap();
    let (packs, finals) = crate::support::scan(source(&from), dwcp_dataplane::tree::Limits::default());
    let plain = |pack: &Vec<u8>| crate::support::entries(pack).iter().all(|entry| entry.extra.is_empty());
    assert!(packs.iter().all(|(pack, _)| plain(pack)) && finals.iter().all(plain));
}
