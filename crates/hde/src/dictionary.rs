//! Trained dictionaries for small objects of one kind: training, and whether a new one is worth having. Kept, exchanged
//! and named by whoever calls this; blocks name them by their content.
use dwcp_abi::wire::ContentId;
use zstd_safe::{CCtx, CDict, DDict};

use crate::content_id;

/// A dictionary, ready for both directions.
pub struct Dictionary {
    id: ContentId,
    bytes: Box<[u8]>,
    decoder: DDict<'static>,
}

/// A dictionary cannot be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DictionaryError {
    /// Too long, or not in Zstandard's format.
    #[error("{length} bytes are not a dictionary of at most {DICTIONARY_BYTES_MAX}")]
    Invalid {
        /// Bytes given.
        length: usize,
    },
    /// Fewer or shorter samples than a dictionary can be learned from.
    #[error("{samples} samples of {bytes} bytes are too few to learn from")]
    TooFew {
        /// Samples given.
        samples: usize,
        /// Bytes of them.
        bytes: usize,
    },
    /// It did not make held-out samples smaller by enough.
    #[error("held-out samples take {with} bytes with it and {without} without: not worth having")]
    NoGain {
        /// Bytes with the new one.
        with: usize,
        /// Bytes with what there was before, or nothing.
        without: usize,
    },
}

impl Dictionary {
    /// Takes a dictionary from a peer or from disk.
    ///
    /// # Errors
    /// [`DictionaryError::Invalid`] above [`DICTIONARY_BYTES_MAX`] or where Zstandard does not know the format.
    pub fn new(bytes: &[u8]) -> Result<Self, DictionaryError> {
        let invalid = DictionaryError::Invalid { length: bytes.len() };
        if bytes.len() > DICTIONARY_BYTES_MAX || zstd_safe::get_dict_id_from_dict(bytes).is_none() {
            return Err(invalid);
        }
        let decoder = DDict::try_create(bytes).ok_or(invalid)?;
        CDict::try_create(bytes, PROOF_LEVEL).ok_or(invalid)?;
        Ok(Self { id: content_id(bytes), bytes: bytes.into(), decoder })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Its content, to be sent or stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.decoder.sizeof()
    }

    pub(crate) const fn decoder(&self) -> &DDict<'static> {
        &self.decoder
    }
}

/// A dictionary prepared for encoding at one level.
pub struct PreparedDictionary {
    id: ContentId,
    level: u8,
    encoder: CDict<'static>,
}

impl PreparedDictionary {
    /// Digests the dictionary for `level`, which is brought into Zstandard's range.
    #[must_use]
    pub fn new(dictionary: &Dictionary, level: u8) -> Option<Self> {
        let level = level.clamp(1, dwcp_abi::wire::ZSTD_LEVEL_MAX);
        let encoder = CDict::try_create(&dictionary.bytes, i32::from(level))?;
        Some(Self { id: dictionary.id, level, encoder })
    }

    /// The dictionary's name.
    #[must_use]
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Zstandard's level.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    pub(crate) const fn encoder(&self) -> &CDict<'static> {
        &self.encoder
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary").field("id", &self.id).field("length", &self.bytes.len()).finish()
    }
}

/// Learns a dictionary from four fifths of `samples` and adopts it if it makes the others at least 3 % smaller than
/// `current` does, or than none does. Its size is a hundredth of the samples' bytes, from 4 to 64 KiB: larger ones than
/// the samples can fill are worse.
///
/// # Errors
/// [`DictionaryError::TooFew`] or [`DictionaryError::NoGain`].
pub fn train(samples: &[&[u8]], current: Option<&Dictionary>) -> Result<Dictionary, DictionaryError> {
    let samples: Vec<&[u8]> =
        samples.iter().copied().filter(|sample| sample.len() <= SAMPLE_BYTES_MAX).collect();
    let held_out = |at: &usize| at % HOLD_OUT == HOLD_OUT - 1;
    let bytes: usize = samples.iter().map(|sample| sample.len()).sum();
    let too_few = DictionaryError::TooFew { samples: samples.len(), bytes };
    if samples.len() < SAMPLES_MIN || bytes < 100 * SIZE_MIN {
        return Err(too_few);
    }
    let (mut learned, mut sizes) = (Vec::new(), Vec::new());
    for (_, sample) in samples.iter().enumerate().filter(|(at, _)| !held_out(at)) {
        learned.extend_from_slice(sample);
        sizes.push(sample.len());
    }
    let size = (bytes / 100).clamp(SIZE_MIN, SIZE_MAX);
    let mut content = Vec::with_capacity(size);
    zstd_safe::train_from_buffer(&mut content, &learned, &sizes).map_err(|_| too_few)?;
    let trained = Dictionary::new(&content)?;
    let proof = || samples.iter().enumerate().filter(|(at, _)| held_out(at)).map(|(_, sample)| *sample);
    let (with, without) = (coded_bytes(proof(), Some(&trained)), coded_bytes(proof(), current));
    let least = coded_bytes(proof(), None).min(without);
    if with * 100 > least * (100 - GAIN_PERCENT_MIN) {
        return Err(DictionaryError::NoGain { with, without: least });
    }
    Ok(trained)
}

/// What samples take one by one.
fn coded_bytes<'a>(samples: impl Iterator<Item = &'a [u8]>, dictionary: Option<&Dictionary>) -> usize {
    let mut context = CCtx::create();
    let prepared = dictionary.and_then(|dictionary| CDict::try_create(&dictionary.bytes, PROOF_LEVEL));
    let mut room = vec![0; zstd_safe::compress_bound(SAMPLE_BYTES_MAX)];
    let coded = |sample: &[u8]| {
        let coded = match &prepared {
            Some(prepared) => context.compress_using_cdict(&mut room[..], sample, prepared),
            None => context.compress(&mut room[..], sample, PROOF_LEVEL),
        };
        coded.unwrap_or(sample.len()).min(sample.len())
    };
    samples.map(coded).sum()
}

/// Longest dictionary that is taken from a peer.
pub const DICTIONARY_BYTES_MAX: usize = 112 * 1024;

/// Samples above this gain nothing that their own beginning does not give them.
const SAMPLE_BYTES_MAX: usize = 16 * 1024;
const SAMPLES_MIN: usize = 50;
const SIZE_MIN: usize = 4 * 1024;
const SIZE_MAX: usize = 64 * 1024;
const HOLD_OUT: usize = 5;
const GAIN_PERCENT_MIN: usize = 3;
const PROOF_LEVEL: i32 = 3;
