//! Where the demo keeps its copies: memory where there is enough of it, else a disk with enough room.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A new directory name with room for so many bytes. It is not made yet.
///
/// # Errors
/// No place has the room.
pub(super) fn find(needed_bytes: u64) -> Result<PathBuf> {
    let name = format!("dwcp-demo-{}", std::process::id());
    let memory = Path::new("/dev/shm");
    let room = free_bytes(memory).min(available_memory_bytes().saturating_sub(MEMORY_LEFT_BYTES));
    if room >= needed_bytes {
        return Ok(memory.join(name));
    }
    let disk = std::env::temp_dir();
    let room_on_disk = free_bytes(&disk);
    if room_on_disk >= needed_bytes {
        return Ok(disk.join(name));
    }
    bail!(
        "the demo needs {} MiB of room; {} has {} MiB and {} has {} MiB: name a larger place with TMPDIR, or less data with --data DIR",
        needed_bytes >> 20,
        memory.display(),
        room >> 20,
        disk.display(),
        room_on_disk >> 20
    )
}

fn free_bytes(directory: &Path) -> u64 {
    let text = shell::ask(Command::new("df").args(["--block-size=1", "--output=avail"]).arg(directory));
    text.and_then(|text| text.lines().nth(1)?.trim().parse().ok()).unwrap_or(0)
}

fn available_memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or(0) << 10
}

/// Left to the rest of the machine, and to both nodes.
const MEMORY_LEFT_BYTES: u64 = 1 << 30;
