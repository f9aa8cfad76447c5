//! When this node first heard of a job that it receives: an empty file per job in the state directory, whose time says
//! it. A later attempt keeps files that are equal in size and time and were put in place after that, because this job
//! has put them there; one that was there before may be equal by chance, and is replaced.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The records of a node. Without a directory it remembers nothing.
#[derive(Debug, Default)]
pub struct FirstSeen {
    directory: Option<PathBuf>,
}

/// Jobs whose end never came are forgotten after so long, as their partial files are.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

impl FirstSeen {
    /// Keeps records below the state directory, and forgets old ones.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("receiving");
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)?.filter_map(Result::ok) {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
            if age.is_some_and(|age| age > AGE_MAX) {
                drop_file(&entry.path());
            }
        }
        Ok(Self { directory: Some(directory) })
    }

    /// Notes that an attempt starts. For a later one: the time of the first, in seconds and nanoseconds since 1970.
    pub(super) fn attempt(&self, tag: [u8; 8], attempt: u32) -> Option<(i64, i64)> {
        let path = self.path(tag)?;
        if attempt <= 1 {
            drop_file(&path);
        } else if let Ok(known) = fs::symlink_metadata(&path) {
            return Some((known.mtime(), known.mtime_nsec()));
        }
        if let Err(error) = File::create(&path) {
            tracing::debug!(%error, "a later attempt of the job will send everything again");
        }
        None
    }

    /// The job is over.
    pub(super) fn forget(&self, tag: [u8; 8]) {
        if let Some(path) = self.path(tag) {
            drop_file(&path);
        }
    }

    fn path(&self, tag: [u8; 8]) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{:016x}", u64::from_be_bytes(tag))))
    }
}

fn drop_file(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, "a record of a job stays"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_attempt_hears_of_the_first_until_the_job_is_over() {
        let space = tempfile::tempdir().unwrap();
        let (tag, other) = ([1; 8], [2; 8]);
        let seen = FirstSeen::open(space.path()).unwrap();
        assert_eq!(seen.attempt(tag, 1), None);
        let first = seen.attempt(tag, 2);
        assert!(first.is_some());
        assert_eq!(seen.attempt(other, 2), None, "its first attempt never came here");
        let seen = FirstSeen::open(space.path()).unwrap();
        assert_eq!(seen.attempt(tag, 3), first, "it outlives the process");
        assert_eq!(seen.attempt(tag, 1), None, "another job of the same number begins anew");
        seen.forget(tag);
        assert_eq!(seen.attempt(tag, 2), None);
        let old = SystemTime::now() - AGE_MAX - Duration::from_secs(60);
        let path = space.path().join("receiving").join("0101010101010101");
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(FirstSeen::open(space.path()).unwrap().attempt(tag, 2), None, "it was too long ago");
        assert_eq!(FirstSeen::default().attempt(tag, 2), None);
    }
}
