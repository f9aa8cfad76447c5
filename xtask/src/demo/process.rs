//! What `/proc` says of a process: its age, its children, the time it used. Called by the demo and its janitor.
use std::fs;

/// When it started, in ticks since boot: with the id the name of a process for ever. `None` where there is none.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    field(pid, 22)?.parse().ok()
}

/// Whether it has ended and only waits for its parent.
pub(super) fn is_zombie(pid: u32) -> bool {
    matches!(field(pid, 3).as_deref(), Some("Z" | "X"))
}

/// Time on processors of all its threads, in seconds; 0 where there is none.
pub(super) fn cpu_s(pid: u32) -> f64 {
    let ticks = |number| field(pid, number).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // USER_HZ is 100 on every architecture that this runs on.
    (ticks(14) + ticks(15)) as f64 / 100.0
}

/// The child of `parent` that runs this program.
pub(super) fn child(parent: u32, program: &str) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = parent.to_string();
    pids.into_iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() == program && field(*pid, 4).as_deref() == Some(&parent)
    })
}

/// A field of `/proc/PID/stat` by its number in proc_pid_stat(5); those behind the name only.
fn field(pid: u32, number: usize) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets.
    let (_, behind) = line.rsplit_once(") ")?;
    behind.split_ascii_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_known() {
        let pid = std::process::id();
        assert!(start_ticks(pid).unwrap() > 0);
        assert!(!is_zombie(pid));
        assert!(cpu_s(pid) < 3600.0);
        assert_eq!(start_ticks(u32::MAX), None);
    }
}
