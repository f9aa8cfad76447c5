//! What a piece of work cost. Processes that the bench waits for are counted by `getrusage`, with everything that they
//! waited for themselves; processes that live on by their CPU clock, which covers all threads, io_uring's too.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Wall time, CPU time of everybody involved, and bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Seconds of user and system time of all processes.
    pub cpu_s: f64,
    /// Payload.
    pub bytes: u64,
}

impl Cost {
    /// Payload per second of wall time, in Gbit/s.
    #[must_use]
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8e-9 / self.wall_s
    }
}

/// Runs `work` and counts what the children that it waited for have used.
///
/// # Errors
/// Those of `work`.
pub fn children(bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (start, before) = (Instant::now(), children_cpu()?);
    work()?;
    Ok(Cost { wall_s: start.elapsed().as_secs_f64(), cpu_s: (children_cpu()? - before).as_secs_f64(), bytes })
}

/// CPU time of children that were waited for.
///
/// # Errors
/// The kernel refuses to say.
pub fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Ok(Duration::from_micros(microseconds(usage.user_time()) + microseconds(usage.system_time())))
}

/// CPU time of a live process, all threads.
///
/// # Errors
/// The process is gone.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).context("a process is gone")?;
    Ok(Duration::from(clock_gettime(clock)?))
}

/// Seconds that the calling thread has run.
///
/// # Errors
/// The kernel refuses to say.
pub fn thread_cpu_s() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?).as_secs_f64())
}

/// Most resident bytes that a live process ever had, huge pages included.
///
/// # Errors
/// The process is gone.
pub fn peak_resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok((kib("VmHWM:") + kib("HugetlbPages:")) * 1024)
}

/// The middle of some figures; NaN of none.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn our_own_cpu_time_and_memory() {
        let pid = std::process::id();
        assert!(process_cpu(pid).unwrap() > Duration::ZERO);
        assert!(peak_resident_bytes(pid).unwrap() > 100_000);
    }
}
