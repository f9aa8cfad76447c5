//! How soon the calling thread gets a core that another one is using. Control asks for short turns, so that it answers
//! beside workers that never sleep; a bench's client runs ahead of everything. Priorities of others are not touched.
#![expect(unsafe_code, reason = "sched_setattr, which nix does not know")]
use std::io;
use std::time::Duration;

/// Asks for turns of `slice` for the calling thread, within 100 µs and 100 ms. The kernel runs a waking thread with
/// short turns before one with longer turns, as long as it takes no more than its share. Needs no privilege; kernels
/// before 6.12 ignore it (Linux commit 857b158dc5e8, "sched/eevdf: Use sched_attr::sched_runtime to set request/slice
/// suggestion").
///
/// # Errors
/// The system's error; `EPERM` where a filter of system calls forbids it.
pub fn take_short_turns(slice: Duration) -> io::Result<()> {
    let mut attributes = read()?;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    write(&attributes)
}

/// Lets the calling thread run whenever it can, before every ordinary thread (SCHED_FIFO of the lowest priority,
/// sched(7)).
///
/// # Errors
/// The system's error; `EPERM` without CAP_SYS_NICE.
pub fn run_ahead() -> io::Result<()> {
    let mut attributes = read()?;
    (attributes.sched_policy, attributes.sched_priority) = (libc::SCHED_FIFO as u32, 1);
    (attributes.sched_nice, attributes.sched_runtime) = (0, 0);
    write(&attributes)
}

fn read() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: SIZE,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (ourselves, flags) = (0_i32, 0_u32);
    // SAFETY: the kernel writes at most `SIZE` bytes into a structure of that size which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, ourselves, &raw mut attributes, SIZE, flags) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn write(attributes: &libc::sched_attr) -> io::Result<()> {
    let (ourselves, flags) = (0_i32, 0_u32);
    // SAFETY: the kernel reads the structure, whose first field says its size, and keeps no pointer to it.
    let done =
        unsafe { libc::syscall(libc::SYS_sched_setattr, ourselves, std::ptr::from_ref(attributes), flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const SIZE: u32 = size_of::<libc::sched_attr>() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_are_granted_and_change_nothing_else() {
        std::thread::spawn(|| {
            let before = read().unwrap();
            take_short_turns(Duration::from_micros(100)).unwrap();
            let after = read().unwrap();
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            // Older kernels take the wish and show nothing of it.
            assert!(
                [before.sched_runtime, 100_000].contains(&after.sched_runtime),
                "{}",
                after.sched_runtime
            );
        })
        .join()
        .unwrap();
    }
}
