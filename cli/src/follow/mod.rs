//! Follows a transfer to its end. `send`, `fetch` and `transfers follow` use it. The transfer belongs to the daemon:
//! neither Ctrl-C nor a lost connection ends it.
pub(crate) mod changes;
mod display;
mod source;

use std::time::Duration;

use dwcp_api::client::Client;
use dwcp_api::{Direction, Transfer, TransferId, TransferState};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::MissedTickBehavior;

use crate::arguments::Following;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::units;
use display::Display;
use source::Report;

/// Follows `id` and prints how it ended.
pub(crate) async fn run(
    context: &Context,
    client: Client,
    id: TransferId,
    following: Following,
) -> Result<Code, Failure> {
    let interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::general(format!("cannot wait for Ctrl-C: {error}")))?;
    let reports = source::spawn(client.clone(), id, context.return_timeout());
    let display = Display::new(context, following.progress);
    Follower { context, client, id, following, interrupts, display, cancelling: false }.run(reports).await
}

struct Follower<'a> {
    context: &'a Context,
    client: Client,
    id: TransferId,
    following: Following,
    interrupts: Signal,
    display: Display,
    cancelling: bool,
}

impl Follower<'_> {
    async fn run(mut self, mut reports: Receiver<Result<Report, Failure>>) -> Result<Code, Failure> {
        let mut ticks = tokio::time::interval(LINE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(Ok(Report::Progress(transfer))) => self.display.progress(&transfer)?,
                    Some(Ok(Report::Finished(transfer))) => return self.finish(&transfer),
                    Some(Ok(Report::Away(reason))) => {
                        self.display.away(self.context, &format!("{reason}; looking for it again"));
                    }
                    Some(Err(failure)) => {
                        self.display.clear();
                        return Err(self.with_the_way_back(failure));
                    }
                    None => return Err(Failure::general("following ended without a report")),
                },
                _ = self.interrupts.recv() => {
                    if let Some(code) = self.interrupt().await? {
                        return Ok(code);
                    }
                }
                _ = ticks.tick() => self.display.tick(),
            }
        }
    }

    /// The first Ctrl-C leaves, or cancels and goes on following where that was asked for; the second leaves.
    async fn interrupt(&mut self) -> Result<Option<Code>, Failure> {
        let id = self.id;
        if self.following.cancel_on_interrupt && !self.cancelling {
            self.cancelling = true;
            self.display
                .note(self.context, &format!("cancelling transfer {id}; Ctrl-C again leaves at once"));
            tokio::select! {
                cancelled = self.client.cancel_transfer(id) => {
                    cancelled?;
                    return Ok(None);
                }
                _ = self.interrupts.recv() => {}
            }
        }
        self.display.clear();
        self.context.note(&format!(
            "transfer {id} goes on in the daemon\n  follow it: dwcp transfers follow {id}\n  cancel it: dwcp transfers cancel {id}"
        ));
        Ok(Some(Code::Interrupted))
    }

    fn finish(mut self, transfer: &Transfer) -> Result<Code, Failure> {
        self.display.finish(transfer)?;
        if !self.display.is_json() {
            if self.context.json {
                output::json(transfer)?;
            } else {
                self.print_end(transfer)?;
            }
        }
        if self.cancelling && transfer.state == TransferState::Cancelled {
            return Ok(Code::Interrupted);
        }
        Ok(Code::of_transfer(transfer.state))
    }

    fn print_end(&self, transfer: &Transfer) -> Result<(), Failure> {
        let id = transfer.id;
        for note in &transfer.notes {
            output::error(&format!("dwcp: note: {}", plain(note)));
        }
        for failure in failures(transfer) {
            output::error(&format!("dwcp: failed: {failure}"));
        }
        match transfer.state {
            TransferState::Failed | TransferState::Cancelled => {
                let why =
                    transfer.error.as_deref().map_or_else(String::new, |error| format!(": {}", plain(error)));
                output::error(&format!("dwcp: transfer {id} {}{why}", transfer.state.name()));
                Ok(())
            }
            TransferState::Partial => {
                if let Some(error) = &transfer.error {
                    output::error(&format!("dwcp: transfer {id} is partial: {}", plain(error)));
                }
                output::result(&summary(transfer, self.context.verbose))
            }
            TransferState::Queued
            | TransferState::Connecting
            | TransferState::Running
            | TransferState::Finishing
            | TransferState::Interrupted
            | TransferState::Paused
            | TransferState::Done => output::result(&summary(transfer, self.context.verbose)),
        }
    }

    fn with_the_way_back(&self, failure: Failure) -> Failure {
        if failure.code != Code::Unreachable {
            return failure;
        }
        let id = self.id;
        failure.with_hint(format!(
            "transfer {id} is kept by the daemon and goes on with it: `dwcp transfers follow {id}` when it is back"
        ))
    }
}

/// One line per failed entry, the last one saying how many more there are.
pub(crate) fn failures(transfer: &Transfer) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for failure in &transfer.failures {
        let error = plain(&failure.error);
        lines.push(failure.path.as_ref().map_or_else(|| error.clone(), |path| format!("{path}: {error}")));
    }
    let unlisted = transfer.counts.failures.saturating_sub(transfer.failures.len() as u64);
    if unlisted > 0 && !transfer.failures.is_empty() {
        lines.push(format!("and {unlisted} more"));
    }
    lines
}

fn summary(transfer: &Transfer, names: bool) -> String {
    let Some(changes) = &transfer.changes else { return moved(transfer) };
    let listed = if names { changes::names(changes) } else { String::new() };
    let moved = if transfer.options.dry_run { String::new() } else { moved(transfer) };
    format!("{listed}{moved}{}\n", changes::line(changes, transfer.options.dry_run))
}

fn moved(transfer: &Transfer) -> String {
    let counts = &transfer.counts;
    let peer = plain(&transfer.peer);
    let way = match transfer.direction {
        Direction::Send => format!("sent to {peer}:{}", transfer.destination),
        Direction::Fetch => format!("fetched from {peer} into {}", transfer.destination),
    };
    format!(
        "{way}: {} in {}, {} ({}, ratio {}, {} lanes)\n",
        units::bytes(counts.bytes_done),
        units::count(counts.entries_done, "entry", "entries"),
        units::elapsed(transfer.elapsed_seconds),
        units::rate(transfer.rate_bytes_per_s),
        units::ratio(transfer.ratio),
        transfer.lanes,
    )
}

const LINE_INTERVAL: Duration = Duration::from_secs(1);
