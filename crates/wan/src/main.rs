//! `cargo xtask wan`: a long link by hand. Prints how to get to its ends, or runs a command at the first one, and says
//! in JSON what the link counted.
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use dwcp_wan::emulator::Offload;
use dwcp_wan::{Emulator, Link, Namespace, Spec, unavailable};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A long link in this machine: two network namespaces, 10.78.0.1 and 10.78.0.2 (fd78::1, fd78::2), and between them
/// what you say. Needs root and /dev/net/tun.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask wan", after_help = EXAMPLES)]
struct Arguments {
    /// From the first end to the second: a list of rate=1gbit delay=50ms jitter=2ms loss=1% (bursts: 0.1%x20,
    /// Gilbert-Elliott: TO_BAD%/TO_GOOD%/LOSS_GOOD%/LOSS_BAD%) reorder=1%@5ms duplicate=0.1%
    /// buffer=1bdp|256kib outage=3s+500ms, separated by commas
    #[arg(long, value_name = "LINK")]
    there: Spec,
    /// From the second end to the first; as --there where it is not given
    #[arg(long, value_name = "LINK")]
    back: Option<Spec>,
    /// Of all chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest IP packet on the wire
    #[arg(long, value_name = "BYTES", default_value_t = 1_500)]
    mtu: u16,
    /// Have the kernel cut packets into segments before the link sees them
    #[arg(long)]
    no_offload: bool,
    /// Shell command that runs at the second end meanwhile, as a server
    #[arg(long, value_name = "COMMAND")]
    server: Option<String>,
    /// Command at the first end; without one the link stands until standard input ends
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(reason) = unavailable() {
        eprintln!("wan: skipped: {reason}");
        return ExitCode::from(77);
    }
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wan: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let link = Link {
        back: arguments.back.unwrap_or_else(|| arguments.there.clone()),
        there: arguments.there,
        seed: arguments.seed,
        mtu_bytes: arguments.mtu,
        offload: if arguments.no_offload { Offload::Off } else { Offload::On },
    };
    let emulator = Emulator::start(&link)?;
    let shell = |line: String| {
        // A group of its own: what the shell starts ends with it.
        at(emulator.second(), Command::new("sh").args(["-c", &line]).process_group(0))
    };
    let mut server = arguments.server.map(shell).transpose()?;
    let ended = if arguments.command.is_empty() {
        stand(&emulator)?;
        ExitCode::SUCCESS
    } else {
        // A server that is still coming up refuses its first client.
        std::thread::sleep(Duration::from_millis(if server.is_some() { 300 } else { 0 }));
        let mut command = Command::new(&arguments.command[0]);
        let status = at(emulator.first(), command.args(&arguments.command[1..]))?.wait()?;
        ExitCode::from(status.code().unwrap_or(1) as u8)
    };
    if let Some(server) = &mut server {
        // A server that has ended by itself has no group any more.
        killpg(Pid::from_raw(server.id().cast_signed()), Signal::SIGKILL).unwrap_or_default();
        server.wait()?;
    }
    println!("{}", emulator.stop()?.json());
    Ok(ended)
}

fn at(end: &Namespace, command: &mut Command) -> std::io::Result<Child> {
    end.run(|| command.spawn())
}

/// Says how to get to the ends, and waits for the end of standard input.
fn stand(emulator: &Emulator) -> std::io::Result<()> {
    let process = std::process::id();
    for (name, end) in [("first", emulator.first()), ("second", emulator.second())] {
        println!("{name} end:  nsenter --net=/proc/{process}/fd/{}", end.as_fd().as_raw_fd());
    }
    println!("the link stands until standard input ends (Ctrl-D)");
    std::io::stdout().flush()?;
    Command::new("cat").stdout(Stdio::null()).status()?;
    Ok(())
}

const EXAMPLES: &str = "Examples:
  cargo xtask wan --there rate=100mbit,delay=40ms,loss=0.1% -- ping -c 5 10.78.0.2
  cargo xtask wan --there rate=1gbit,delay=50ms --server 'iperf3 -s -1' -- iperf3 -c 10.78.0.2 -P 8
  cargo xtask wan --there rate=1gbit,delay=10ms      (then nsenter into the ends that it names)";
