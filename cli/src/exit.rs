//! Exit codes, fixed and documented, and the error that carries one to `main`.
use std::process::ExitCode;

use dwcp_api::client::ClientError;
use dwcp_api::{Problem, TransferState};

use crate::output;

/// What the command leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done as asked; for `status`: healthy.
    Ok = 0,
    /// Failed for a reason that has no code of its own; for `status`: degraded.
    General = 1,
    /// Wrong arguments; for `status`: unhealthy.
    Usage = 2,
    /// Cannot reach the daemon.
    Unreachable = 3,
    /// No answer in time.
    Timeout = 4,
    /// The daemon refuses in its present state.
    Refused = 5,
    /// Some entries of a transfer failed.
    Partial = 6,
    /// Not permitted.
    Permission = 7,
    /// Wrong configuration, as in sysexits.h.
    Configuration = 78,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl Code {
    /// How following a transfer ends.
    pub(crate) fn of_transfer(state: TransferState) -> Self {
        match state {
            TransferState::Partial => Self::Partial,
            TransferState::Failed | TransferState::Cancelled => Self::General,
            TransferState::Queued
            | TransferState::Connecting
            | TransferState::Running
            | TransferState::Finishing
            | TransferState::Interrupted
            | TransferState::Paused
            | TransferState::Done => Self::Ok,
        }
    }
}

/// Why the command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to leave with.
    pub(crate) code: Code,
    /// What is wrong; empty = say nothing.
    pub(crate) message: String,
    /// The way out, on a line of its own.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self::new(Code::General, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn print(&self) {
        if !self.message.is_empty() {
            output::error(&format!("dwcp: {}", self.message));
        }
        if let Some(hint) = &self.hint {
            output::error(&format!("      {hint}"));
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match &error {
            ClientError::Unreachable { .. } => Self::new(Code::Unreachable, message)
                .with_hint("is it running? `dwcp doctor` looks, `dwcp server` starts it in the foreground"),
            ClientError::Permission { .. } => Self::new(Code::Permission, message)
                .with_hint("use sudo, or join the group that owns the socket"),
            ClientError::Timeout { .. } => Self::new(Code::Timeout, message)
                .with_hint("wait longer with --timeout, or see `dwcp doctor`"),
            ClientError::Lost(_) => Self::new(Code::Unreachable, message),
            ClientError::Refused(problem) => Self::new(code_of_problem(problem), message),
            ClientError::Status { status } => Self::new(code_of_status(*status), message),
            ClientError::Decode(_)
            | ClientError::Schema { .. }
            | ClientError::TooLong { .. }
            | ClientError::Utf8
            | ClientError::Output(_)
            | ClientError::Address(_) => Self::general(message),
        }
    }
}

fn code_of_problem(problem: &Problem) -> Code {
    match problem.kind.as_str() {
        Problem::UNKNOWN_PEER => Code::Usage,
        Problem::REFUSED => Code::Refused,
        Problem::PERMISSION => Code::Permission,
        _ => code_of_status(problem.status),
    }
}

fn code_of_status(status: u16) -> Code {
    match status {
        400 | 413 | 415 | 422 => Code::Usage,
        401 | 403 => Code::Permission,
        408 | 504 => Code::Timeout,
        409 | 423 | 429 | 503 => Code::Refused,
        _ => Code::General,
    }
}
