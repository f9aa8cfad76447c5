//! What the demo sends: real files of this machine, the same ones on every run. Chooses them and joins the large file;
//! sends nothing.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Directories to send, and what is in them.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Directories; their last names differ.
    pub(super) directories: Vec<PathBuf>,
    /// Content of all their files, in bytes.
    pub(super) bytes: u64,
    /// Files, links and directories.
    pub(super) entries: u64,
}

/// Directories of `/usr/share` and `/usr/lib`, by name, as long as they fit the bounds.
pub(super) fn of_the_machine() -> Choice {
    let mut choice = Choice::default();
    let mut names = BTreeSet::new();
    for (root, bytes_max, entries_max) in ROOTS {
        for directory in directories(Path::new(root)) {
            let Some(name) = directory.file_name().map(std::ffi::OsStr::to_owned) else { continue };
            let room = Size {
                bytes: bytes_max.saturating_sub(choice.bytes),
                entries: entries_max.saturating_sub(choice.entries),
            };
            // Both roots may have a directory of this name: the first is taken.
            if names.contains(&name) {
                continue;
            }
            if let Some(size) = measure(&directory, room) {
                choice.bytes += size.bytes;
                choice.entries += size.entries;
                choice.directories.push(directory);
                names.insert(name);
            }
        }
    }
    choice
}

/// The directory that the command line names.
///
/// # Errors
/// It is none, is empty, or cannot be read.
pub(super) fn named(directory: &Path) -> Result<Choice> {
    let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let unlimited = Size { bytes: u64::MAX, entries: u64::MAX };
    let Some(size) = measure(&directory, unlimited) else {
        bail!("{} cannot be read to its end", directory.display());
    };
    if !directory.is_dir() || directory.file_name().is_none() {
        bail!("{} is no directory with a name", directory.display());
    }
    Ok(Choice { directories: vec![directory], bytes: size.bytes, entries: size.entries })
}

/// Joins files of `/usr/lib` to one; its length in bytes.
///
/// # Errors
/// It cannot be written, or there are no such files.
pub(super) fn write_large_file(path: &Path) -> Result<u64> {
    let mut large = File::create(path).with_context(|| path.display().to_string())?;
    let mut length = 0;
    while length < LARGE_FILE_BYTES {
        let before = length;
        for source in large_files() {
            let file = File::open(&source).with_context(|| source.display().to_string())?;
            length += io::copy(&mut file.take(LARGE_FILE_BYTES - length), &mut large)
                .with_context(|| path.display().to_string())?;
            if length >= LARGE_FILE_BYTES {
                break;
            }
        }
        // Round and round until it is long enough: but there must be something.
        if length == before {
            bail!("/usr/lib has no large files to join");
        }
    }
    Ok(length)
}

/// One of them to fetch back: the first of a handy size, else the first.
pub(super) fn small(directories: &[PathBuf]) -> &Path {
    let room = Size { bytes: SMALL_BYTES_MAX, entries: SMALL_ENTRIES_MAX };
    let is_small =
        |directory: &&PathBuf| measure(directory, room).is_some_and(|size| size.bytes >= SMALL_BYTES_MIN);
    let first = directories.first().map_or(Path::new("/"), PathBuf::as_path);
    directories.iter().find(is_small).map_or(first, PathBuf::as_path)
}

/// Room that the large file takes, at each end.
pub(super) const LARGE_FILE_BYTES: u64 = 512 << 20;

/// Shared libraries and the like of at least a mebibyte, by name.
fn large_files() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/lib")];
    folders.extend(directories(Path::new("/usr/lib")));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let is_large = |entry: &fs::DirEntry| {
        entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() >= LARGE_BYTES_MIN)
    };
    let large = entries.filter_map(Result::ok).filter(is_large).map(|entry| entry.path());
    let mut files: Vec<_> = large.filter(|path| File::open(path).is_ok()).collect();
    files.sort();
    files
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut found: Vec<_> = entries.filter(is_directory).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[derive(Debug, Clone, Copy)]
struct Size {
    bytes: u64,
    entries: u64,
}

/// What is in a directory; `None` where it is more than the room, or not everything can be read or sent.
fn measure(directory: &Path, room: Size) -> Option<Size> {
    let mut size = Size { bytes: 0, entries: 1 };
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).ok()? {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            size.entries += 1;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.is_file() {
                File::open(entry.path()).ok()?;
                size.bytes += metadata.len();
            } else if !metadata.is_symlink() {
                return None;
            }
            if size.bytes > room.bytes || size.entries > room.entries {
                return None;
            }
        }
    }
    Some(size)
}

/// Roots, and how many bytes and entries there may be when each is done.
const ROOTS: [(&str, u64, u64); 2] = [("/usr/share", 160 << 20, 8_000), ("/usr/lib", 400 << 20, 12_000)];
const SMALL_BYTES_MIN: u64 = 1 << 20;
const SMALL_BYTES_MAX: u64 = 32 << 20;
const SMALL_ENTRIES_MAX: u64 = 2_000;
const LARGE_BYTES_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_bounded_and_the_same_every_time() {
        let choice = of_the_machine();
        let (_, bytes_max, entries_max) = ROOTS[1];
        assert!(choice.bytes <= bytes_max && choice.entries <= entries_max, "{choice:?}");
        assert_eq!(choice.directories, of_the_machine().directories);
        let names: BTreeSet<_> = choice.directories.iter().map(|path| path.file_name()).collect();
        assert_eq!(names.len(), choice.directories.len());
        assert!(choice.directories.len() <= 256, "more than a transfer takes");
    }

    #[test]
    fn rooms_are_kept() {
        let room = |bytes, entries| Size { bytes, entries };
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(measure(&directory, room(1, u64::MAX)).is_none());
        assert!(measure(&directory, room(u64::MAX, 3)).is_none());
        assert!(measure(&directory, room(u64::MAX, u64::MAX)).is_some_and(|size| size.entries > 3));
        assert!(named(Path::new("/dev/null")).is_err());
    }
}
