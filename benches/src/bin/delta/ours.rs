//! Our delta, as the dataplane would do it: an index, then segments as [`Auto`] likes them, then back.
use anyhow::{Context as _, Result, ensure};
use dwcp_hde::{
    Against, Auto, BLOCK_PLAIN_MAX, Baseline, ContentId, Decoder, Dictionary, Encoder, Index, Known, Limits,
    MemoryBaseline, SEGMENT_BYTES_MAX,
};

use crate::Row;
use dwcp_benches::data::Pair;
use dwcp_benches::measure::thread_cpu_s;

/// The only baseline that is known.
struct One<'a>(MemoryBaseline<'a>);

impl Known for One<'_> {
    fn baseline(&self, id: ContentId) -> Option<&dyn Baseline> {
        (self.0.id() == id).then_some(&self.0)
    }

    fn dictionary(&self, _id: ContentId) -> Option<&Dictionary> {
        None
    }
}

/// What it takes, and how many blocks of which kind came of it.
pub(crate) fn measure(pair: &Pair, level: u8) -> Result<(Row, String)> {
    let limits = Limits::new(BLOCK_PLAIN_MAX, 1000)?;
    let mut encoder = Encoder::new(limits);
    let mut decoder = Decoder::new(limits);
    let known = One(MemoryBaseline::new(&pair.baseline));
    let start = thread_cpu_s()?;
    let index = Index::new(&pair.baseline);
    let index_s = thread_cpu_s()? - start;
    let against = Against::whole(&known.0, &index).context("the baseline is in memory")?;
    let (mut blocks, mut spans) = (Vec::new(), Vec::new());
    let mut auto = Auto::new(level);
    let start = thread_cpu_s()?;
    for segment in pair.target.chunks(SEGMENT_BYTES_MAX) {
        auto.encode(&mut encoder, segment, &against, &mut blocks, &mut spans)?;
    }
    let encode_s = thread_cpu_s()? - start;
    let mut plain = vec![1; pair.target.len()];
    let start = thread_cpu_s()?;
    let (mut at, mut out) = (0, 0);
    for span in &spans {
        let block = &blocks[at..at + span.length];
        decoder.decode_with(block, span.plain_length as u32, &known, &mut plain[out..])?;
        at += span.length;
        out += span.plain_length;
    }
    let decode_s = thread_cpu_s()? - start;
    ensure!(plain == pair.target, "{} came back wrong", pair.name);
    let mut kinds: Vec<_> = spans.iter().map(|span| format!("{:?}", span.codec)).collect();
    kinds.sort();
    let counts =
        kinds.chunk_by(|left, right| left == right).map(|same| format!("{}×{}", same.len(), same[0]));
    let counts = counts.collect::<Vec<_>>().join(" ");
    Ok((Row { bytes: blocks.len(), encode_s, index_s, decode_s }, counts))
}
