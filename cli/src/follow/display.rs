//! How progress looks: a bar, lines, JSON or nothing. It shows what the daemon reports and measures nothing itself.
use dwcp_api::{Transfer, TransferState};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Progress;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{self, plain};
use crate::units;

/// One way of showing progress.
pub(super) enum Display {
    Bar(ProgressBar),
    /// The latest report, shown at each tick.
    Lines(Option<String>),
    Json,
    Silent,
}

impl Display {
    pub(super) fn new(context: &Context, wanted: Progress) -> Self {
        match wanted {
            Progress::Json => Self::Json,
            Progress::None => Self::Silent,
            Progress::Auto | Progress::Bar | Progress::Line if context.quiet => Self::Silent,
            Progress::Bar => Self::bar(),
            Progress::Line => Self::Lines(None),
            Progress::Auto if output::stderr_is_terminal() => Self::bar(),
            Progress::Auto => Self::Lines(None),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }

    /// Shows, or keeps for the next tick, where the transfer is.
    pub(super) fn progress(&mut self, transfer: &Transfer) -> Result<(), Failure> {
        match self {
            Self::Bar(bar) => {
                bar.set_length(transfer.counts.bytes_total.max(1));
                bar.set_position(transfer.counts.bytes_done);
                bar.set_message(bar_text(transfer));
            }
            Self::Lines(latest) => *latest = Some(line(transfer)),
            Self::Json => output::json_line(transfer)?,
            Self::Silent => {}
        }
        Ok(())
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        if let Self::Lines(Some(latest)) = self {
            output::error(latest);
        }
    }

    /// Shows the last state and takes the bar away.
    pub(super) fn finish(&mut self, transfer: &Transfer) -> Result<(), Failure> {
        if let Self::Lines(_) = self {
            output::error(&line(transfer));
        }
        if self.is_json() {
            output::json_line(transfer)?;
        }
        self.clear();
        Ok(())
    }

    /// Says something without disturbing the bar.
    pub(super) fn note(&self, context: &Context, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| context.note(text)),
            Self::Lines(_) | Self::Json | Self::Silent => context.note(text),
        }
    }

    /// The daemon went away: what was reported last is no longer news.
    pub(super) fn away(&mut self, context: &Context, text: &str) {
        if let Self::Lines(latest) = self {
            *latest = None;
        }
        self.note(context, text);
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }

    fn bar() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(BAR_HZ));
        // The template is a constant; without it the default bar is shown.
        if let Ok(style) = ProgressStyle::with_template("[{bar:24}] {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::Bar(bar)
    }
}

fn bar_text(transfer: &Transfer) -> String {
    let left = match (transfer.state, transfer.eta_seconds) {
        (TransferState::Running, Some(eta)) => format!("{} left", units::seconds(eta)),
        (state, _) => state.name().to_owned(),
    };
    let done = units::bytes(transfer.counts.bytes_done);
    let rate = units::rate(transfer.rate_bytes_per_s);
    format!("{done} of {}  {rate}  ratio {}  {left}", total(transfer), units::ratio(transfer.ratio))
}

/// `transfer 7 running: 44 %, 1.2 GiB of 2.7 GiB, 3 of 10 entries, 120 MiB/s, ratio 2.31, 12 s left, 32 lanes`
fn line(transfer: &Transfer) -> String {
    let counts = &transfer.counts;
    let mut text = format!(
        "transfer {} {}: {}, {} of {}, {} of {} entries, {}, ratio {}",
        transfer.id,
        transfer.state.name(),
        share(transfer),
        units::bytes(counts.bytes_done),
        total(transfer),
        counts.entries_done,
        counts.entries_total,
        units::rate(transfer.rate_bytes_per_s),
        units::ratio(transfer.ratio),
    );
    if let (TransferState::Running, Some(eta)) = (transfer.state, transfer.eta_seconds) {
        text.push_str(&format!(", {} left", units::seconds(eta)));
    }
    text.push_str(&format!(", {} lanes", transfer.lanes));
    if transfer.attempt > 1 {
        text.push_str(&format!(", attempt {}", transfer.attempt));
    }
    if let (TransferState::Interrupted, Some(error)) = (transfer.state, &transfer.error) {
        text.push_str(&format!(" ({})", plain(error)));
    }
    text
}

/// The total, with a `+` while it may grow.
fn total(transfer: &Transfer) -> String {
    let growing = if transfer.scanned || transfer.state.is_final() { "" } else { "+" };
    format!("{}{growing}", units::bytes(transfer.counts.bytes_total))
}

/// Done in percent, rounded down so that 100 % means all.
fn share(transfer: &Transfer) -> String {
    let counts = &transfer.counts;
    if counts.bytes_total == 0 {
        return if transfer.state == TransferState::Done { "100 %".to_owned() } else { "0 %".to_owned() };
    }
    let percent = u128::from(counts.bytes_done) * 100 / u128::from(counts.bytes_total);
    format!("{} %", percent.min(100))
}

/// Redraws per second at most: a slow terminal must not hold up the reports.
const BAR_HZ: u8 = 10;
