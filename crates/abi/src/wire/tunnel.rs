//! Frames of tunnelled connections, between two nodes' tunnel drivers. They travel on lanes of their own, which are
//! greeted with [`super::hello::FEATURE_TUNNEL`], so that no keystroke waits behind a chunk.
//!
//! ```text
//!  0       1       2       4            8        16            20           24
//!  ┌───────┬───────┬───────┬────────────┬────────┬─────────────┬────────────┐
//!  │ kind  │ flags │ length│ connection │ offset │ payload CRC │ header CRC │
//!  └───────┴───────┴───────┴────────────┴────────┴─────────────┴────────────┘
//!  then `length` bytes of payload. Integers are little-endian, CRCs are CRC-32C (RFC 3720 B.4).
//! ```
//! A connection has two directions, each a stream of bytes counted from 0, whose end counts as one byte more. What is
//! not acknowledged when a lane dies is said again on another; offsets tell the receiver what it has.
use super::frame::checksum;
use super::job::Code;
use crate::codec::{CodecError, Encoded, Reader, Writer, codes, records};

codes! {
    /// What a frame is.
    pub enum TunnelKind: u8 {
        /// Connect to a target ([`TunnelOpen`]); the sender numbers the connection.
        Open = 1,
        /// The target is connected. One that cannot be is a [`Self::Reset`].
        Accept = 2,
        /// Bytes of the stream from `offset` on.
        Data = 3,
        /// The stream ends at `offset`; the other direction goes on.
        Fin = 4,
        /// All before `offset` has arrived ([`TunnelAck`]).
        Ack = 5,
        /// The connection is over in both directions ([`TunnelReset`]).
        Reset = 6,
        /// Are you there; `offset` means nothing to the receiver. The first frame on a lane.
        Ping = 7,
        /// I am; `offset` comes back. Everything that came before the ping has been taken.
        Pong = 8,
    }
}

records! {
    /// Asks for a connection. Data may follow at once, as far as [`TUNNEL_WINDOW_FIRST`].
    pub struct TunnelOpen<'a> {
        /// Bytes that the acceptor may send before the first acknowledgement.
        pub credit: u64,
        /// `host:port`, as the opener's operator wrote it.
        pub target: &'a [u8],
    }

    /// Credit beside the acknowledgement that stands in the header's offset.
    pub struct TunnelAck {
        /// Offset that the sender may send up to.
        pub credit: u64,
    }

    /// Why a connection is over.
    pub struct TunnelReset<'a> {
        /// For programs. [`Code::Ok`]: both directions had come to their ends, and it was forgotten.
        pub code: Code,
        /// For a person.
        pub text: &'a [u8],
    }
}

/// Set when the sender of the frame numbered the connection.
pub const TUNNEL_FLAG_OPENER: u8 = 1;

/// Of data: the sender has more, and no credit for it. A receiver that keeps up gives a larger window.
pub const TUNNEL_FLAG_BLOCKED: u8 = 2;

/// Of data: the payload is a block of [`super::BlockHeader`], whose plain bytes belong at the offset.
pub const TUNNEL_FLAG_CODED: u8 = 4;

/// Bytes of a [`TunnelHeader`].
pub const TUNNEL_HEADER_BYTES: usize = 24;

/// Most payload of a frame: with its header it is one full TLS record (RFC 8446 §5.1).
pub const TUNNEL_PAYLOAD_MAX: usize = (1 << 14) - TUNNEL_HEADER_BYTES;

/// Bytes that the opener may send before it has heard of the acceptor.
pub const TUNNEL_WINDOW_FIRST: u64 = 64 * 1024;

/// Longest target: the longest name (RFC 1035 §2.3.4), brackets, colon and port.
pub const TUNNEL_TARGET_MAX: usize = 262;

/// Longest text of a reset.
pub const TUNNEL_TEXT_MAX: usize = 512;

/// A frame's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelHeader {
    /// What it is.
    pub kind: TunnelKind,
    /// `TUNNEL_FLAG_*`.
    pub flags: u8,
    /// Bytes of payload.
    pub length: u16,
    /// The connection, as its opener numbered it; 0 for pings.
    pub connection: u32,
    /// See [`TunnelKind`].
    pub offset: u64,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
}

impl TunnelHeader {
    /// Writes the header with its own checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TUNNEL_HEADER_BYTES] {
        let mut bytes = [0; TUNNEL_HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.connection.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(&bytes[..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// A checksum that does not match, an unknown kind or flag, or a length above [`TUNNEL_PAYLOAD_MAX`].
    pub fn from_bytes(bytes: &[u8; TUNNEL_HEADER_BYTES]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let (kind, flags) = (reader.u8()?, reader.u8()?);
        let mut header = Self {
            kind: TunnelKind::Ping,
            flags,
            length: reader.u16()?,
            connection: reader.u32()?,
            offset: reader.u64()?,
            payload_crc: reader.u32()?,
        };
        if reader.u32()? != checksum(&bytes[..20]) {
            return Err(CodecError::Checksum { what: "tunnel frame header" });
        }
        header.kind = TunnelKind::decode(&[kind])?;
        if flags & !(TUNNEL_FLAG_OPENER | TUNNEL_FLAG_BLOCKED | TUNNEL_FLAG_CODED) != 0 {
            return Err(CodecError::Unknown { field: "tunnel frame flags", value: u64::from(flags) });
        }
        if usize::from(header.length) > TUNNEL_PAYLOAD_MAX {
            return Err(CodecError::TooLarge {
                field: "tunnel frame length",
                value: u64::from(header.length),
                max: TUNNEL_PAYLOAD_MAX as u64,
            });
        }
        Ok(header)
    }
}

/// One frame as it lies in received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelFrame<'a> {
    /// Its header.
    pub header: TunnelHeader,
    /// Its payload, compared with the header's checksum.
    pub payload: &'a [u8],
}

impl<'a> TunnelFrame<'a> {
    /// The frame at the front of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// Any [`CodecError`], as soon as the bytes at hand show that no frame begins with them.
    pub fn decode_front(bytes: &'a [u8]) -> Result<Option<Self>, CodecError> {
        let Some((head, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let header = TunnelHeader::from_bytes(head)?;
        let Some(payload) = rest.get(..usize::from(header.length)) else { return Ok(None) };
        if checksum(payload) != header.payload_crc {
            return Err(CodecError::Checksum { what: "tunnel frame payload" });
        }
        Ok(Some(Self { header, payload }))
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn length(&self) -> usize {
        TUNNEL_HEADER_BYTES + self.payload.len()
    }
}

/// Puts the header before a payload of `length` bytes that stands in `bytes` already, behind the header's place. Says
/// how many bytes the frame takes.
///
/// # Errors
/// [`CodecError::NoRoom`] where `bytes` is too short, [`CodecError::TooLarge`] above [`TUNNEL_PAYLOAD_MAX`].
pub fn tunnel_seal(
    kind: TunnelKind,
    flags: u8,
    connection: u32,
    offset: u64,
    length: usize,
    bytes: &mut [u8],
) -> Result<usize, CodecError> {
    if length > TUNNEL_PAYLOAD_MAX {
        return Err(CodecError::TooLarge {
            field: "tunnel frame length",
            value: length as u64,
            max: TUNNEL_PAYLOAD_MAX as u64,
        });
    }
    let (head, body) = bytes.split_first_chunk_mut().ok_or(CodecError::NoRoom)?;
    let payload_crc = checksum(body.get(..length).ok_or(CodecError::NoRoom)?);
    // Bounded above, by less than a u16 holds.
    let header = TunnelHeader { kind, flags, length: length as u16, connection, offset, payload_crc };
    *head = header.to_bytes();
    Ok(TUNNEL_HEADER_BYTES + length)
}

/// Writes a whole frame with a payload of fields. Says how many bytes it took.
///
/// # Errors
/// As [`tunnel_seal`].
pub fn tunnel_frame<'a>(
    kind: TunnelKind,
    flags: u8,
    connection: u32,
    offset: u64,
    payload: &impl Encoded<'a>,
    bytes: &mut [u8],
) -> Result<usize, CodecError> {
    let mut writer = Writer::new(bytes.get_mut(TUNNEL_HEADER_BYTES..).ok_or(CodecError::NoRoom)?);
    payload.write(&mut writer)?;
    let length = writer.written();
    tunnel_seal(kind, flags, connection, offset, length, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut bytes = [0; 256];
        let mut keep = |length: Result<usize, CodecError>, bytes: &[u8]| {
            all.push(bytes[..length.expect("fits")].to_vec());
        };
        let open = TunnelOpen { credit: 65_536, target: b"127.0.0.1:5432" };
        keep(tunnel_frame(TunnelKind::Open, 1, 7, 0, &open, &mut bytes), &bytes);
        keep(tunnel_seal(TunnelKind::Accept, 0, 7, 0, 0, &mut bytes), &bytes);
        bytes[TUNNEL_HEADER_BYTES..][..5].copy_from_slice(b"hello");
        keep(tunnel_seal(TunnelKind::Data, 3, 7, 0x0102_0304_0506, 5, &mut bytes), &bytes);
        keep(tunnel_seal(TunnelKind::Fin, 1, 7, 5, 0, &mut bytes), &bytes);
        keep(tunnel_frame(TunnelKind::Ack, 0, 7, 6, &TunnelAck { credit: 99 }, &mut bytes), &bytes);
        let reset = TunnelReset { code: Code::Forbidden, text: b"see tunnels.allow" };
        keep(tunnel_frame(TunnelKind::Reset, 0, 7, 0, &reset, &mut bytes), &bytes);
        keep(tunnel_seal(TunnelKind::Ping, 0, 0, 42, 0, &mut bytes), &bytes);
        all
    }

    #[test]
    fn frames_come_back_as_they_went_and_front_parts_are_incomplete() {
        for bytes in samples() {
            let frame = TunnelFrame::decode_front(&bytes).expect("sound").expect("whole");
            assert_eq!(frame.length(), bytes.len());
            assert_eq!(frame.header.to_bytes()[..], bytes[..TUNNEL_HEADER_BYTES]);
            for end in 0..bytes.len() {
                assert_eq!(TunnelFrame::decode_front(&bytes[..end]), Ok(None), "first {end} bytes");
            }
        }
    }

    #[test]
    fn payloads_are_read_as_they_were_written() {
        let samples = samples();
        let payload = |index: usize| TunnelFrame::decode_front(&samples[index]).unwrap().unwrap().payload;
        let open = TunnelOpen { credit: 65_536, target: b"127.0.0.1:5432" };
        assert_eq!(TunnelOpen::decode(payload(0)), Ok(open));
        assert_eq!(payload(2), b"hello");
        assert_eq!(TunnelAck::decode(payload(4)), Ok(TunnelAck { credit: 99 }));
        assert_eq!(
            TunnelReset::decode(payload(5)),
            Ok(TunnelReset { code: Code::Forbidden, text: b"see tunnels.allow" })
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for original in samples() {
            for bit in 0..original.len() * 8 {
                let mut bytes = original.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // A length that grew may only ask for more bytes once its header is believed, which it is not.
                assert!(TunnelFrame::decode_front(&bytes).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn what_no_sender_writes_is_refused() {
        let sound = TunnelHeader {
            kind: TunnelKind::Data,
            flags: 0,
            length: 0,
            connection: 1,
            offset: 0,
            payload_crc: 0,
        };
        let flags = TunnelHeader { flags: 8, ..sound };
        assert!(matches!(TunnelHeader::from_bytes(&flags.to_bytes()), Err(CodecError::Unknown { .. })));
        let long = TunnelHeader { length: TUNNEL_PAYLOAD_MAX as u16 + 1, ..sound };
        assert!(matches!(TunnelHeader::from_bytes(&long.to_bytes()), Err(CodecError::TooLarge { .. })));
        let mut kind = sound.to_bytes();
        kind[0] = 99;
        let crc = checksum(&kind[..20]);
        kind[20..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(TunnelHeader::from_bytes(&kind), Err(CodecError::Unknown { .. })));
        let room = TUNNEL_HEADER_BYTES + TUNNEL_PAYLOAD_MAX + 1;
        let sealed = tunnel_seal(TunnelKind::Data, 0, 1, 0, TUNNEL_PAYLOAD_MAX + 1, &mut vec![0; room]);
        assert!(matches!(sealed, Err(CodecError::TooLarge { .. })));
    }

    /// xorshift64 (Marsaglia 2003): the seed in a failure's message replays it.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn payloads_of_any_bytes_never_panic_and_what_is_read_can_be_written() {
        let samples = samples();
        for seed in 1..=20_000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let sample = &samples[(next(&mut state) % samples.len() as u64) as usize];
            let mut payload = sample[TUNNEL_HEADER_BYTES..].to_vec();
            for _ in 0..=next(&mut state) % 3 {
                let at = (next(&mut state) % (payload.len() as u64 + 1)) as usize;
                match next(&mut state) % 3 {
                    0 => payload.truncate(at),
                    1 => payload.insert(at, next(&mut state) as u8),
                    _ => payload.iter_mut().skip(at).take(1).for_each(|byte| *byte = byte.wrapping_add(1)),
                }
            }
            let mut again = [0; 512];
            let length = if let Ok(open) = TunnelOpen::decode(&payload) {
                open.encode(&mut again)
            } else if let Ok(reset) = TunnelReset::decode(&payload) {
                reset.encode(&mut again)
            } else if let Ok(ack) = TunnelAck::decode(&payload) {
                ack.encode(&mut again)
            } else {
                continue;
            };
            assert_eq!(&again[..length.expect("fits")], &payload[..], "seed {seed}");
        }
    }
}
