//! Streams in pieces, each a Zstandard frame or as it is. Called by the delta encoder and decoder.
//!
//! Pieces are short because what stands in one stream changes its character along an object, and because at low levels
//! Zstandard's tables are made for that much: differences of an executable take a third less in pieces of 128 KiB than
//! in one frame.
use dwcp_abi::codec::Reader;
use dwcp_abi::wire::{DELTA_PIECE_BYTES, PieceHead};
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::DecodeError;
use crate::codec::zstd::{WINDOW_LOG_MAX, check_frame};

/// Where the block is written; full where something did not fit.
pub(crate) struct Out<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Out<'a> {
    pub(crate) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) const fn written(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes.get_mut(self.at..self.at.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    /// Writes one piece by `code`, which says how many bytes it wrote, or as it is where that is no gain.
    fn piece(&mut self, plain: &[u8], code: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        let body = self.at + PIECE_HEAD_BYTES;
        let room_end = self.bytes.len().min(body + plain.len().saturating_sub(1));
        let room = self.bytes.get_mut(body..room_end)?;
        let coded = if plain.len() < CODED_BYTES_MIN { None } else { code(room) };
        let Some(length) = coded else {
            self.bytes(&PieceHead { length: plain.len() as u32, coded: false }.to_bytes())?;
            return self.bytes(plain);
        };
        self.bytes(&PieceHead { length: length as u32, coded: true }.to_bytes())?;
        self.at += length;
        Some(())
    }
}

/// Writes a stream.
pub(crate) fn write(context: &mut CCtx<'static>, plain: &[u8], level: u8, out: &mut Out<'_>) -> Option<()> {
    plain
        .chunks(DELTA_PIECE_BYTES)
        .try_for_each(|piece| out.piece(piece, |room| context.compress(room, piece, i32::from(level)).ok()))
}

/// Writes literals as one piece, with `near` before them in the window.
pub(crate) fn write_near(
    context: &mut CCtx<'static>,
    plain: &[u8],
    near: &[u8],
    level: u8,
    out: &mut Out<'_>,
) -> Option<()> {
    if plain.is_empty() {
        return Some(());
    }
    out.piece(plain, |room| {
        if plain.len() <= NEAR_SMALL_BYTES {
            return context.compress_using_dict(room, plain, near, i32::from(level)).ok();
        }
        let mut context = CCtx::create();
        let all = usize::BITS - (plain.len() + near.len()).leading_zeros();
        let table = all.clamp(17, TABLE_LOG_MAX);
        let mut set = |parameter| context.set_parameter(parameter).ok();
        set(CParameter::CompressionLevel(i32::from(level)))?;
        set(CParameter::WindowLog(all.clamp(18, WINDOW_LOG_MAX)))?;
        if level <= TABLES_LEVEL_MAX && plain.len() <= TABLES_BYTES_MAX {
            set(CParameter::HashLog(table))?;
            set(CParameter::ChainLog(table - 1))?;
        }
        context.ref_prefix(near).ok()?;
        context.compress2(room, plain).ok()
    })
}

/// Reads a stream of `length` bytes into `plain`.
pub(crate) fn read(
    context: &mut DCtx<'static>,
    reader: &mut Reader<'_>,
    length: usize,
    plain: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    plain.clear();
    plain.resize(length, 0);
    plain.chunks_mut(DELTA_PIECE_BYTES).try_for_each(|piece| read_piece(context, reader, piece, &[]))
}

/// Reads literals.
pub(crate) fn read_near(
    context: &mut DCtx<'static>,
    reader: &mut Reader<'_>,
    near: &[u8],
    length: usize,
    plain: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    plain.clear();
    plain.resize(length, 0);
    if plain.is_empty() { Ok(()) } else { read_piece(context, reader, plain, near) }
}

fn read_piece(
    context: &mut DCtx<'static>,
    reader: &mut Reader<'_>,
    plain: &mut [u8],
    near: &[u8],
) -> Result<(), DecodeError> {
    let head = PieceHead::read(reader, plain.len() as u32)?;
    let bytes = reader.bytes(head.length as usize)?;
    if !head.coded {
        plain.copy_from_slice(bytes);
        return Ok(());
    }
    check_frame(bytes, plain.len() as u64, WINDOW_LOG_MAX)?;
    match context.decompress_using_dict(plain, bytes, near) {
        Ok(length) if length == plain.len() => Ok(()),
        Ok(_) | Err(_) => Err(DecodeError::Corrupt { field: "delta piece" }),
    }
}

const PIECE_HEAD_BYTES: usize = 4;

/// Shorter pieces never gain from a frame's header.
const CODED_BYTES_MIN: usize = 24;

/// Up to here Zstandard's own tables are large enough.
const NEAR_SMALL_BYTES: usize = 256 * 1024;

/// Tables above this miss the caches more than they find, and levels above this have large ones of their own.
const TABLE_LOG_MAX: u32 = 19;
const TABLES_LEVEL_MAX: u8 = 4;

/// Where there is more than this in a block, most of it is new, and large tables only cost time.
const TABLES_BYTES_MAX: usize = 1024 * 1024;
