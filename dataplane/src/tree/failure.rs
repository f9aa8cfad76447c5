//! What can go wrong with one entry or with a whole tree, in words that name the path and the way out.
use super::name::Shown;
use super::volumes::VolumeIndex;
use dwcp_abi::codec::CodecError;
use dwcp_abi::wire::Code;
use nix::errno::Errno;

/// One entry that did not make it; the job goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Relative path of the entry, as the sender names it.
    pub path: Vec<u8>,
    /// The object's number, where the entry is one: nothing of it should be sent.
    pub object: Option<u64>,
    /// For programs.
    pub code: Code,
    /// For people: path, cause and way out.
    pub text: String,
}

/// Failures of a call that may have any number of them: the first are kept.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) kept: Vec<Failure>,
    pub(super) count: u64,
}

impl Failures {
    /// Counts a failure.
    pub(super) fn push(&mut self, failure: Failure) {
        self.count += 1;
        if self.kept.len() < FAILURES_KEPT_MAX {
            self.kept.push(failure);
        }
    }
}

const FAILURES_KEPT_MAX: usize = 100;

/// Why a call of this module failed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The peer's pack breaks the format: nothing after the bad entry was looked at.
    #[error("malformed pack: {0}")]
    Malformed(#[from] CodecError),
    /// The pack's bytes are not those that were sent: none of it was looked at, and it may come again.
    #[error("a pack was damaged on its way: its digest does not match; start the job again")]
    Damaged,
    /// The destination cannot be used, is full, over quota or read-only: the job should stop.
    #[error("{}", .0.text)]
    Destination(Failure),
    /// This one entry failed; the job may go on.
    #[error("{}", .0.text)]
    Entry(Failure),
}

impl TreeError {
    /// The code to report.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::Protocol,
            Self::Damaged => Code::Integrity,
            Self::Destination(failure) | Self::Entry(failure) => failure.code,
        }
    }
}

/// A failed step, before it is known which entry and which job it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) text: String,
    /// Every further entry would fail too.
    pub(super) stops_job: bool,
    /// Nothing is wrong: what is there is of a kind that is not sent.
    pub(super) left_out: bool,
}

impl Problem {
    /// A refusal that no system call is to blame for.
    pub(super) fn new(code: Code, path: &[u8], text: &str) -> Self {
        Self { code, text: format!("{}: {text}", Shown(path)), stops_job: false, left_out: false }
    }

    /// A system call that failed while it tried to `action` the path.
    pub(super) fn system(errno: Errno, action: &str, path: &[u8]) -> Self {
        let text = format!("{}: cannot {action}: {}{}", Shown(path), errno.desc(), way_out(errno));
        Self { code: code(errno), text, stops_job: false, left_out: false }
    }

    /// As [`Problem::system`], for a call on the file system of this index: what is full or read-only there will
    /// be so for the next entry, and the destination's own file system ends the job.
    pub(super) fn storage(errno: Errno, action: &str, path: &[u8], volume: VolumeIndex) -> Self {
        let stops_job = volume.is_root() && matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS);
        Self { stops_job, ..Self::system(errno, action, path) }
    }

    /// Names the entry.
    pub(super) fn of(self, path: &[u8], object: Option<u64>) -> Failure {
        Failure { path: path.to_vec(), object, code: self.code, text: self.text }
    }
}

fn code(errno: Errno) -> Code {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => Code::NoSpace,
        Errno::EACCES | Errno::EPERM | Errno::EROFS => Code::Forbidden,
        Errno::ENOENT => Code::NotFound,
        Errno::EMFILE | Errno::ENFILE => Code::Busy,
        _ => Code::Io,
    }
}

fn way_out(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC => "; free space or choose another destination, then start the job again",
        Errno::EDQUOT => "; raise the quota or choose another destination, then start the job again",
        Errno::EROFS => "; mount it writable or choose another destination",
        Errno::EACCES | Errno::EPERM => "; give the user that runs dwcp-dataplane the right to do so",
        Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST => {
            "; a directory of that name is in the way: remove it or choose another destination"
        }
        Errno::ENOTDIR | Errno::ELOOP => {
            "; a file or link is in the way, and links are not followed: remove it or choose another path"
        }
        Errno::ENAMETOOLONG => "; shorten the name or choose a file system that allows it",
        Errno::EMFILE | Errno::ENFILE => "; raise the limit of open files (LimitNOFILE)",
        Errno::EFBIG => "; choose a file system that allows files of this size",
        _ => "",
    }
}
