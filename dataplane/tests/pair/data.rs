//! Files to send, and what must have become of them.
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that no codec and no luck can confuse.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A directory with files of these sizes, named after them.
pub(crate) fn tree(directory: &Path, sizes: &[usize]) {
    fs::create_dir_all(directory).unwrap();
    for (index, &size) in sizes.iter().enumerate() {
        fs::write(directory.join(format!("{index}-{size}")), bytes(size, index as u64)).unwrap();
    }
}

/// All files below a directory, relative to it.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The same files with the same content, and nothing else: no leftovers either.
#[track_caller]
pub(crate) fn assert_same(source: &Path, arrived: &Path) {
    assert_eq!(files(source), files(arrived));
    assert_no_lie(source, arrived);
}

/// Whatever has its final name is complete.
#[track_caller]
pub(crate) fn assert_no_lie(source: &Path, arrived: &Path) {
    for name in files(arrived).iter().filter(|name| !is_temporary(name)) {
        assert!(fs::read(source.join(name)).unwrap() == fs::read(arrived.join(name)).unwrap(), "{name:?}");
    }
}

/// Whether it is a file under a temporary name.
pub(crate) fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".dwcp."))
}
