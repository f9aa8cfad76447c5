//! What the tests share: a transfer in one thread, entries made by hand, and the state of a tree to compare.
use dwcp_abi::wire::{Entry, EntryHeader, EntryKind, Pack, PackWriter, TreeOptions, open_pack};
use dwcp_dataplane::tree::{
    Base, Failure, Filled, Filters, Limits, Opening, Options, Partly, Receiver, Root, Scanner, Source,
    Totals, TreeError, holes, verify_unchanged,
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

pub(crate) const TAG: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 42];

/// One source as the operator names it.
pub(crate) fn source(path: impl AsRef<Path>) -> Vec<Source> {
    vec![Source { base: Base::Local, path: path.as_ref().as_os_str().as_bytes().to_vec() }]
}

/// A receiver at a local path.
pub(crate) fn receiver(destination: impl AsRef<Path>) -> Receiver {
    receiver_with(destination, Options::default()).unwrap()
}

pub(crate) fn receiver_with(destination: impl AsRef<Path>, options: Options) -> Result<Receiver, TreeError> {
    let destination = destination.as_ref().as_os_str().as_bytes().to_vec();
    Receiver::open(Root::Local { destination }, TAG, options)
}

/// A receiver below an export.
pub(crate) fn exported(export: &Path, destination: &[u8]) -> Result<Receiver, TreeError> {
    let directory = OwnedFd::from(File::open(export).unwrap());
    let root = Root::Export { directory, destination: destination.to_vec() };
    Receiver::open(root, TAG, Options::default())
}

/// A pack's bytes, and what the scanner said of it.
pub(crate) type Packed = (Vec<u8>, Filled);

/// All packs of a scan, and those with final metadata.
pub(crate) fn scan(sources: Vec<Source>, limits: Limits) -> (Vec<Packed>, Vec<Vec<u8>>) {
    drain(Scanner::new(sources, Filters::default(), limits))
}

/// All packs of a scanner.
pub(crate) fn drain(mut scanner: Scanner) -> (Vec<Packed>, Vec<Vec<u8>>) {
    let mut space = vec![0xee; 512 << 10];
    let mut packs = Vec::new();
    loop {
        let filled = scanner.fill(&mut space);
        let end = filled.end;
        packs.push((space[..filled.length].to_vec(), filled));
        if end {
            break;
        }
    }
    let mut finals = Vec::new();
    loop {
        let filled = scanner.fill_finals(&mut space);
        finals.push(space[..filled.length].to_vec());
        if filled.end {
            return (packs, finals);
        }
    }
}

/// What a transfer reported.
pub(crate) struct Report {
    pub(crate) failures: Vec<Failure>,
    pub(crate) totals: Totals,
}

/// Sends sources to a receiver, each pack and object once.
pub(crate) fn transfer(sources: Vec<Source>, limits: Limits, receiver: Receiver) -> Report {
    deliver(Scanner::new(sources, Filters::default(), limits), receiver)
}

/// Sends a source to a local path as a job with these options and rules would.
pub(crate) fn treated(
    tree: TreeOptions,
    rules: &[u8],
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
) -> Report {
    let filters = || Filters::parse(rules).unwrap();
    let scanner = Scanner::new(source(from), filters(), Limits::default()).treating(tree);
    deliver(scanner, receiver_with(to, Options::of(tree)).unwrap().sparing(filters()))
}

/// Gives all that a scanner finds to a receiver.
pub(crate) fn deliver(scanner: Scanner, mut receiver: Receiver) -> Report {
    let (packs, finals) = drain(scanner);
    let mut failures = Vec::new();
    for (pack, filled) in &packs {
        let unpacked = receiver.unpack(pack).unwrap();
        failures.extend(unpacked.failures);
        for opened in unpacked.opened {
            let found = filled.objects.iter().find(|found| found.object == opened.object).unwrap();
            if let Opening::Write(partly) = opened.opening {
                copy(&found.file, &handle(&partly), found.size);
                assert!(verify_unchanged(&found.file, &found.fingerprint));
                receiver.commit(opened.object).unwrap();
            }
        }
    }
    for pack in &finals {
        failures.extend(receiver.unpack(pack).unwrap().failures);
    }
    let totals = receiver.finish().unwrap();
    Report { failures, totals }
}

/// A handle of a partial file.
pub(crate) fn handle(partly: &Partly) -> File {
    File::from(partly.file.try_clone().unwrap())
}

fn copy(from: &OwnedFd, to: &File, size: u64) {
    let source = File::from(from.try_clone().unwrap());
    for extent in holes(from, size, 64 << 10) {
        let mut bytes = vec![0; extent.length as usize];
        source.read_exact_at(&mut bytes, extent.offset).unwrap();
        to.write_all_at(&bytes, extent.offset).unwrap();
    }
}

/// Everything about a tree that must survive: kind, mode, time, and content or target. Keys are relative paths.
pub(crate) fn state(root: &Path) -> BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    collect(root, b"", &mut found);
    found
}

fn collect(directory: &Path, prefix: &[u8], found: &mut BTreeMap<Vec<u8>, (u32, i64, i64, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = [prefix, entry.file_name().as_bytes()].concat();
        let metadata = entry.metadata().unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec()
        } else if metadata.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            blake3::hash(&bytes).as_bytes().to_vec()
        } else {
            collect(&entry.path(), &[&name[..], b"/"].concat(), found);
            Vec::new()
        };
        found.insert(name, (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content));
    }
}

/// Names below a directory, sorted.
pub(crate) fn names(root: &Path) -> Vec<String> {
    state(root).into_keys().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

/// The header of an entry made by hand.
pub(crate) fn header(kind: EntryKind) -> EntryHeader {
    EntryHeader {
        kind,
        flags: 0,
        name_length: 0,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime_ns: 5,
        mtime_s: 1_000_000_000,
        size: 0,
        object: 0,
    }
}

/// A pack of entries that the writer accepts.
pub(crate) fn pack(entries: &[(EntryHeader, &[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 512 << 10];
    let mut writer = PackWriter::new(&mut bytes);
    for (header, name, content) in entries {
        writer.append(*header, name, content).unwrap();
    }
    let length = writer.seal(|entries| *blake3::hash(entries).as_bytes());
    bytes.truncate(length);
    bytes
}

/// A small file.
pub(crate) fn inline<'a>(name: &'a [u8], content: &'a [u8]) -> (EntryHeader, &'a [u8], &'a [u8]) {
    (header(EntryKind::InlineFile), name, content)
}

/// An object of this number.
pub(crate) fn object(number: u64, name: &[u8], size: u64) -> (EntryHeader, &[u8], &[u8]) {
    (EntryHeader { object: number, size, ..header(EntryKind::Object) }, name, b"")
}

/// A symbolic link.
pub(crate) fn link<'a>(name: &'a [u8], target: &'a [u8]) -> (EntryHeader, &'a [u8], &'a [u8]) {
    (header(EntryKind::Symlink), name, target)
}

/// Gives bytes that were tampered with the digest that a hostile peer would give them.
pub(crate) fn seal(pack: &mut [u8]) {
    if let Some((digest, entries)) = pack.split_first_chunk_mut() {
        *digest = *blake3::hash(entries).as_bytes();
    }
}

/// The entries of a pack.
pub(crate) fn entries(pack: &[u8]) -> Vec<Entry<'_>> {
    Pack::new(open_pack(pack).unwrap().1).collect::<Result<_, _>>().unwrap()
}

/// Numbers that a seed fixes.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next one; Knuth's multiplier for 64-bit linear congruential generators (MMIX).
    pub(crate) fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
