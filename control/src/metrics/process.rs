//! What the kernel says of this process, and of the dataplane's. Used by the metrics page; a file that cannot be read counts as zero.
use std::time::SystemTime;

/// One look at /proc/self.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProcessFigures {
    pub(super) cpu_s: f64,
    pub(super) threads: u64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
}

impl ProcessFigures {
    pub(super) fn read() -> Self {
        let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self { open_fds, ..Self::of("self") }
    }

    fn of(process: &str) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; fields are counted behind it (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Self {
            cpu_s: (field(14) + field(15)) as f64 / TICKS_PER_S,
            threads: field(20),
            resident_bytes: field(24) * PAGE_BYTES,
            open_fds: 0,
        }
    }
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    ProcessFigures::read().resident_bytes
}

/// CPU time of this process and of another one so far.
pub(crate) fn cpu_ns(other: Option<u32>) -> u64 {
    let ours = ProcessFigures::of("self").cpu_s;
    let others = other.map_or(0.0, |pid| ProcessFigures::of(&pid.to_string()).cpu_s);
    ((ours + others) * 1e9) as u64
}

/// Seconds since 1970, `uptime` ago.
pub(super) fn started_s(uptime: std::time::Duration) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(uptime).as_secs_f64()
}

/// USER_HZ of every Linux port there is.
const TICKS_PER_S: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;
