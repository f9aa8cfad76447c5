//! `vm -- COMMAND…`: boots Debian's kernel under QEMU with this machine's files read-only, runs the command as root in
//! there and passes its exit status out. For what this kernel lacks: RDMA, fq, netem. A boot that fails is tried again;
//! the command never is. With `--systemd` that is the first process in there, and the command one of its services.
pub(crate) mod image;
mod kernel;
mod systemd;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
pub(crate) use kernel::fetch as fetch_kernel;

use crate::{Outcome, setup, shell};

/// Entry point of the command.
///
/// # Errors
/// The image cannot be made, or QEMU cannot be started.
pub(crate) fn run(arguments: &[String]) -> Result<Outcome> {
    let request = match Request::parse(arguments) {
        Ok(request) => request,
        Err(complaint) => {
            eprintln!(
                "xtask vm: {complaint}; use: cargo xtask vm [--systemd] [--rdma] [--timeout SECONDS] [--memory MIB] -- COMMAND…"
            );
            return Ok(Outcome::Usage);
        }
    };
    let guest = request.guest();
    start(&guest, |kernel, folder| image::make(kernel, folder, &request))
}

/// A machine to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// Where its files come from.
    pub(crate) files: Files,
    /// How long until its command is started, on the clock of this machine, which others use too.
    pub(crate) boot_limit: Duration,
    /// How long that may take.
    pub(crate) limit: Duration,
    /// Its memory in MiB.
    pub(crate) memory_mib: u32,
}

/// Where a machine's files come from, and with that which clock it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// This machine's, read-only. Its clock is the wall's.
    Host,
    /// All are in its image. One core, whose clock counts instructions, a nanosecond each, and leaps over idle time: what
    /// is measured inside depends on nothing outside. Waiting for files of the host would count as no time at all.
    Image,
}

/// Starts a machine from the image that `make` writes into a folder, and waits until its command has ended.
///
/// # Errors
/// The image cannot be made, or QEMU cannot be started.
pub(crate) fn start(guest: &Guest, make: impl FnOnce(&Kernel, &Path) -> Result<PathBuf>) -> Result<Outcome> {
    setup::prepare_vm();
    let missing = PROGRAMS.into_iter().find(|program| shell::find(program).is_none());
    if let Some(missing) = missing {
        println!(
            "vm: skipped: {missing} is not installed; `cargo xtask setup --for vm` installs it where it may"
        );
        return Ok(Outcome::Skipped);
    }
    let Some(kernel) = kernel::unpacked() else {
        println!("vm: skipped: no kernel package; `cargo xtask setup --for vm` downloads it where it may");
        return Ok(Outcome::Skipped);
    };
    let folder = image::Folder::new()?;
    let initial = make(&kernel, folder.path())?;
    for attempt in 1..=BOOTS_MAX {
        match boot(guest, &kernel.image, &initial, folder.path())? {
            Ended::Command(0) => return Ok(Outcome::Done),
            Ended::Command(status) => return Ok(Outcome::Failed(status)),
            Ended::Timeout => {
                eprintln!("vm: ended after {} s", guest.limit.as_secs());
                return Ok(Outcome::Failed(TIMEOUT_STATUS));
            }
            Ended::NoBoot => {
                let messages = std::fs::read_to_string(folder.path().join(MESSAGES)).unwrap_or_default();
                let last = messages.lines().last().unwrap_or("nothing");
                eprintln!("vm: boot {attempt} of {BOOTS_MAX} failed; the kernel's last words: {last}");
            }
        }
    }
    Ok(Outcome::Failed(1))
}

#[derive(Debug)]
struct Request {
    command: Vec<String>,
    limit: Duration,
    memory_mib: u32,
    /// Whether there are to be RDMA ports: `rxe0` and `rxe1`, at the ends of a veth pair.
    rdma: bool,
    first: First,
}

/// The first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// A script that runs the command.
    Script,
    /// systemd, with the command as a service of it.
    Systemd,
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let limit = Duration::from_secs(600);
        let mut request =
            Self { command: Vec::new(), limit, memory_mib: 4096, rdma: false, first: First::Script };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().and_then(|value| value.parse::<u32>().ok());
                value.filter(|&value| value > 0).ok_or_else(|| format!("{word} needs a number"))
            };
            match word.as_str() {
                "--systemd" => request.first = First::Systemd,
                "--timeout" => request.limit = Duration::from_secs(number()?.into()),
                "--memory" => request.memory_mib = number()?,
                "--rdma" => request.rdma = true,
                "--" => request.command.extend(words.by_ref().cloned()),
                other => return Err(format!("unknown argument '{other}'")),
            }
        }
        if request.command.is_empty() {
            return Err("there is no command".into());
        }
        Ok(request)
    }
}

impl Request {
    fn guest(&self) -> Guest {
        let boot_limit = match self.first {
            First::Script => BOOT_LIMIT,
            First::Systemd => BOOT_LIMIT * 2,
        };
        Guest { files: Files::Host, boot_limit, limit: self.limit, memory_mib: self.memory_mib }
    }
}

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The command ran to its end, with this status.
    Command(u8),
    /// The command did not end in time.
    Timeout,
    /// The command was never started.
    NoBoot,
}

fn boot(guest: &Guest, kernel: &Path, initial: &Path, folder: &Path) -> Result<Ended> {
    let status = folder.join(STATUS);
    File::create(&status).with_context(|| status.display().to_string())?;
    let mut machine = Machine(qemu(guest, kernel, initial, folder).spawn().context("qemu-system-x86_64")?);
    let started = Instant::now();
    loop {
        let said = std::fs::read_to_string(&status).unwrap_or_default();
        let off = machine.0.try_wait().context("qemu-system-x86_64")?.is_some();
        if let Some(ended) = judge(&said, off, started.elapsed(), guest) {
            return Ok(ended);
        }
        sleep(POLL);
    }
}

/// What the lines on the status port mean; `None` while it is not over.
fn judge(said: &str, off: bool, elapsed: Duration, guest: &Guest) -> Option<Ended> {
    let limit = guest.limit;
    let ended = said.lines().find_map(|line| line.trim().strip_prefix("exit ")?.parse().ok());
    if let (Some(status), true) = (ended, off || elapsed > limit) {
        return Some(Ended::Command(status));
    }
    let booted = said.lines().any(|line| line.trim() == "booted");
    match (booted, off) {
        (false, true) => Some(Ended::NoBoot),
        (false, false) => (elapsed > guest.boot_limit).then_some(Ended::NoBoot),
        // It went down in the middle of the command: a panic, which is the command's failure.
        (true, true) => Some(Ended::Command(1)),
        (true, false) => (elapsed > limit).then_some(Ended::Timeout),
    }
}

fn qemu(guest: &Guest, kernel: &Path, initial: &Path, folder: &Path) -> Command {
    let status = folder.join(STATUS);
    let mut qemu = Command::new("qemu-system-x86_64");
    // Software emulation: the device node of KVM is there on some hosts that then do not run this kernel.
    qemu.args(match guest.files {
        Files::Host => ["-accel", "tcg,thread=multi", "-smp", "2"],
        Files::Image => ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
    });
    qemu.args(["-cpu", "max", "-m"]).arg(guest.memory_mib.to_string());
    qemu.args(["-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"]);
    // Three ports: the command's output, the status of the run, the kernel's own messages.
    qemu.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", status.display()));
    qemu.arg("-serial").arg(format!("file:{}", folder.join(MESSAGES).display()));
    if guest.files == Files::Host {
        let host = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap";
        qemu.args(["-virtfs", host]);
    }
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initial);
    qemu.args(["-append", "console=ttyS2 panic=-1 no_timer_check"]);
    qemu.stdin(Stdio::null());
    qemu
}

/// Switched off when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It fails where the machine has gone by itself, which is the rule.
        self.0.kill().unwrap_or_default();
        if let Err(error) = self.0.wait() {
            eprintln!("vm: {error}");
        }
    }
}

/// Debian's kernel, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    image: PathBuf,
    /// The folder above `lib/modules`.
    tree: PathBuf,
    version: String,
}

const PROGRAMS: [&str; 5] = ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "depmod"];
const BOOTS_MAX: u32 = 3;
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(120);
const STATUS: &str = "status";
const MESSAGES: &str = "messages";
const POLL: Duration = Duration::from_millis(50);
/// As `timeout(1)` says it.
const TIMEOUT_STATUS: u8 = 124;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_stands_behind_two_dashes() {
        let request = parse("--timeout 5 -- ls --memory").unwrap();
        assert_eq!(
            (request.command, request.limit),
            (vec!["ls".into(), "--memory".into()], Duration::from_secs(5))
        );
        assert!(parse("--rdma -- ls").unwrap().rdma && !parse("-- ls").unwrap().rdma);
        assert_eq!(parse("--systemd -- ls").unwrap().first, First::Systemd);
        assert!(parse("ls").is_err());
        assert!(parse("--").is_err());
        assert!(parse("--timeout x -- ls").is_err());
    }

    #[test]
    fn only_boots_are_tried_again() {
        let now = Duration::from_secs(1);
        let request = parse("--timeout 600 -- ls").unwrap().guest();
        assert_eq!(judge("", false, now, &request), None);
        assert_eq!(judge("", true, now, &request), Some(Ended::NoBoot));
        assert_eq!(judge("", false, BOOT_LIMIT * 2, &request), Some(Ended::NoBoot));
        assert_eq!(judge("booted\n", false, now, &request), None);
        assert_eq!(judge("booted\n", true, now, &request), Some(Ended::Command(1)));
        assert_eq!(judge("booted\n", false, LIMIT * 2, &request), Some(Ended::Timeout));
        assert_eq!(judge("booted\r\nexit 7\r\n", true, now, &request), Some(Ended::Command(7)));
        assert_eq!(judge("booted\nexit 0\n", true, now, &request), Some(Ended::Command(0)));
    }
}
