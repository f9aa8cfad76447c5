//! Pins: what keeps a policy in force while no dataplane runs. One folder for each node and layout on a bpf file system:
//!
//! ```text
//! /sys/fs/bpf/dwcp/NODE/v1/maps/DWCP_POLICY …   maps, by name
//!                         /links/egress-7 …      attachments: program and interface index, or `socket`
//! ```
//!
//! A policy that asks for nothing lasting has no pins. A new dataplane takes over the maps as they are and replaces the
//! programs behind the links; those of another layout go once the new ones work.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use dwcp_abi::bpf::LAYOUT_VERSION;
use nix::sys::statfs::{FsType, statfs};

/// The folder of one node.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    node: PathBuf,
}

impl Pins {
    /// Pins below `root`, which has to be on a bpf file system.
    ///
    /// # Errors
    /// Why there can be none, in one line.
    pub(super) fn new(root: &Path, node: &str) -> Result<Self, String> {
        let existing = root.ancestors().find(|ancestor| ancestor.exists());
        let kind = existing.and_then(|existing| statfs(existing).ok()).map(|found| found.filesystem_type());
        if kind != Some(BPF_FS_MAGIC) {
            let text =
                "is no bpf file system: pacing ends with the dataplane; `mount -t bpf bpf /sys/fs/bpf`";
            return Err(format!("{} {text}", root.display()));
        }
        Ok(Self { node: root.join(node) })
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.node.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.folder().join("maps").join(name)
    }

    /// Where a link is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.folder().join("links").join(name)
    }

    /// Whether an earlier life left any of this layout.
    pub(super) fn exist(&self) -> bool {
        self.folder().join("maps").is_dir()
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// No rights.
    pub(super) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder().join("maps"))?;
        fs::create_dir_all(self.folder().join("links"))
    }

    /// Names of the links that are pinned.
    pub(super) fn links(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder().join("links")) else { return Vec::new() };
        entries.take(LINKS_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes one link's pin; without a process that holds it, its program is detached.
    pub(super) fn forget_link(&self, name: &str) {
        drop_file(&self.link(name));
    }

    /// Removes what other layouts left.
    pub(super) fn sweep_other_layouts(&self) {
        let Ok(entries) = fs::read_dir(&self.node) else { return };
        for entry in entries.flatten().filter(|entry| entry.path() != self.folder()) {
            tracing::info!(folder = %entry.path().display(), "pins of another version are removed");
            remove_tree(&entry.path());
        }
    }

    /// Removes everything of this node.
    pub(super) fn remove(&self) {
        remove_tree(&self.node);
    }
}

/// An attachment that this process holds.
#[derive(Debug)]
pub(super) enum Held {
    /// Ends with this process.
    Open(FdLink),
    /// Stays until its pin is removed.
    Pinned(PinnedLink),
}

impl Held {
    /// Pins it, over what has that name; it stays as it is where that does not work.
    pub(super) fn pinned(self, path: &Path) -> Option<Self> {
        let Self::Open(link) = self else { return Some(self) };
        drop_file(path);
        match link.pin(path) {
            Ok(link) => Some(Self::Pinned(link)),
            Err(error) => {
                tracing::warn!(pin = %path.display(), %error, "attachment cannot be pinned");
                None
            }
        }
    }

    /// Takes its pin away; it goes on while this process holds it.
    pub(super) fn unpinned(self) -> Option<Self> {
        match self {
            Self::Open(_) => Some(self),
            Self::Pinned(link) => match link.unpin() {
                Ok(link) => Some(Self::Open(link)),
                Err(error) => {
                    tracing::debug!(%error, "pin was already gone");
                    None
                }
            },
        }
    }
}

/// bpffs removes no tree by itself, and holds only files and folders.
fn remove_tree(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %path.display(), %error, "pins cannot be removed");
    }
}

fn drop_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(pin = %path.display(), %error, "pin cannot be removed");
    }
}

/// include/uapi/linux/magic.h.
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
const LINKS_MAX: usize = 4096;
