//! How soon the calling thread gets a core that another one is using: a bench's client runs ahead of everything. Nothing that
//! ships uses it. Priorities of others are not touched.
#![expect(unsafe_code, reason = "sched_setattr, which nix does not know")]
use std::io;

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
