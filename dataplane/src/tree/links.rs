//! Hard links. The sender remembers files that have other names, and sends the second name as a link to the first; the
//! receiver makes the links at the end, when whatever they lead to is in place.
use super::directories::{Directories, Directory, Making};
use super::failure::{Failures, Problem};
use super::name::{NameSpace, TemporaryNames, split};
use super::staged::remove;
use dwcp_abi::codec::{Reader, Writer};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use nix::unistd::linkat;
use std::collections::HashMap;
use std::sync::Arc;

/// Files of a source that have further names: their device and inode, and the first name.
#[derive(Debug)]
pub(super) struct SeenFiles {
    known: HashMap<(u64, u64), Seen>,
    bytes: usize,
    bytes_max: usize,
}

/// The first name of a file, and how many of its names have not come.
#[derive(Debug)]
struct Seen {
    name: Box<[u8]>,
    left: u64,
}

impl SeenFiles {
    /// Remembers at most so many bytes. What finds no room is sent as a file of its own.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, bytes_max }
    }

    /// Whether this file was sent before.
    pub(super) fn knows(&self, stat: &FileStat) -> bool {
        self.known.contains_key(&(stat.st_dev, stat.st_ino))
    }

    /// The first name of this file, if it was sent before. Forgets a file when its last name has come.
    pub(super) fn first_name(&mut self, stat: &FileStat) -> Option<Box<[u8]>> {
        let key = (stat.st_dev, stat.st_ino);
        let seen = self.known.get_mut(&key)?;
        seen.left = seen.left.saturating_sub(1);
        if seen.left > 0 {
            return Some(seen.name.clone());
        }
        let Seen { name, .. } = self.known.remove(&key)?;
        self.bytes -= name.len() + SEEN_BYTES;
        Some(name)
    }

    /// Remembers a file that was just sent.
    pub(super) fn insert(&mut self, stat: &FileStat, path: &[u8]) {
        let cost = path.len() + SEEN_BYTES;
        if stat.st_nlink < 2 || self.bytes + cost > self.bytes_max {
            return;
        }
        let seen = Seen { name: path.into(), left: stat.st_nlink - 1 };
        if self.known.insert((stat.st_dev, stat.st_ino), seen).is_none() {
            self.bytes += cost;
        }
    }
}

/// About what an entry of the table takes beside the name.
const SEEN_BYTES: usize = 64;

/// Links that wait for the end of a job: names and targets, one after the other.
#[derive(Debug)]
pub(super) struct Links {
    bytes: Vec<u8>,
    bytes_max: usize,
}

/// What links are made with.
pub(super) struct Linking<'a> {
    pub(super) root: &'a Arc<Directory>,
    pub(super) directories: &'a mut Directories,
    pub(super) names: &'a mut TemporaryNames,
}

impl Links {
    /// Holds at most so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    /// Remembers that `name` is to be another name of `target`; false where there is no room. Both are paths below the
    /// destination that were checked.
    pub(super) fn push(&mut self, name: &[u8], target: &[u8]) -> bool {
        let start = self.bytes.len();
        let length = 4 + name.len() + target.len();
        if start + length > self.bytes_max {
            return false;
        }
        self.bytes.resize(start + length, 0);
        let mut writer = Writer::new(&mut self.bytes[start..]);
        let written = writer
            .short_bytes("name", name, u16::MAX.into())
            .and_then(|()| writer.short_bytes("name", target, u16::MAX.into()));
        if written.is_err() {
            self.bytes.truncate(start);
        }
        written.is_ok()
    }

    /// Makes all of them.
    pub(super) fn make(&self, linking: &mut Linking<'_>, failures: &mut Failures) {
        let mut reader = Reader::new(&self.bytes);
        let mut next = || {
            let name = reader.short_bytes("name", u16::MAX.into()).ok()?;
            Some((name, reader.short_bytes("name", u16::MAX.into()).ok()?))
        };
        while let Some((name, target)) = next() {
            if let Err(problem) = linking.make(name, target) {
                failures.push(problem.of(name, None));
            }
        }
    }
}

impl Linking<'_> {
    fn make(&mut self, name: &[u8], target: &[u8]) -> Result<(), Problem> {
        let failed = |errno| Problem::system(errno, "make it a hard link of what it is at the sender", name);
        let ((to, to_leaf), (at, leaf)) = (split(target), split(name));
        let to = self.directories.open(self.root, to, Making::Refuse)?;
        let at = self.directories.open(self.root, at, Making::Refuse)?;
        let found = look(&to, to_leaf).map_err(failed)?;
        if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(failed(Errno::EINVAL));
        }
        if look(&at, leaf).is_ok_and(|there| is_same(&there, &found)) {
            return Ok(());
        }
        let mut space = NameSpace::new();
        let number = self.names.take_number();
        let temporary = self.names.inline(number, &mut space);
        let link = || linkat(&*to, to_leaf, &*at, temporary, AtFlags::empty());
        match link() {
            Err(Errno::EEXIST) => {
                remove(&at, temporary);
                link()
            }
            other => other,
        }
        .map_err(failed)?;
        renameat(&*at, temporary, &*at, leaf).inspect_err(|_| remove(&at, temporary)).map_err(failed)?;
        self.directories.volumes.mark(at.volume);
        Ok(())
    }
}

/// Whether two names are those of one file.
pub(super) fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn look(directory: &Directory, leaf: &[u8]) -> Result<FileStat, Errno> {
    fstatat(directory, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(inode: u64, links: u64) -> FileStat {
        let mut stat = nix::sys::stat::stat(".").unwrap();
        (stat.st_ino, stat.st_nlink) = (inode, links);
        stat
    }

    #[test]
    fn a_file_is_remembered_until_its_last_name_has_come_and_within_the_bound() {
        let mut seen = SeenFiles::new(3 * (SEEN_BYTES + 1));
        for inode in 1..=5 {
            seen.insert(&stat(inode, 3), b"a");
        }
        seen.insert(&stat(6, 1), b"b");
        assert_eq!(seen.known.len(), 3);
        assert_eq!(seen.first_name(&stat(1, 3)).as_deref(), Some(&b"a"[..]));
        assert_eq!(seen.first_name(&stat(1, 3)).as_deref(), Some(&b"a"[..]));
        assert_eq!(seen.first_name(&stat(1, 3)), None);
        assert_eq!(seen.first_name(&stat(4, 3)), None);
        assert_eq!(seen.bytes, 2 * (SEEN_BYTES + 1));
    }

    #[test]
    fn links_wait_within_a_bound() {
        let mut links = Links::new(20);
        assert!(links.push(b"name", b"target"));
        assert!(!links.push(b"another", b"one"));
    }
}
