//! Small files and links that are complete under temporary names: made durable together, then put in place.
use super::directories::Directory;
use super::failure::{Failure, Problem};
use super::name::{NameSpace, TemporaryNames};
use super::volumes::Volumes;
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, fdatasync, unlinkat};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Files that wait for one common flush.
#[derive(Debug, Default)]
pub(super) struct Staged {
    files: Vec<StagedFile>,
    /// Path of each file and its last component at the destination, one after the other.
    names: Vec<u8>,
    /// Times that the directory changed from one file to the next.
    directories: usize,
}

#[derive(Debug)]
struct StagedFile {
    directory: Arc<Directory>,
    number: u64,
    path: (u32, u32),
    leaf_end: u32,
    /// Kept for the first few regular files only.
    file: Option<OwnedFd>,
}

impl Staged {
    /// Takes a complete file in. `path` is the entry's, `leaf` its name in `directory`.
    pub(super) fn push(
        &mut self,
        directory: Arc<Directory>,
        number: u64,
        (path, leaf): (&[u8], &[u8]),
        file: Option<OwnedFd>,
    ) {
        if !self.files.last().is_some_and(|last| Arc::ptr_eq(&last.directory, &directory)) {
            self.directories += 1;
        }
        let start = self.names.len() as u32;
        self.names.extend_from_slice(path);
        let end = self.names.len() as u32;
        self.names.extend_from_slice(leaf);
        let leaf_end = self.names.len() as u32;
        let file = file.filter(|_| self.files.len() < FLUSHED_ONE_BY_ONE_MAX);
        self.files.push(StagedFile { directory, number, path: (start, end), leaf_end, file });
    }

    /// Whether it is time to publish: every directory here is a descriptor that stays open.
    pub(super) fn is_full(&self) -> bool {
        self.directories >= DIRECTORIES_MAX || self.files.len() >= FILES_MAX
    }

    /// Makes every file durable, then renames it. An error of the flush concerns them all; nothing was renamed.
    pub(super) fn publish(
        &mut self,
        volumes: &mut Volumes,
        names: &TemporaryNames,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Errno> {
        if self.files.is_empty() {
            return Ok(());
        }
        self.flush(volumes)?;
        let mut space = NameSpace::new();
        for file in &self.files {
            let temporary = names.inline(file.number, &mut space);
            let leaf = &self.names[file.path.1 as usize..file.leaf_end as usize];
            if let Err(errno) = renameat(&*file.directory, temporary, &*file.directory, leaf) {
                let path = &self.names[file.path.0 as usize..file.path.1 as usize];
                remove(&file.directory, temporary);
                failures.push(Problem::system(errno, "put it in place", path).of(path, None));
            }
            volumes.mark(file.directory.volume);
        }
        self.clear();
        Ok(())
    }

    /// Removes every file.
    pub(super) fn discard(&mut self, names: &TemporaryNames) {
        let mut space = NameSpace::new();
        for file in &self.files {
            remove(&file.directory, names.inline(file.number, &mut space));
        }
        self.clear();
    }

    fn flush(&self, volumes: &mut Volumes) -> Result<(), Errno> {
        let few = self.files.len() <= FLUSHED_ONE_BY_ONE_MAX;
        for file in &self.files {
            if !volumes.keeps(file.directory.volume) {
                continue;
            }
            match &file.file {
                Some(file) if few => fdatasync(file)?,
                // Links have no data, and more files are cheaper to flush at once.
                _ => volumes.mark(file.directory.volume),
            }
        }
        if few { Ok(()) } else { volumes.flush() }
    }

    fn clear(&mut self) {
        self.files.clear();
        self.names.clear();
        self.directories = 0;
    }
}

/// Removes a temporary file. That it is gone already, or cannot be removed, changes nothing for anyone.
pub(super) fn remove(directory: &Directory, temporary: &[u8]) {
    if let Err(errno) = unlinkat(directory, temporary, UnlinkatFlags::NoRemoveDir) {
        tracing::debug!(%errno, "temporary file stays");
    }
}

/// Measured on ext4: one syncfs for 5000 files of 400 bytes takes a fifteenth of the time of as many fdatasyncs, for
/// 4 of 120 KB a third. It also waits for what others wrote, so a file or two go alone.
const FLUSHED_ONE_BY_ONE_MAX: usize = 2;
const DIRECTORIES_MAX: usize = 128;
const FILES_MAX: usize = 8192;
