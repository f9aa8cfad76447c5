//! The moment between the supervisor and a half: asks the kernel to end this process with its parent, then becomes
//! the half. The request survives `execve` (prctl(2), PR_SET_PDEATHSIG), unless the half's file has capabilities or
//! set-id bits: then a service manager should run it.
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::arguments::Half;
use crate::exit::{Code, Failure};

/// Only returns when it failed.
pub(crate) fn become_half(arguments: &Half) -> Result<Code, Failure> {
    // SIGKILL: a half that outlives its supervisor would hold the ports against the next one. Both halves are made to
    // survive it.
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| Failure::general(format!("cannot bind this process to its parent: {error}")))?;
    // The parent may have died before the request.
    if getppid().as_raw() != arguments.parent {
        return Err(Failure::general("the supervisor is gone"));
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(Failure::usage("no program to become"));
    };
    let mut command = Command::new(program);
    if std::env::var_os("LISTEN_FDS").is_some() {
        // Only this process knows its number, and keeps it when it becomes the half (sd_listen_fds(3)).
        command.env("LISTEN_PID", std::process::id().to_string());
    }
    let error = command.args(rest).exec();
    Err(Failure::general(format!("cannot start {}: {error}", program.to_string_lossy())))
}
