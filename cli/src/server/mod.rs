//! `dwcp server`: runs both halves in the foreground where no service manager does. [`machine`] decides, this file
//! owns the processes. It passes no data between the halves and speaks to neither; what the dataplane wants kept while it is
//! started anew, [`store`] keeps.
mod half;
mod locate;
mod machine;
mod store;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::arguments::Server;
use crate::commands::config;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
pub(crate) use half::become_half;
use machine::{Half, Input, Output, Pauses, Reason, Supervisor};
use store::DataplaneStore;

/// Runs until it is told to stop.
pub(crate) async fn run(context: &Context, arguments: &Server) -> Result<Code, Failure> {
    if arguments.validate {
        return config::validate(context, arguments.config.as_deref());
    }
    let loaded = configuration::require(arguments.config.as_deref())?;
    let driver = Driver::new(context, arguments, pauses(&loaded.config))?;
    driver.run().await
}

fn pauses(config: &dwcp_config::Config) -> Pauses {
    Pauses {
        first: config.recovery.backoff.clone(),
        first_count: usize::try_from(config.recovery.max_retries).unwrap_or(usize::MAX),
        then: config.monitoring.health_check_interval,
    }
}

struct Driver<'a> {
    context: &'a Context,
    ourselves: PathBuf,
    dataplane: Process,
    control: Process,
    supervisor: Supervisor,
    store: DataplaneStore,
    started: Instant,
}

/// One half: what to run, and the child while it lives.
struct Process {
    command: Vec<OsString>,
    child: Option<Child>,
}

impl<'a> Driver<'a> {
    fn new(context: &'a Context, arguments: &Server, pauses: Pauses) -> Result<Self, Failure> {
        let ourselves = std::env::current_exe()
            .map_err(|error| Failure::general(format!("cannot find the program itself: {error}")))?;
        let directories = directories(arguments)?;
        let process = |half: Half| -> Result<Process, Failure> {
            let program = locate::program(half.program(), &ourselves)?;
            Ok(Process { command: command_line(program, arguments, &directories), child: None })
        };
        Ok(Self {
            dataplane: process(Half::Dataplane)?,
            control: process(Half::Control)?,
            ourselves,
            context,
            supervisor: Supervisor::new(pauses),
            store: DataplaneStore::new(context, &directories.runtime),
            started: Instant::now(),
        })
    }

    async fn run(mut self) -> Result<Code, Failure> {
        let no_signals = |error| Failure::general(format!("cannot wait for signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        loop {
            if let Some(reason) = self.act() {
                return finish(reason);
            }
            let due = self.supervisor.poll_timeout();
            let input = tokio::select! {
                status = ended(&mut self.dataplane) => self.bury(Half::Dataplane, status),
                status = ended(&mut self.control) => self.bury(Half::Control, status),
                _ = terminate.recv() => Input::Stop,
                _ = interrupt.recv() => Input::Stop,
                () = elapsed(self.started, due) => Input::Elapsed,
                () = self.store.keep() => continue,
            };
            if input == Input::Stop {
                self.context.note("dwcp server: stopping");
            }
            self.supervisor.handle(self.started.elapsed(), input);
        }
    }

    /// Does what the supervisor wants; gives the reason to leave when there is one.
    fn act(&mut self) -> Option<Reason> {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Start(half) => {
                    let input = self.start(half);
                    self.supervisor.handle(self.started.elapsed(), input);
                }
                Output::Announce(half, pause) => {
                    let seconds = pause.as_secs();
                    self.context
                        .note(&format!("dwcp server: starting {} again in {seconds} s", half.program()));
                }
                Output::Terminate(half) => self.send(half, Signal::SIGTERM),
                Output::Kill(half) => {
                    self.context.note(&format!("dwcp server: killing {}", half.program()));
                    self.send(half, Signal::SIGKILL);
                }
                Output::Leave(reason) => return Some(reason),
            }
        }
        None
    }

    fn start(&mut self, half: Half) -> Input {
        let mut command = Command::new(&self.ourselves);
        // A process group of its own: Ctrl-C reaches the supervisor alone, which stops the halves in order. The name
        // says that this is no call by one of the other names.
        command.arg0("dwcp").process_group(0).kill_on_drop(true).stdin(Stdio::null());
        command.arg("half").arg("--parent").arg(std::process::id().to_string()).arg("--");
        // What a manager of our own said to us is not for our children.
        command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
        if half == Half::Dataplane {
            self.store.hand_over(command.as_std_mut());
        }
        let process = self.process(half);
        command.args(&process.command);
        match command.spawn() {
            Ok(child) => {
                let pid = child.id().unwrap_or_default();
                process.child = Some(child);
                self.context.note(&format!("dwcp server: started {} (pid {pid})", half.program()));
                Input::Started(half)
            }
            Err(error) => {
                self.context.note(&format!("dwcp server: cannot start {}: {error}", half.program()));
                Input::Ended(half, None)
            }
        }
    }

    fn bury(&mut self, half: Half, status: std::io::Result<ExitStatus>) -> Input {
        self.process(half).child = None;
        let (text, code) = match &status {
            Ok(status) => (describe(*status), status.code()),
            Err(error) => (format!("could not be waited for: {error}"), None),
        };
        self.context.note(&format!("dwcp server: {} {text}", half.program()));
        Input::Ended(half, code)
    }

    /// The child is not reaped before `bury`, so that its process id cannot belong to anybody else here.
    fn send(&mut self, half: Half, signal: Signal) {
        let pid =
            self.process(half).child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid else { return };
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            self.context.note(&format!("dwcp server: cannot signal {}: {error}", half.program()));
        }
    }

    fn process(&mut self, half: Half) -> &mut Process {
        match half {
            Half::Dataplane => &mut self.dataplane,
            Half::Control => &mut self.control,
        }
    }
}

/// Waits for the end of a half; for ever where none runs.
async fn ended(process: &mut Process) -> std::io::Result<ExitStatus> {
    match &mut process.child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn elapsed(started: Instant, due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep_until(started + due).await,
        None => std::future::pending().await,
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn finish(reason: Reason) -> Result<Code, Failure> {
    match reason {
        Reason::Stopped => Ok(Code::Ok),
        Reason::Configuration(half) => {
            Err(Failure::new(Code::Configuration, format!("{} refuses the configuration", half.program()))
                .with_hint("it says why above; `dwcp config validate` checks the file alone"))
        }
    }
}

struct Directories {
    state: PathBuf,
    runtime: PathBuf,
}

fn directories(arguments: &Server) -> Result<Directories, Failure> {
    let state = make(&arguments.state_dir)?;
    if let Some(runtime) = arguments.runtime_dir.clone().or_else(service_runtime_directory) {
        return Ok(Directories { state, runtime: make(&runtime)? });
    }
    let places = crate::endpoint::RUNTIME_DIRECTORIES;
    let mut failure = None;
    for place in places {
        match make(Path::new(place)) {
            Ok(runtime) => return Ok(Directories { state, runtime }),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::general("no runtime directory")))
}

/// The first directory that a service manager made for us (systemd.exec(5), RuntimeDirectory=).
fn service_runtime_directory() -> Option<PathBuf> {
    let directories = std::env::var_os("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&directories).next().filter(|directory| !directory.as_os_str().is_empty())
}

/// The directory as an absolute path, made where it is missing.
fn make(directory: &Path) -> Result<PathBuf, Failure> {
    let made = std::fs::create_dir_all(directory).and_then(|()| std::path::absolute(directory));
    let made = made.and_then(|path| {
        nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK)?;
        Ok(path)
    });
    made.map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Code::Permission,
            _ => Code::General,
        };
        Failure::new(code, format!("cannot use {}: {error}", directory.display()))
            .with_hint("name directories of your own with --state-dir and --runtime-dir")
    })
}

fn command_line(program: PathBuf, arguments: &Server, directories: &Directories) -> Vec<OsString> {
    let mut command = vec![program.into_os_string()];
    if let Some(config) = configuration::locate(arguments.config.as_deref()) {
        command.extend(["--config".into(), config.into_os_string()]);
    }
    command.extend(["--state-dir".into(), directories.state.clone().into_os_string()]);
    command.extend(["--runtime-dir".into(), directories.runtime.clone().into_os_string()]);
    command
}
