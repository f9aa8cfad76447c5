//! Chunks as differences to what the other end has: the sender's search for them, and the receiver's baseline.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwcp_abi::shm::WorkerCounter as Counter;
use dwcp_abi::wire::{BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, CHUNK_BYTES, ChunkHead, ContentId, Names};
use dwcp_engine::{BufferId as Large, FileId};
use dwcp_hde::{Baseline, DecodeError, Dictionary, Known};
use dwcp_sys::proactor::Span;

use super::coding::Link;
use super::{Worker, layout};
use crate::baselines::{Against, FileBaseline, Ground};

/// What this worker knows of files that have a baseline. The table of all files is asked once per file.
#[derive(Default)]
pub(super) struct Differences {
    sent: HashMap<FileId, Sent>,
    received: HashMap<FileId, Received>,
}

struct Sent {
    against: Option<Arc<Against>>,
    ground: Ground,
    used: Instant,
}

struct Received {
    former: Option<Arc<FileBaseline>>,
    used: Instant,
}

/// What is known of a file is forgotten after so long without use: a baseline takes memory, and a descriptor.
const UNUSED_MAX: Duration = Duration::from_secs(5);

/// Why a coded chunk has no plain bytes.
pub(super) enum Unmade {
    /// What it was made from is not here, or not any more: it can be sent as it is.
    Baseline,
    /// It is no block.
    Nonsense(String),
}

/// The one baseline that chunks of a file may name.
struct Only<'a>(Option<&'a FileBaseline>);

impl Known for Only<'_> {
    fn baseline(&self, id: ContentId) -> Option<&dyn Baseline> {
        self.0.filter(|baseline| baseline.id() == id).map(|baseline| baseline as &dyn Baseline)
    }

    fn dictionary(&self, _id: ContentId) -> Option<&Dictionary> {
        None
    }
}

impl Worker {
    /// Whether a chunk of this file may become differences.
    pub(super) fn has_baseline(&mut self, file: FileId) -> bool {
        let (now, node) = (self.now, &self.node);
        let sent = self.differences.sent.entry(file).or_insert_with(|| Sent {
            against: node.files.against(file),
            ground: Ground::default(),
            used: now,
        });
        sent.used = now;
        sent.against.as_ref().is_some_and(|against| against.is_of_use())
    }

    /// Writes a chunk's differences into the scratch behind `start`; none where it has no baseline or gains nothing.
    pub(super) fn code_difference(
        &mut self,
        link: Link,
        file: FileId,
        head: &ChunkHead,
        data: Span,
        start: usize,
    ) -> Option<usize> {
        let Sent { against, ground, .. } = self.differences.sent.get_mut(&file)?;
        let against = against.as_ref().filter(|against| against.is_of_use())?;
        let plain = (head.offset, self.proactor.bytes(data));
        let (encoder, level) = self.coding.for_differences(link);
        let encoded = against.encode(encoder, ground, plain, level, &mut self.scratch[start..])?.encoded;
        self.figures.add(Counter::CompressBytesIn, head.length);
        if matches!(encoded.codec, BlockCodec::Same | BlockCodec::Delta) {
            self.figures.add(Counter::DeltaBytesIn, head.length);
            self.figures.add(Counter::DeltaBytesOut, encoded.length as u64);
        }
        let is_raw = encoded.codec == BlockCodec::Raw;
        let out = if is_raw { head.length } else { encoded.length as u64 };
        self.figures.add(Counter::CompressBytesOut, out);
        (!is_raw).then_some(encoded.length)
    }

    /// Puts the plain bytes of a coded chunk where those of a plain one would be.
    pub(super) fn decode_chunk(
        &mut self,
        file: Option<FileId>,
        head: &ChunkHead,
        buffer: Large,
        coded: u32,
    ) -> Result<(), Unmade> {
        if head.length > u64::from(CHUNK_BYTES) {
            let text = format!("a chunk of {} bytes is larger than any", head.length);
            return Err(Unmade::Nonsense(text));
        }
        let (now, node) = (self.now, &self.node);
        let former = file.and_then(|file| {
            let received = self
                .differences
                .received
                .entry(file)
                .or_insert_with(|| Received { former: node.files.former(file), used: now });
            received.used = now;
            received.former.clone()
        });
        let length = head.length as u32;
        let block = self.proactor.bytes(layout::data(buffer, coded));
        let needs_baseline = names_baseline(block);
        let plain = &mut self.scratch[..length as usize];
        let made = self.coding.decode(block, length, &Only(former.as_deref()), plain);
        if let Err(error) = made {
            return Err(self.unmade(needs_baseline, &error));
        }
        self.proactor.bytes_mut(layout::data(buffer, length)).copy_from_slice(plain);
        Ok(())
    }

    fn unmade(&mut self, needs_baseline: bool, error: &DecodeError) -> Unmade {
        if !needs_baseline {
            return Unmade::Nonsense(error.to_string());
        }
        tracing::debug!(%error, "a chunk cannot be made of what is here: it is asked for as it is");
        self.figures.add(Counter::DeltaChunksUnmade, 1);
        Unmade::Baseline
    }

    /// Lets go of baselines that are not in use any more.
    pub(super) fn forget_baselines(&mut self) {
        let now = self.now;
        let is_used = |used: Instant| now.saturating_duration_since(used) <= UNUSED_MAX;
        self.differences.sent.retain(|_, sent| is_used(sent.used));
        self.differences.received.retain(|_, received| is_used(received.used));
    }
}

fn names_baseline(block: &[u8]) -> bool {
    let head = block.first_chunk::<BLOCK_HEADER_BYTES>();
    head.and_then(|head| BlockHeader::from_bytes(head).ok()).is_some_and(|head| head.names == Names::Baseline)
}
