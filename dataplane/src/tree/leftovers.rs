//! What former attempts and former jobs have left in the directories that objects go to. Each directory is looked
//! through once per attempt: what is of this job and was not taken up goes when the job ends, what is of a job that
//! nobody came back to goes by its age.
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};

use super::directories::Directory;
use super::name::{TemporaryNames, is_temporary};
use super::staged::remove;

/// How long a partial file waits for the next attempt of its job, from the last change of it.
pub(super) const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Names of one directory that are looked at.
const NAMES_MAX: usize = 4096;
/// Directories that are remembered to have been looked through, and leftovers that are kept in mind. Others are looked
/// through again, or stay until they are old.
const SEEN_MAX: usize = 4096;
const OWN_MAX: usize = 256;

/// The leftovers that one receiver has met.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    seen: HashSet<(u64, u64)>,
    last: Option<Arc<Directory>>,
    own: Vec<(Arc<Directory>, Vec<u8>)>,
}

impl Leftovers {
    /// An object is about to be made in a directory.
    pub(super) fn visit(&mut self, directory: &Arc<Directory>, names: &TemporaryNames) {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, directory)) {
            return;
        }
        self.last = Some(Arc::clone(directory));
        let Ok(stat) = fstat(directory) else { return };
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        if self.seen.insert((stat.st_dev, stat.st_ino)) {
            self.look_through(directory, names);
        }
    }

    fn look_through(&mut self, directory: &Arc<Directory>, names: &TemporaryNames) {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // One that may be written to but not be listed keeps what is in it.
        let Ok(mut listing) = Dir::openat(directory.as_fd(), c".", flags, Mode::empty()) else { return };
        let found: Vec<Vec<u8>> = (listing.iter().take(NAMES_MAX))
            .filter_map(|entry| Some(entry.ok()?.file_name().to_bytes().to_vec()))
            .filter(|name| is_temporary(name))
            .collect();
        for name in found {
            if names.is_object(&name) && self.own.len() < OWN_MAX {
                self.own.push((Arc::clone(directory), name));
            } else if is_old(directory, &name, SystemTime::now()) {
                tracing::info!(name = %String::from_utf8_lossy(&name), "removes what nobody came back for");
                remove(directory, &name);
            }
        }
    }

    /// The job is over, and whatever of it was taken up has been named or removed.
    pub(super) fn remove_own(&mut self) {
        for (directory, name) in self.own.drain(..) {
            remove(&directory, &name);
        }
    }
}

/// Whether nobody has touched a file for so long. The time of its last change of any kind counts: the time of its content is
/// the source's already when it is about to be named.
fn is_old(directory: &impl AsFd, name: &[u8], now: SystemTime) -> bool {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        let is_file = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(0));
        is_file && now.duration_since(changed).is_ok_and(|age| age > AGE_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_is_as_old_as_its_last_change_whatever_time_its_content_has() {
        let space = tempfile::tempdir().unwrap();
        File::create(space.path().join("part")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let directory = File::open(space.path()).unwrap();
        let is_old = |days: u64| {
            is_old(&directory, b"part", SystemTime::now() + Duration::from_secs(days * 24 * 3600))
        };
        assert!(!is_old(0) && !is_old(6) && is_old(8));
        assert!(!super::is_old(&directory, b"none", SystemTime::now() + AGE_MAX * 2));
    }
}
