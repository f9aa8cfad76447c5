//! `dwcp top`: the node as an instrument, drawn again and again. [`frame`] makes lines of what is known, [`terminal`] has
//! the screen and gives it back; this file asks the daemon and hears keys.
mod frame;
mod terminal;

use std::io::{IsTerminal, Read};

use dwcp_api::client::{Client, ClientError};
use dwcp_api::{TransferQuery, TransferState};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::arguments::Top;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;
use frame::{Size, Snapshot, View};
use terminal::Terminal;

/// Until somebody presses `q`, or so often as was asked for.
pub(crate) async fn run(context: &Context, arguments: &Top) -> Result<Code, Failure> {
    if context.json {
        return Err(Failure::usage("top draws for people; `dwcp status --json --watch` is for programs"));
    }
    let client = context.client()?;
    let terminal = match std::io::stdin().is_terminal() && output::stdout_is_terminal() {
        true => Some(Terminal::enter(std::io::stdin(), std::io::stdout())?),
        false => None,
    };
    let mut top = Driver { context, client, terminal, view: View::default(), is_paused: false };
    let code = top.follow(arguments).await;
    drop(top);
    code
}

struct Driver<'a> {
    context: &'a Context,
    client: Client,
    terminal: Option<Terminal>,
    view: View,
    is_paused: bool,
}

impl Driver<'_> {
    async fn follow(&mut self, arguments: &Top) -> Result<Code, Failure> {
        let no_signals = |error| Failure::general(format!("cannot wait for signals: {error}"));
        let mut resized = signal(SignalKind::window_change()).map_err(no_signals)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut keys = self.terminal.is_some().then(keys);
        let mut ticks = tokio::time::interval(arguments.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut left = arguments.count;
        while left != Some(0) {
            tokio::select! {
                _ = ticks.tick() => {
                    if !self.is_paused {
                        self.ask().await;
                        left = left.map(|left| left - 1);
                    }
                }
                _ = resized.recv() => {}
                _ = terminated.recv() => return Ok(Code::Ok),
                _ = interrupted.recv() => return Ok(Code::Interrupted),
                key = next(&mut keys) => match key {
                    // 3: Ctrl-C, which raises no signal while keys come one by one. None: the terminal is gone.
                    Some(b'q' | b'Q' | 3) | None => return Ok(Code::Ok),
                    Some(b'p' | b' ') => self.is_paused = !self.is_paused,
                    Some(_) => continue,
                },
            }
            self.draw()?;
        }
        Ok(Code::Ok)
    }

    /// A daemon that does not answer is said to be away, and what was known of it stays on the screen.
    async fn ask(&mut self) {
        match snapshot(&self.client).await {
            Ok(snapshot) => self.view.take(snapshot),
            Err(error) => self.view.lose(Failure::from(error).message),
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let lines = self.view.lines(size(), self.is_paused, self.context.colour);
        match &mut self.terminal {
            Some(terminal) => terminal.draw(&lines),
            None => output::result(&(lines.join("\n") + "\n\n")),
        }
    }
}

async fn snapshot(client: &Client) -> Result<Snapshot, ClientError> {
    let query = TransferQuery { state: None, limit: Some(TRANSFERS_MAX), cursor: None };
    let mut transfers = client.transfers(&query).await?.transfers;
    // What has ended stands below what moves.
    transfers.sort_by_key(|transfer| (transfer.state.is_final(), transfer.state != TransferState::Running));
    Ok(Snapshot {
        status: client.status().await?,
        health: client.health().await?,
        peers: client.peers().await?.peers,
        transfers,
    })
}

/// The terminal's, or what the environment says, or the size of old.
fn size() -> Size {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match terminal_size::terminal_size() {
        Some((width, height)) => Size { width: width.0.into(), height: height.0.into() },
        None => Size { width: number("COLUMNS").unwrap_or(80), height: number("LINES").unwrap_or(24) },
    }
}

/// Bytes from the keyboard. The thread waits in a read that nothing ends but the process.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    let read = move || {
        let mut bytes = [0; KEYS_MAX];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            for key in &bytes[..count] {
                if sender.blocking_send(*key).is_err() {
                    return;
                }
            }
        }
    };
    // Without the thread the channel is closed, which ends the command.
    drop(std::thread::Builder::new().name("keys".to_owned()).spawn(read));
    keys
}

/// `None` once there can be no more keys; for ever where there never were any.
async fn next(keys: &mut Option<mpsc::Receiver<u8>>) -> Option<u8> {
    match keys {
        Some(keys) => keys.recv().await,
        None => std::future::pending().await,
    }
}

const TRANSFERS_MAX: u16 = 50;
const KEYS_MAX: usize = 16;
