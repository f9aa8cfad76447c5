//! Where a scan begins: the names that the operator or a peer gave.
use super::beneath::{self, Links};
use super::failure::Problem;
use super::name::Shown;
use dwcp_abi::wire::Code;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a source's path is relative to.
#[derive(Debug, Clone)]
pub enum Base {
    /// The local file system's root: the path is the operator's, and links on the way to it are followed.
    Local,
    /// An export's directory: the path is a peer's, and a link in it is refused.
    Export(Arc<OwnedFd>),
}

/// One path to send. `/a/b` arrives as `b`, `/a/b/` as the contents of `b`.
#[derive(Debug, Clone)]
pub struct Source {
    /// What `path` starts from.
    pub base: Base,
    /// Path of any bytes but NUL.
    pub path: Vec<u8>,
}

/// A source that was found.
pub(super) enum OpenedSource {
    /// What is inside this directory arrives.
    Contents(OwnedFd),
    /// This name inside this directory arrives.
    Entry(OwnedFd, Vec<u8>),
}

impl Source {
    /// Opens the directory that holds the source, or the source itself where its contents are meant.
    pub(super) fn open(&self) -> Result<OpenedSource, Problem> {
        let (from, links) = match &self.base {
            Base::Local => (beneath::slash(), Links::Follow),
            Base::Export(export) => (export.try_clone().map_err(|_| Errno::EMFILE), Links::Refuse),
        };
        let from = from.map_err(|errno| self.problem(errno))?;
        let Some(components) = beneath::components(&self.path, links) else {
            return Err(Problem::new(
                Code::Forbidden,
                &self.path,
                "a path below an export may not contain `..`",
            ));
        };
        match components.split_last() {
            Some((leaf, parents)) if !beneath::names_directory(&self.path) => {
                let parent = beneath::walk(from, parents, links).map_err(|errno| self.problem(errno))?;
                Ok(OpenedSource::Entry(parent, leaf.to_vec()))
            }
            _ => beneath::walk(from, &components, links)
                .and_then(|directory| beneath::open_directory(directory, b".", Links::Refuse))
                .map(OpenedSource::Contents)
                .map_err(|errno| self.problem(errno)),
        }
    }

    /// The name that a failure of the whole source is reported under.
    pub(super) fn name(&self) -> Vec<u8> {
        let components = beneath::components(&self.path, Links::Follow).unwrap_or_default();
        match components.last() {
            Some(&name) if dwcp_abi::wire::check_name(name).is_ok() => name.to_vec(),
            _ => b"source".to_vec(),
        }
    }

    fn problem(&self, errno: Errno) -> Problem {
        tracing::debug!(path = %Shown(&self.path), %errno, "source cannot be opened");
        Problem::system(errno, "open it to read", &self.path)
    }
}
