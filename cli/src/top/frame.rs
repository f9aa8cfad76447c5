//! What `dwcp top` shows: a pure function of what the daemon said, what it said before, and the size of the screen.
use std::collections::VecDeque;

use dwcp_api::{CoreFigures, Health, HealthStatus, PeerFigures, Status, Transfer};

use crate::cores::{self, Column};
use crate::output::{Colour, Tone, plain};
use crate::table::{Side, Table};
use crate::units;

/// Columns and lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) height: usize,
}

/// All answers of one moment.
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) health: Health,
    pub(super) peers: Vec<PeerFigures>,
    /// What moves first.
    pub(super) transfers: Vec<Transfer>,
}

/// What is known, and the rates of the last moments.
#[derive(Default)]
pub(super) struct View {
    latest: Option<Snapshot>,
    lost: Option<String>,
    sending: VecDeque<u64>,
    receiving: VecDeque<u64>,
}

impl View {
    /// The next moment.
    pub(super) fn take(&mut self, snapshot: Snapshot) {
        let sum = |rate: fn(&CoreFigures) -> u64| snapshot.status.cores.iter().map(rate).sum();
        remember(&mut self.sending, sum(|core| core.send_rate_bytes_per_s));
        remember(&mut self.receiving, sum(|core| core.receive_rate_bytes_per_s));
        self.latest = Some(snapshot);
        self.lost = None;
    }

    /// Nobody answered.
    pub(super) fn lose(&mut self, why: String) {
        remember(&mut self.sending, 0);
        remember(&mut self.receiving, 0);
        self.lost = Some(why);
    }

    /// As many lines as the screen has at most, none longer than it is wide.
    pub(super) fn lines(&self, size: Size, is_paused: bool, colour: Colour) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.latest {
            Some(snapshot) => self.instrument(snapshot, size, &mut lines),
            None => lines.push("no answer yet".to_owned()),
        }
        lines.truncate(size.height.saturating_sub(1));
        for line in &mut lines {
            *line = cut(line, size.width);
        }
        if let (Some(snapshot), Some(first)) = (&self.latest, lines.first_mut()) {
            *first = painted(first, snapshot, colour);
        }
        lines.resize(size.height.saturating_sub(1), String::new());
        let foot = match (&self.lost, is_paused) {
            (Some(why), _) => colour.paint(Tone::Bad, &cut(&plain(why), size.width)),
            (None, true) => colour.paint(Tone::Odd, &cut("paused; p goes on, q quits", size.width)),
            (None, false) => cut("q quits, p pauses", size.width),
        };
        lines.push(foot);
        lines
    }

    fn instrument(&self, snapshot: &Snapshot, size: Size, lines: &mut Vec<String>) {
        let Snapshot { status, health, peers, transfers } = snapshot;
        let head = format!(
            "{}  {}  up {}  {} lanes  {} of {} peers up  {} transfers active  {}",
            plain(&status.node_id),
            health.status.name(),
            units::seconds(status.uptime_seconds),
            status.streams,
            status.peers.up,
            status.peers.total,
            status.transfers_active,
            status.mode.name(),
        );
        lines.push(head);
        lines.push(trace("SENDING", &self.sending, size.width));
        lines.push(trace("RECEIVING", &self.receiving, size.width));
        // Cores and peers leave at least half of the screen to transfers.
        let room = size.height.saturating_sub(9) / 2;
        section(lines, &cores::table(&status.cores, &[BUSY]), room.div_ceil(2));
        section(lines, &peer_table(peers), room.div_ceil(2));
        section(lines, &transfer_table(transfers), usize::MAX);
    }
}

/// A blank line, the head, and so many rows; the rest is counted.
fn section(lines: &mut Vec<String>, table: &str, rows_max: usize) {
    let rows: Vec<&str> = table.lines().collect();
    lines.push(String::new());
    lines.extend(rows.iter().take(rows_max.saturating_add(1)).map(|row| (*row).to_owned()));
    let hidden = rows.len().saturating_sub(rows_max.saturating_add(1));
    if hidden > 0 {
        lines.push(format!("… {hidden} more"));
    }
}

/// The rate now and its course, newest at the right, against the highest that is shown.
fn trace(name: &str, rates: &VecDeque<u64>, width: usize) -> String {
    let now = units::rate(rates.back().copied().unwrap_or(0));
    let head = format!("{name:<9} {now:>11}  ");
    let room = width.saturating_sub(head.chars().count() + PEAK_WIDTH);
    let shown = rates.iter().skip(rates.len().saturating_sub(room));
    let peak = shown.clone().max().copied().unwrap_or(0);
    let bars: String = shown.map(|rate| bar(*rate, peak)).collect();
    format!("{head}{bars:<room$}  peak {}", units::rate(peak))
}

fn bar(rate: u64, peak: u64) -> char {
    if rate == 0 || peak == 0 {
        return ' ';
    }
    let eighths = (u128::from(rate) * BARS.len() as u128).div_ceil(u128::from(peak));
    BARS[(eighths as usize).clamp(1, BARS.len()) - 1]
}

/// How busy a core is, as a bar.
const BUSY: Column = ("BUSY", Side::Left, |core| core.busy_ratio.map_or_else(|| "-".to_owned(), gauge));

fn gauge(share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let full = (share * GAUGE_WIDTH as f64).round() as usize;
    format!("{}{} {:3.0} %", "█".repeat(full), "·".repeat(GAUGE_WIDTH - full), share * 100.0)
}

fn peer_table(peers: &[PeerFigures]) -> String {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("STATE", Side::Left),
        ("LANES", Side::Right),
        ("BUSY", Side::Right),
        ("RTT", Side::Right),
        ("DELIVERED", Side::Right),
        ("CEILING", Side::Right),
        ("RESENT", Side::Right),
    ]);
    for peer in peers {
        let none = || "-".to_owned();
        let path = peer.path.as_ref();
        let rtt = path.filter(|path| path.rtt_us > 0);
        table.row([
            plain(&peer.name),
            peer.state.name().to_owned(),
            peer.lanes.to_string(),
            path.map_or_else(none, |path| path.busy_lanes.to_string()),
            rtt.map_or_else(none, |path| format!("{:.1} ms", f64::from(path.rtt_us) / 1000.0)),
            path.map_or_else(none, |path| units::rate(path.delivered_bytes_per_s)),
            path.and_then(|path| path.ceiling_bytes_per_s).map_or_else(none, units::rate),
            path.map_or_else(none, |path| format!("{:.1} %", path.resent_share * 100.0)),
        ]);
    }
    table.render()
}

fn transfer_table(transfers: &[Transfer]) -> String {
    let mut table = Table::new(&[
        ("TRANSFER", Side::Right),
        ("STATE", Side::Left),
        ("PEER", Side::Left),
        ("DONE", Side::Left),
        ("RATE", Side::Right),
        ("LEFT", Side::Right),
        ("WHAT", Side::Left),
    ]);
    for transfer in transfers {
        let counts = &transfer.counts;
        let share = counts.bytes_done as f64 / counts.bytes_total.max(1) as f64;
        let moves = !transfer.state.is_final();
        table.row([
            transfer.id.to_string(),
            transfer.state.name().to_owned(),
            plain(&transfer.peer),
            if moves { gauge(share) } else { units::bytes(counts.bytes_done) },
            if moves { units::rate(transfer.rate_bytes_per_s) } else { "-".to_owned() },
            transfer.eta_seconds.filter(|_| moves).map_or_else(|| "-".to_owned(), units::seconds),
            transfer.sources.first().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    table.render()
}

/// The word for health in its colour; the line was cut before, so that no sequence is.
fn painted(line: &str, snapshot: &Snapshot, colour: Colour) -> String {
    let tone = match snapshot.health.status {
        HealthStatus::Healthy => Tone::Good,
        HealthStatus::Degraded => Tone::Odd,
        HealthStatus::Unhealthy => Tone::Bad,
    };
    let word = format!("  {}  ", snapshot.health.status.name());
    line.replacen(&word, &format!("  {}  ", colour.paint(tone, word.trim())), 1)
}

/// Counted in characters, as tables are.
fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

fn remember(rates: &mut VecDeque<u64>, rate: u64) {
    rates.push_back(rate);
    if rates.len() > HISTORY_MAX {
        rates.pop_front();
    }
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const GAUGE_WIDTH: usize = 10;
/// Two blanks, `peak`, a blank and a rate.
const PEAK_WIDTH: usize = 17;
/// More than the widest screen shows.
const HISTORY_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_is_drawn_against_its_peak() {
        let rates = [0, 1, 500, 1000, 250].into();
        let line = trace("SENDING", &rates, 50);
        assert_eq!(line, "SENDING       250 B/s   ▁▄█▂       peak 1000 B/s");
        assert!(trace("SENDING", &VecDeque::new(), 10).contains("0 B/s"));
    }

    #[test]
    fn the_newest_stay_where_room_is_short() {
        let rates: VecDeque<u64> = (0..100).collect();
        let line = trace("SENDING", &rates, 45);
        assert!(
            line.contains("peak 99 B/s") && line.chars().filter(|glyph| BARS.contains(glyph)).count() == 5
        );
    }

    #[test]
    fn nothing_known_is_said() {
        let mut view = View::default();
        view.lose("control\x1b[2J is away".to_owned());
        let lines = view.lines(Size { width: 20, height: 4 }, false, Colour::Never);
        assert_eq!(lines, ["no answer yet", "", "", "control\\u{1b}[2J is "]);
        assert_eq!(view.lines(Size { width: 0, height: 0 }, true, Colour::Never), [""]);
    }
}
