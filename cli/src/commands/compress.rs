//! `dwcp compress analyze PATH`: what each codec would make of a file or a directory, at which speed on this machine, and
//! what that means for links. Needs no daemon; reads at most [`SAMPLE_BYTES`] and writes nothing.
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dwcp_hde::{
    Against, Auto, BlockCodec, Choice, Decoder, Encoder, Index, Limits, MemoryBaseline, SEGMENT_BYTES_MAX,
    encoded_length_max,
};
use serde::Serialize;

use crate::arguments::{Analyze, Compress};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::table::{Side, Table};
use crate::{output, units};

pub(super) fn run(context: &Context, command: &Compress) -> Result<Code, Failure> {
    let Compress::Analyze(arguments) = command;
    let sample = Sample::read(&arguments.path)?;
    let mut rows = Vec::new();
    for choice in choices() {
        rows.push(plain(&sample, choice)?);
    }
    if let Some(baseline) = &arguments.baseline {
        rows.push(delta(arguments, baseline)?);
    }
    let answer =
        Answer { schema: "dwcp.compress-analysis/1", files: sample.files, bytes: sample.bytes(), rows };
    if context.json {
        output::json(&answer)?;
    } else {
        output::result(&render(&answer))?;
    }
    Ok(Code::Ok)
}

/// Answer of `compress analyze --json`.
#[derive(Serialize)]
struct Answer {
    schema: &'static str,
    files: usize,
    bytes: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    codec: String,
    plain_bytes: u64,
    coded_bytes: u64,
    encode_bytes_per_s: u64,
    decode_bytes_per_s: u64,
    /// What one core and a link of each of [`LINKS_MBIT_PER_S`] bring across, whichever is slower.
    plain_bytes_per_s: [u64; LINKS_MBIT_PER_S.len()],
}

impl Row {
    fn new(codec: String, plain: u64, coded: u64, encode_s: f64, decode_s: f64) -> Self {
        let rate = |seconds: f64| (plain as f64 / seconds.max(1e-9)) as u64;
        let (encode, decode) = (rate(encode_s), rate(decode_s));
        let goodput = |mbit_per_s: u64| {
            let link = (mbit_per_s * 125_000) as f64 * plain as f64 / coded.max(1) as f64;
            encode.min(decode).min(link as u64)
        };
        Self {
            codec,
            plain_bytes: plain,
            coded_bytes: coded,
            encode_bytes_per_s: encode,
            decode_bytes_per_s: decode,
            plain_bytes_per_s: LINKS_MBIT_PER_S.map(goodput),
        }
    }
}

/// Blocks from a path.
struct Sample {
    blocks: Vec<Vec<u8>>,
    files: usize,
}

impl Sample {
    fn read(path: &Path) -> Result<Self, Failure> {
        let mut sample = Self { blocks: Vec::new(), files: 0 };
        let mut left = vec![path.to_owned()];
        let mut entries = 0;
        while let Some(path) = left.pop() {
            entries += 1;
            if sample.bytes() >= SAMPLE_BYTES || entries > ENTRIES_MAX {
                break;
            }
            let kind = fs::symlink_metadata(&path).map_err(|error| cannot_read(&path, &error))?.file_type();
            if kind.is_dir() {
                left.extend(children(&path)?);
            } else if kind.is_file() {
                sample.read_file(&path)?;
            }
        }
        if sample.blocks.is_empty() {
            return Err(Failure::usage(format!("{}: there are no bytes to look at", path.display())));
        }
        Ok(sample)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), Failure> {
        let mut file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        self.files += 1;
        while self.bytes() < SAMPLE_BYTES {
            let mut block = Vec::new();
            let mut part = Read::by_ref(&mut file).take(BLOCK_BYTES as u64);
            part.read_to_end(&mut block).map_err(|error| cannot_read(path, &error))?;
            if block.is_empty() {
                break;
            }
            self.blocks.push(block);
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

/// In the order of their names, so that two runs look at the same files.
fn children(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(path).map_err(|error| cannot_read(path, &error))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(|error| cannot_read(path, &error))?;
    paths.sort_by(|left, right| right.cmp(left));
    Ok(paths)
}

fn choices() -> Vec<Choice> {
    let zstd = [1, 3, 6, 9].into_iter().filter_map(|level| Choice::new(BlockCodec::Zstd, level).ok());
    [Choice::RAW, Choice::LZ4, Choice::SNAPPY].into_iter().chain(zstd).collect()
}

fn plain(sample: &Sample, choice: Choice) -> Result<Row, Failure> {
    let limits = limits(BLOCK_BYTES)?;
    let (mut encoder, mut decoder) = (Encoder::new(limits), Decoder::new(limits));
    let (mut coded, mut plain) = (vec![0; encoded_length_max(BLOCK_BYTES)], vec![0; BLOCK_BYTES]);
    let (mut bytes, mut encode_s, mut decode_s) = (0, 0.0, 0.0);
    for block in &sample.blocks {
        let start = Instant::now();
        let length = encoder.encode(block, choice, &mut coded).map_err(failed)?.length;
        encode_s += start.elapsed().as_secs_f64();
        let start = Instant::now();
        decoder.decode(&coded[..length], block.len() as u32, &mut plain).map_err(failed)?;
        decode_s += start.elapsed().as_secs_f64();
        bytes += length as u64;
    }
    let level = if choice.level() > 0 { format!(" {}", choice.level()) } else { String::new() };
    let codec = format!("{:?}{level}", choice.codec()).to_lowercase();
    Ok(Row::new(codec, sample.bytes(), bytes, encode_s, decode_s))
}

/// The first bytes of a file as differences to another.
fn delta(arguments: &Analyze, baseline: &Path) -> Result<Row, Failure> {
    let target = head(&arguments.path)?;
    let bytes = head(baseline)?;
    let known = Only(MemoryBaseline::new(&bytes));
    let limits = limits(dwcp_hde::BLOCK_PLAIN_MAX as usize)?;
    let (mut encoder, mut decoder) = (Encoder::new(limits), Decoder::new(limits));
    let index = Index::new(&bytes);
    let Some(against) = Against::whole(&known.0, &index) else {
        return Err(Failure::general("a baseline in memory has no bytes"));
    };
    let (mut blocks, mut spans, mut auto) = (Vec::new(), Vec::new(), Auto::new(3));
    let start = Instant::now();
    for segment in target.chunks(SEGMENT_BYTES_MAX) {
        auto.encode(&mut encoder, segment, &against, &mut blocks, &mut spans).map_err(failed)?;
    }
    let encode_s = start.elapsed().as_secs_f64();
    let mut plain = vec![0; target.len()];
    let start = Instant::now();
    let (mut at, mut out) = (0, 0);
    for span in spans {
        let block = &blocks[at..at + span.length];
        decoder.decode_with(block, span.plain_length as u32, &known, &mut plain[out..]).map_err(failed)?;
        (at, out) = (at + span.length, out + span.plain_length);
    }
    let decode_s = start.elapsed().as_secs_f64();
    Ok(Row::new("delta".to_owned(), target.len() as u64, blocks.len() as u64, encode_s, decode_s))
}

/// The only baseline that is known.
struct Only<'a>(MemoryBaseline<'a>);

impl dwcp_hde::Known for Only<'_> {
    fn baseline(&self, id: dwcp_hde::ContentId) -> Option<&dyn dwcp_hde::Baseline> {
        let known: &dyn dwcp_hde::Baseline = &self.0;
        (known.id() == id).then_some(known)
    }

    fn dictionary(&self, _id: dwcp_hde::ContentId) -> Option<&dwcp_hde::Dictionary> {
        None
    }
}

fn head(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
    let mut bytes = Vec::new();
    file.take(SAMPLE_BYTES).read_to_end(&mut bytes).map_err(|error| cannot_read(path, &error))?;
    Ok(bytes)
}

fn render(answer: &Answer) -> String {
    let mut table = Table::new(&[
        ("CODEC", Side::Left),
        ("BYTES", Side::Right),
        ("SAVED", Side::Right),
        ("ENCODE", Side::Right),
        ("DECODE", Side::Right),
        ("AT 100 MBIT/S", Side::Right),
        ("AT 1 GBIT/S", Side::Right),
        ("AT 10 GBIT/S", Side::Right),
    ]);
    for row in &answer.rows {
        let saved = 100.0 - 100.0 * row.coded_bytes as f64 / row.plain_bytes.max(1) as f64;
        let [slow, middle, fast] = row.plain_bytes_per_s.map(units::rate);
        table.row([
            row.codec.clone(),
            units::bytes(row.coded_bytes),
            format!("{saved:.1} %"),
            units::rate(row.encode_bytes_per_s),
            units::rate(row.decode_bytes_per_s),
            slow,
            middle,
            fast,
        ]);
    }
    let files = if answer.files == 1 { "1 file".to_owned() } else { format!("{} files", answer.files) };
    format!("{files}, {} looked at, one core\n{}", units::bytes(answer.bytes), table.render())
}

fn limits(plain_length_max: usize) -> Result<Limits, Failure> {
    Limits::new(plain_length_max as u32, 1000).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::general(error.to_string())
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::general(format!("cannot read {}: {error}", path.display()))
}

const LINKS_MBIT_PER_S: [u64; 3] = [100, 1000, 10_000];

/// Bytes that are looked at.
const SAMPLE_BYTES: u64 = 64 * 1024 * 1024;

/// Files and directories that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// As long as a chunk on the wire.
const BLOCK_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shrinks_and_a_small_change_shrinks_more() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let text: String =
            (0..40_000).map(|line| format!("line {line} says {}\n", line * 7919 % 1013)).collect();
        fs::write(&old, &text).unwrap();
        fs::write(&new, text.replace("line 777 ", "another line ")).unwrap();
        let sample = Sample::read(folder.path()).unwrap();
        assert_eq!(sample.files, 2);
        let raw = plain(&sample, Choice::RAW).unwrap();
        let zstd = plain(&sample, Choice::ZSTD_3).unwrap();
        assert!(raw.coded_bytes > raw.plain_bytes && zstd.coded_bytes * 2 < zstd.plain_bytes);
        let delta = delta(&Analyze { path: new, baseline: None }, &old).unwrap();
        assert!(delta.coded_bytes < 500, "{}", delta.coded_bytes);
    }

    #[test]
    fn nothing_to_look_at_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Sample::read(folder.path()).is_err());
        assert!(Sample::read(&folder.path().join("gone")).is_err());
    }
}
