//! The file systems that a receiver writes to: which of them keep anything over a power cut, and their flushing.
use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{sync, syncfs};
use std::os::fd::{AsFd, OwnedFd};

/// Index into [`Volumes`]; the root's is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VolumeIndex(u8);

impl VolumeIndex {
    /// Whether this is the destination's own file system.
    pub(super) fn is_root(self) -> bool {
        self.0 == 0
    }
}

#[derive(Debug)]
struct Volume {
    device: u64,
    keeps: bool,
    /// Written to since it was flushed.
    dirty: bool,
    /// Whether a file without a name can be made here and be named later.
    nameless: bool,
    directory: OwnedFd,
}

/// Every file system that a directory of this job was opened on, at most [`VOLUMES_MAX`]; further ones share an
/// index behind the last and are flushed together with everything on the machine.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    known: Vec<Volume>,
    others_dirty: bool,
}

impl Volumes {
    /// The index of the file system with this device number, of which `directory` is a part.
    pub(super) fn index(&mut self, device: u64, directory: impl AsFd) -> Result<VolumeIndex, Errno> {
        if let Some(at) = self.known.iter().position(|volume| volume.device == device) {
            return Ok(VolumeIndex(at as u8));
        }
        if self.known.len() < VOLUMES_MAX {
            let keeps = fstatfs(&directory)?.filesystem_type() != TMPFS_MAGIC;
            let directory = directory.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
            self.known.push(Volume { device, keeps, dirty: false, nameless: !keeps, directory });
            return Ok(VolumeIndex(self.known.len() as u8 - 1));
        }
        Ok(VolumeIndex(VOLUMES_MAX as u8))
    }

    /// Whether files on it survive a power cut at all: tmpfs needs no flushing.
    pub(super) fn keeps(&self, index: VolumeIndex) -> bool {
        self.known.get(usize::from(index.0)).is_none_or(|volume| volume.keeps)
    }

    /// Whether it pays to make files without a name and to name them when they are complete: a tenth cheaper than
    /// a rename on tmpfs, but no help where files are flushed in batches, which would have to stay open.
    pub(super) fn takes_nameless(&self, index: VolumeIndex) -> bool {
        self.known.get(usize::from(index.0)).is_some_and(|volume| volume.nameless)
    }

    /// Files without a name do not work there: an old kernel, or a missing right.
    pub(super) fn refuse_nameless(&mut self, index: VolumeIndex) {
        if let Some(volume) = self.known.get_mut(usize::from(index.0)) {
            volume.nameless = false;
        }
    }

    /// Something was written there that [`Volumes::flush`] must make durable.
    pub(super) fn mark(&mut self, index: VolumeIndex) {
        match self.known.get_mut(usize::from(index.0)) {
            Some(volume) => volume.dirty |= volume.keeps,
            None => self.others_dirty = true,
        }
    }

    /// Makes everything durable that was written to marked file systems.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        for volume in self.known.iter_mut().filter(|volume| volume.dirty) {
            syncfs(&volume.directory)?;
            volume.dirty = false;
        }
        if std::mem::take(&mut self.others_dirty) {
            sync();
        }
        Ok(())
    }
}

const VOLUMES_MAX: usize = 16;
