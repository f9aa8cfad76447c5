//! What a process asks the kernel about itself. Used by the supervisor's children, by the node's statistics and by the
//! link emulator.
#![expect(unsafe_code, reason = "a scheduling class that nix does not know")]
use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, getppid, sysconf};

/// Makes the kernel send `signal` to this process when its parent dies (PR_SET_PDEATHSIG(2const): more exactly, when
/// the thread that started it does). `parent` is the process that should be the parent, as it told its child.
///
/// # Errors
/// The system's error; `ESRCH` where the parent has died already, or was never `parent`.
pub fn die_with_parent(parent: Pid, signal: Signal) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)?;
    // A parent that died before the line above sends nothing any more, and we have another one now.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Resident memory of this process in bytes, as `/proc/self/statm` says.
///
/// # Errors
/// The system's error; `InvalidData` where the file reads differently.
pub fn resident_bytes() -> io::Result<u64> {
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| u64::try_from(bytes).ok());
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    page_bytes
        .zip(resident_pages(&statm))
        .and_then(|(page_bytes, pages)| pages.checked_mul(page_bytes))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Lets the calling thread run before every ordinary one (SCHED_FIFO, sched(7)). For a thread that sleeps most of the
/// time and must not be late: one that never sleeps keeps everybody else off its core.
///
/// # Errors
/// The system's error; `PermissionDenied` without CAP_SYS_NICE.
pub fn run_before_others() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the structure during the call; 0 is the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    Ok(Errno::result(set).map(drop)?)
}

/// Second field of statm.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_field_is_the_resident_one() {
        assert_eq!(resident_pages("2094 1270 1007 9 0 118 0\n"), Some(1270));
        assert_eq!(resident_pages("2094"), None);
        assert_eq!(resident_pages("1 -5 3"), None);
    }

    #[test]
    fn touched_memory_is_resident() {
        let before = resident_bytes().unwrap();
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after > before + (32 << 20), "{before} {after} {}", touched.len());
    }

    #[test]
    fn a_wrong_parent_is_noticed() {
        let error = die_with_parent(Pid::from_raw(i32::MAX), Signal::SIGTERM).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ESRCH as i32));
        die_with_parent(getppid(), Signal::SIGTERM).unwrap();
        nix::sys::prctl::set_pdeathsig(None).unwrap();
    }
}
