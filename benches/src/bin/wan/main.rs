//! `bench wan`: goodput over emulated long links, ours as it comes out of the box against iperf3 (cubic and bbr, one to 32
//! streams, buffers tuned by hand), rsync's daemon, rclone and aria2. Three kinds of rows: ten seconds of one large
//! object; one file of 200 MB between ends that already talk; 10,000 files of 4 KiB. What is printed is shares of the
//! link's own rate, so that rows of one run compare; a row during which the emulator was late says so and counts for
//! nothing.
//!
//! Words behind the name select the rows whose label holds all of them. `DWCP_BENCH_SECONDS` is the length of a stream.
mod ours;
mod peers;
mod row;

use anyhow::{Result, bail};
use dwcp_benches::report::load;
use dwcp_benches::road::{Congestion, LINKS, Road, Tuning};
use dwcp_benches::scratch::Scratch;
use dwcp_benches::setting;
use dwcp_wan::unavailable;
use row::{Outcome, Row, print_header};

fn main() -> Result<()> {
    if let Some(reason) = unavailable() {
        println!("bench wan: skipped: {reason}");
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let scratch = Scratch::new()?;
    let mut bench =
        Bench { seconds: setting("DWCP_BENCH_SECONDS", 10).clamp(3, 600), scratch, rows: Vec::new() };
    let all = bench.plan();
    let selected: Vec<_> =
        all.iter().filter(|planned| words.iter().all(|word| planned.label().contains(word))).collect();
    if selected.is_empty() {
        let labels: Vec<String> = all.iter().map(Planned::label).collect();
        bail!("no row holds {words:?}; there are:\n{}", labels.join("\n"));
    }
    print_header();
    for planned in selected {
        bench.run(planned)?;
    }
    println!(
        "one run, load {}; shares are of the link's rate, of which TCP can carry 0.965 x (1 - loss)",
        load()
    );
    let rows: Vec<_> = bench.rows.iter().map(Row::json).collect();
    println!("{}", serde_json::json!({ "bench": "wan", "seconds": bench.seconds, "rows": rows }));
    Ok(())
}

struct Bench {
    seconds: u64,
    scratch: Scratch,
    rows: Vec<Row>,
}

/// A row before it is measured.
#[derive(Debug, Clone, Copy)]
struct Planned {
    link: usize,
    kind: Kind,
    tool: Tool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Stream,
    File,
    Tree,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Tool {
    Iperf3(u16, Congestion, Tuning),
    Ours(Congestion),
    /// Our one file of as many bytes as the tree has.
    OursPacked,
    Rsync(Congestion, Tuning),
    Rclone(Congestion, Tuning),
    Aria2(Congestion, Tuning),
}

impl Planned {
    fn label(&self) -> String {
        let kind = match self.kind {
            Kind::Stream => "stream",
            Kind::File => "file",
            Kind::Tree => "tree",
        };
        let tool = match self.tool {
            Tool::Iperf3(streams, congestion, tuning) => format!("iperf3 -P{streams}, {congestion}{tuning}"),
            Tool::Ours(congestion) => format!("dwcp, {congestion}"),
            Tool::OursPacked => "dwcp, one file".to_owned(),
            Tool::Rsync(congestion, tuning) => format!("rsync, {congestion}{tuning}"),
            Tool::Rclone(congestion, tuning) => format!("rclone, {congestion}{tuning}"),
            Tool::Aria2(congestion, tuning) => format!("aria2, {congestion}{tuning}"),
        };
        format!("{kind}, {}, {tool}", LINKS[self.link].name)
    }
}

impl Bench {
    fn plan(&self) -> Vec<Planned> {
        use Congestion::{Bbr, Cubic};
        let mut all = Vec::new();
        for link in 0..LINKS.len() {
            let stream = |tool| Planned { link, kind: Kind::Stream, tool };
            all.extend([stream(Tool::Ours(Bbr)), stream(Tool::Ours(Cubic))]);
            for congestion in [Cubic, Bbr] {
                let streams = [1, 8, 32];
                all.extend(streams.map(|count| stream(Tool::Iperf3(count, congestion, Tuning::ByHand))));
            }
            all.push(stream(Tool::Iperf3(1, Bbr, Tuning::None)));
            all.push(stream(Tool::Rsync(Bbr, Tuning::None)));
        }
        for link in 0..LINKS.len() {
            let file = |tool| Planned { link, kind: Kind::File, tool };
            all.extend([file(Tool::Ours(Bbr)), file(Tool::Ours(Cubic))]);
            for (congestion, tuning) in [(Bbr, Tuning::None), (Bbr, Tuning::ByHand), (Cubic, Tuning::ByHand)]
            {
                let peers = [Tool::Rsync, Tool::Rclone, Tool::Aria2];
                all.extend(peers.map(|peer| file(peer(congestion, tuning))));
            }
        }
        let tools = [Tool::Ours(Bbr), Tool::OursPacked, Tool::Rsync(Bbr, Tuning::None)];
        all.extend(tools.map(|tool| Planned {
            link: dwcp_benches::road::LINK_FOR_TREES,
            kind: Kind::Tree,
            tool,
        }));
        all
    }

    /// Measures a row on a link of its own, so that nothing is remembered from another.
    fn run(&mut self, planned: &Planned) -> Result<()> {
        let link = &LINKS[planned.link];
        let road = Road::lay(link)?;
        let outcome = match planned.kind {
            Kind::Stream => self.stream(&road, planned.tool),
            Kind::File => self.file(&road, planned.tool),
            Kind::Tree => self.tree(&road, planned.tool),
        };
        let label = planned.label();
        let Some(outcome) = outcome? else {
            println!("{label}: skipped: its program is not installed");
            return Ok(());
        };
        let row = Row::new(label, link, outcome, &road.close()?);
        row.print();
        self.rows.push(row);
        Ok(())
    }

    fn stream(&self, road: &Road, tool: Tool) -> Result<Option<Outcome>> {
        match tool {
            Tool::Iperf3(streams, congestion, tuning) => {
                road.tune(tuning)?;
                peers::iperf3(road, self.seconds, streams, congestion)
            }
            Tool::Rsync(congestion, tuning) => {
                road.prepare(congestion, tuning)?;
                let source = self.source("large", self.large_bytes(road))?;
                peers::rsync_for(road, &self.scratch, &source, self.seconds)
            }
            Tool::Ours(congestion) => {
                let source = self.source("large", self.large_bytes(road))?;
                ours::stream(road, &self.scratch, &source, self.seconds, congestion).map(Some)
            }
            Tool::OursPacked | Tool::Rclone(..) | Tool::Aria2(..) => Ok(None),
        }
    }

    fn file(&self, road: &Road, tool: Tool) -> Result<Option<Outcome>> {
        let source = self.source("medium", FILE_BYTES)?;
        match tool {
            Tool::Ours(congestion) => {
                let warm = self.source("warm", WARM_BYTES)?;
                ours::send(road, &self.scratch, &warm, (&source, FILE_BYTES), congestion).map(Some)
            }
            Tool::Rsync(congestion, tuning) => {
                road.prepare(congestion, tuning)?;
                peers::rsync(road, &self.scratch, &source, FILE_BYTES)
            }
            Tool::Rclone(congestion, tuning) => {
                road.prepare(congestion, tuning)?;
                peers::rclone(road, &self.scratch, &source, FILE_BYTES)
            }
            Tool::Aria2(congestion, tuning) => {
                road.prepare(congestion, tuning)?;
                peers::aria2(road, &self.scratch, &source, FILE_BYTES)
            }
            Tool::Iperf3(..) | Tool::OursPacked => Ok(None),
        }
    }

    fn tree(&self, road: &Road, tool: Tool) -> Result<Option<Outcome>> {
        let bytes = TREE_FILES * TREE_FILE_BYTES;
        let warm = self.source("warm", WARM_BYTES)?;
        match tool {
            Tool::Ours(congestion) => {
                let tree = self.small_files()?;
                ours::send(road, &self.scratch, &warm, (&tree, bytes), congestion).map(Some)
            }
            Tool::OursPacked => {
                let file = self.source("packed", bytes)?;
                ours::send(road, &self.scratch, &warm, (&file, bytes), Congestion::Bbr).map(Some)
            }
            Tool::Rsync(congestion, tuning) => {
                road.prepare(congestion, tuning)?;
                peers::rsync(road, &self.scratch, &self.small_files()?, bytes)
            }
            Tool::Iperf3(..) | Tool::Rclone(..) | Tool::Aria2(..) => Ok(None),
        }
    }

    /// More than the link can carry in the time.
    fn large_bytes(&self, road: &Road) -> u64 {
        road.link.rate_bits_per_s / 8 * (self.seconds + 1)
    }

    /// A file of at least so many bytes, made once.
    fn source(&self, name: &str, bytes: u64) -> Result<std::path::PathBuf> {
        let path = self.scratch.path().join(name);
        let is_there = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= bytes);
        if is_there { Ok(path) } else { self.scratch.file(name, bytes) }
    }

    fn small_files(&self) -> Result<std::path::PathBuf> {
        let path = self.scratch.path().join("small");
        if path.exists() { Ok(path) } else { self.scratch.equal_files("small", TREE_FILES, TREE_FILE_BYTES) }
    }
}

const FILE_BYTES: u64 = 200_000_000;
/// Enough that every lane has carried something.
const WARM_BYTES: u64 = 40_000_000;
const TREE_FILES: u64 = 10_000;
const TREE_FILE_BYTES: u64 = 4 << 10;
