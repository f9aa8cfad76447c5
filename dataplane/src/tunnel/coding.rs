//! Compression of tunnelled data, frame by frame, while it pays: only where compression is configured, only on a lane whose
//! socket is full (what waits anyway loses nothing), and not for connections whose bytes were found not to shrink. Used by
//! [`super::peer`] between the core and its lanes; the core sees plain frames only.
use std::collections::HashMap;

use dwcp_abi::codec::CodecError;
use dwcp_abi::link::Transport;
use dwcp_abi::wire::{
    BLOCK_HEADER_BYTES, BlockCodec, BlockHeader, TUNNEL_FLAG_CODED, TUNNEL_HEADER_BYTES, TUNNEL_PAYLOAD_MAX,
    TunnelFrame, TunnelHeader, TunnelKind, tunnel_seal,
};
use dwcp_hde::{Choice, DecodeError, Decoder, Encoder, Limits, encoded_length_max};

/// Both directions.
pub(super) struct Coding {
    encoder: Encoder,
    decoder: Decoder,
    choice: Option<Choice>,
    coded: Vec<u8>,
    plain: Vec<u8>,
    /// By flags and number of the connection; forgotten when there are many.
    connections: HashMap<(u8, u32), Luck>,
}

/// How it went with a connection lately.
#[derive(Debug, Default, Clone, Copy)]
struct Luck {
    /// Frames that are not tried.
    skip: u16,
    /// What `skip` will be after the next failure.
    penalty: u16,
}

/// Why a coded frame is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodingError {
    #[error("a coded frame: {0}")]
    Header(#[from] CodecError),
    #[error("a coded frame: {0}")]
    Block(#[from] DecodeError),
}

impl Coding {
    pub(super) fn new() -> Self {
        let Ok(limits) = Limits::new(TUNNEL_PAYLOAD_MAX as u32, RATIO_MIN_THOUSANDTHS) else {
            unreachable!("a frame is shorter than the longest block, and the ratio is within its bounds");
        };
        Self {
            encoder: Encoder::new(limits),
            decoder: Decoder::new(limits),
            choice: None,
            coded: vec![0; encoded_length_max(TUNNEL_PAYLOAD_MAX)],
            plain: vec![0; TUNNEL_PAYLOAD_MAX],
            connections: HashMap::new(),
        }
    }

    /// Follows the configuration. Levels of zstd are for files: an interactive byte must not wait for them.
    pub(super) fn follow(&mut self, transport: &Transport) {
        self.choice = match transport.codec {
            1 => Some(Choice::LZ4),
            2 => Some(Choice::SNAPPY),
            3 => Some(Choice::new(BlockCodec::Zstd, 1).unwrap_or(Choice::LZ4)),
            _ => None,
        };
    }

    /// Codes the frame that stands at the front of `bytes`, where that makes it smaller; says how long it is.
    pub(super) fn encode(&mut self, bytes: &mut [u8], length: usize) -> usize {
        let Some(choice) = self.choice else { return length };
        let Some(frame) = TunnelFrame::decode_front(&bytes[..length]).ok().flatten() else { return length };
        let TunnelHeader { kind, flags, connection, offset, .. } = frame.header;
        if kind != TunnelKind::Data || frame.payload.len() < PAYLOAD_MIN {
            return length;
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.clear();
        }
        let luck =
            self.connections.entry((flags & dwcp_abi::wire::TUNNEL_FLAG_OPENER, connection)).or_default();
        if luck.skip > 0 {
            luck.skip -= 1;
            return length;
        }
        let encoded = self.encoder.encode(frame.payload, choice, &mut self.coded);
        let Some(encoded) = encoded.ok().filter(|encoded| encoded.codec != BlockCodec::Raw) else {
            luck.skip = luck.penalty;
            luck.penalty = (luck.penalty * 2 + 1).min(PENALTY_MAX);
            return length;
        };
        luck.penalty = 0;
        let block = &self.coded[..encoded.length];
        bytes[TUNNEL_HEADER_BYTES..][..block.len()].copy_from_slice(block);
        // It is shorter than what stood there.
        tunnel_seal(kind, flags | TUNNEL_FLAG_CODED, connection, offset, block.len(), bytes).unwrap_or(length)
    }

    /// The frame as it was before it was coded.
    pub(super) fn decode<'a>(&'a mut self, frame: &TunnelFrame<'a>) -> Result<TunnelFrame<'a>, CodingError> {
        if frame.header.flags & TUNNEL_FLAG_CODED == 0 {
            return Ok(*frame);
        }
        let head = frame.payload.first_chunk::<BLOCK_HEADER_BYTES>().ok_or(CodecError::Truncated)?;
        // The decoder compares it with the limits before it believes it.
        let plain_length = BlockHeader::from_bytes(head)?.plain_length;
        let count = self.decoder.decode(frame.payload, plain_length, &mut self.plain)?;
        let flags = frame.header.flags & !TUNNEL_FLAG_CODED;
        // Bounded by the decoder's limits, below what a u16 holds.
        let header = TunnelHeader { flags, length: count as u16, ..frame.header };
        Ok(TunnelFrame { header, payload: &self.plain[..count] })
    }
}

/// Less is not worth the other end's time.
const RATIO_MIN_THOUSANDTHS: u32 = 1100;
/// Smaller frames are mostly headers.
const PAYLOAD_MIN: usize = 512;
/// One megabyte, say, before it is tried again.
const PENALTY_MAX: u16 = 63;
const CONNECTIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX];
        bytes[TUNNEL_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        let length = tunnel_seal(TunnelKind::Data, 1, 7, 99, payload.len(), &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn coding(codec: u8) -> Coding {
        let mut coding = Coding::new();
        coding.follow(&Transport { codec, ..Plan::default().transport });
        coding
    }

    #[test]
    fn what_shrinks_comes_back_as_it_was_and_the_rest_stays_plain() {
        let text: Vec<u8> =
            b"select * from accounts where id = ".iter().copied().cycle().take(16_000).collect();
        let noise: Vec<u8> = (0..4000_u32)
            .flat_map(|word| blake3::hash(&word.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        for codec in [1, 2, 3] {
            let mut coding = coding(codec);
            let mut bytes = frame(&text);
            let plain_length = bytes.len();
            let length = coding.encode(&mut bytes, plain_length);
            assert!(length < plain_length / 2, "{length} of {plain_length}");
            let coded = TunnelFrame::decode_front(&bytes[..length]).unwrap().unwrap();
            let decoded = coding.decode(&coded).unwrap();
            assert_eq!((decoded.payload, decoded.header.offset), (&text[..], 99));
            assert_eq!((decoded.header.flags, usize::from(decoded.header.length)), (1, text.len()));
            let mut bytes = frame(&noise);
            let length = bytes.len();
            assert_eq!(coding.encode(&mut bytes, length), length);
            let mut bytes = frame(&text[..100]);
            let length = bytes.len();
            assert_eq!(coding.encode(&mut bytes, length), length, "too small");
        }
        let mut bytes = frame(&text);
        let length = bytes.len();
        assert_eq!(coding(0).encode(&mut bytes, length), length, "not configured");
    }

    #[test]
    fn a_connection_without_luck_is_tried_ever_more_seldom() {
        let noise: Vec<u8> = (0..1000_u32)
            .flat_map(|word| blake3::hash(&word.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        let mut coding = coding(1);
        let mut tried = 0;
        for _ in 0..1000 {
            let skip = coding.connections.get(&(1, 7)).map_or(0, |luck| luck.skip);
            tried += u32::from(skip == 0);
            let mut bytes = frame(&noise);
            let length = bytes.len();
            coding.encode(&mut bytes, length);
        }
        assert!((7..30).contains(&tried), "{tried}");
    }

    #[test]
    fn damaged_blocks_are_refused() {
        let text = vec![b'x'; 16_000];
        let mut sender = coding(1);
        let mut bytes = frame(&text);
        let length = bytes.len();
        let length = sender.encode(&mut bytes, length);
        for at in TUNNEL_HEADER_BYTES..length {
            let mut damaged = bytes[..length].to_vec();
            damaged[at] ^= 0x41;
            let count = length - TUNNEL_HEADER_BYTES;
            tunnel_seal(TunnelKind::Data, 1 | TUNNEL_FLAG_CODED, 7, 99, count, &mut damaged).unwrap();
            let frame = TunnelFrame::decode_front(&damaged).unwrap().unwrap();
            assert!(sender.decode(&frame).is_err(), "byte {at}");
        }
    }
}
