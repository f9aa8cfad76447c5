//! Descriptors that the service manager kept for this process, from its former life. Called once, by an entry point.
#![expect(unsafe_code, reason = "ownership of descriptors that are known by number alone")]
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes what `$LISTEN_FDS` promises, with its names; close-on-exec from now on. Nothing where the variables speak to
/// another process, and nothing at a second call. To be called before the process opens anything: a number that the
/// manager did not fill would otherwise be a file of our own.
#[must_use]
pub fn inherited() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    let count = promised(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), std::process::id());
    // Relaxed: whoever comes second gets nothing, whatever else it sees.
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let numbers = FIRST..FIRST + count;
    numbers.filter_map(|number| Some((names.next().unwrap_or_default().to_owned(), take(number)?))).collect()
}

fn promised(pid: &str, count: &str, own: u32) -> RawFd {
    let is_ours = pid.parse() == Ok(own);
    count.parse().ok().filter(|_| is_ours).unwrap_or(0).clamp(0, super::KEPT_MAX as RawFd)
}

fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: only asked about; `fcntl` answers EBADF where the number names nothing.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and by sd_listen_fds(3) it is this process's to own. Nobody else takes it: `inherited` gives
    // out each number once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// SD_LISTEN_FDS_START.
pub(super) const FIRST: RawFd = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_to_this_process_counts() {
        assert_eq!(promised("7", "2", 7), 2);
        assert_eq!(promised("8", "2", 7), 0);
        assert_eq!(promised("", "2", 7), 0);
        for nonsense in ["", "-1", "two", "99999999999999"] {
            assert_eq!(promised("7", nonsense, 7), 0, "{nonsense}");
        }
        assert_eq!(promised("7", "100000", 7), super::super::KEPT_MAX as RawFd);
    }
}
