//! Where a job's entries land: inside the destination, or under its very name.
use super::beneath::{self, Links};
use super::directories::{Directories, Directory};
use super::failure::{Failure, Problem, TreeError};
use super::name::is_temporary;
use dwcp_abi::wire::Code;
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a destination is relative to.
#[derive(Debug)]
pub enum Root {
    /// An export; nothing outside of its directory is ever touched, and links are refused.
    Export {
        /// The export's directory.
        directory: OwnedFd,
        /// Path below it, as the peer wrote it.
        destination: Vec<u8>,
    },
    /// A path of the local operator, whose links are followed.
    Local {
        /// Absolute path.
        destination: Vec<u8>,
    },
}

/// A destination as far as it is decided. One that is a directory, or is written like one, takes every entry
/// inside; any other does so from the first entry that is not the only one of its job.
#[derive(Debug)]
pub(super) struct Place {
    from: OwnedFd,
    links: Links,
    destination: Vec<u8>,
    is_directory: bool,
    inside: Option<Arc<Directory>>,
    /// The directory that holds the destination.
    parent: Option<Arc<Directory>>,
}

/// What one entry's path starts from.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) root: Arc<Directory>,
    pub(super) path: &'a [u8],
}

impl Place {
    /// Looks at the destination; makes nothing yet.
    pub(super) fn find(root: Root, directories: &mut Directories) -> Result<Self, TreeError> {
        let (from, links, destination) = match root {
            Root::Export { directory, destination } => (Ok(directory), Links::Refuse, destination),
            Root::Local { destination } => (beneath::slash(), Links::Follow, destination),
        };
        let refuse = |errno| unusable(Problem::system(errno, "use it as destination", &destination));
        let from = from.map_err(refuse)?;
        let Some(components) = beneath::components(&destination, links) else {
            let text = "a destination below an export may not contain `..`";
            return Err(unusable(Problem::new(Code::Forbidden, &destination, text)));
        };
        if components.iter().any(|component| is_temporary(component)) {
            let text = "this name is reserved for files that are not complete yet";
            return Err(unusable(Problem::new(Code::Forbidden, &destination, text)));
        }
        let mut is_directory = components.is_empty() || beneath::names_directory(&destination);
        let mut inside = None;
        match open_existing(&from, &components, links) {
            Ok(descriptor) => {
                is_directory = true;
                inside = Some(directories.adopt(descriptor).map_err(refuse)?);
            }
            Err(Errno::ENOENT) => {}
            // A file or link of that name can be replaced by another, if only the last component is one.
            Err(Errno::ENOTDIR | Errno::ELOOP) if !is_directory => {
                let parents = components.split_last().map_or(&[][..], |(_, parents)| parents);
                beneath::walk(&from, parents, links).map_err(refuse)?;
            }
            Err(errno) => return Err(refuse(errno)),
        }
        Ok(Self { from, links, destination, is_directory, inside, parent: None })
    }

    /// Where an entry of this name goes; makes the destination if need be.
    pub(super) fn target<'a>(
        &'a mut self,
        directories: &mut Directories,
        name: &'a [u8],
        sole: Sole,
    ) -> Result<Target<'a>, TreeError> {
        if sole == Sole::No || self.is_directory || self.inside.is_some() {
            let root = Arc::clone(self.inside(directories)?);
            return Ok(Target { root, path: name });
        }
        let root = match &self.parent {
            Some(parent) => Arc::clone(parent),
            None => {
                let components = self.components();
                let parents = components.split_last().map_or(&[][..], |(_, parents)| parents);
                let parent = self.make(directories, parents)?;
                Arc::clone(self.parent.insert(parent))
            }
        };
        let path = self.components().pop().unwrap_or(name);
        Ok(Target { root, path })
    }

    /// Where an entry of this name would go; none where the destination is not there. Makes nothing.
    pub(super) fn look<'a>(
        &'a self,
        directories: &mut Directories,
        name: &'a [u8],
        sole: Sole,
    ) -> Result<Option<Target<'a>>, TreeError> {
        if let Some(inside) = &self.inside {
            return Ok(Some(Target { root: Arc::clone(inside), path: name }));
        }
        if sole == Sole::No || self.is_directory {
            return Ok(None);
        }
        let components = self.components();
        let Some((leaf, parents)) = components.split_last() else { return Ok(None) };
        match beneath::walk(&self.from, parents, self.links).and_then(|parent| directories.adopt(parent)) {
            Ok(root) => Ok(Some(Target { root, path: leaf })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(unusable(Problem::system(errno, "use it as destination", &self.destination))),
        }
    }

    /// The destination as a directory.
    pub(super) fn inside(&mut self, directories: &mut Directories) -> Result<&Arc<Directory>, TreeError> {
        let inside = match self.inside.take() {
            Some(inside) => inside,
            None => self.make(directories, &self.components())?,
        };
        Ok(self.inside.insert(inside))
    }

    /// The destination, if it is or has become a directory.
    pub(super) fn opened(&self) -> Option<&Arc<Directory>> {
        self.inside.as_ref()
    }

    fn components(&self) -> Vec<&[u8]> {
        beneath::components(&self.destination, self.links).unwrap_or_default()
    }

    fn make(&self, directories: &mut Directories, components: &[&[u8]]) -> Result<Arc<Directory>, TreeError> {
        make_all(&self.from, components, self.links)
            .and_then(|descriptor| directories.adopt(descriptor))
            .map_err(|errno| unusable(Problem::system(errno, "make the destination", &self.destination)))
    }
}

/// Whether an entry is all that its job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sole {
    Yes,
    No,
}

fn open_existing(from: &OwnedFd, components: &[&[u8]], links: Links) -> Result<OwnedFd, Errno> {
    let directory = beneath::walk(from, components, links)?;
    beneath::open_directory(directory, b".", Links::Refuse)
}

/// Opens a directory, making it and those on the way as `mkdir -p` would.
fn make_all(from: &OwnedFd, components: &[&[u8]], links: Links) -> Result<OwnedFd, Errno> {
    let mut directory = beneath::walk(from, &[], links)?;
    for component in components {
        let next = match beneath::walk(&directory, &[*component], links) {
            Err(Errno::ENOENT) => {
                match mkdirat(&directory, *component, Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                beneath::walk(&directory, &[*component], links)
            }
            other => other,
        };
        directory = next?;
    }
    beneath::open_directory(directory, b".", Links::Refuse)
}

fn unusable(problem: Problem) -> TreeError {
    TreeError::Destination(Failure { path: Vec::new(), object: None, code: problem.code, text: problem.text })
}
