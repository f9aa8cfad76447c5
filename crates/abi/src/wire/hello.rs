//! The first words on a lane: one [`Hello`] of the dialler, one [`Welcome`] or [`Refuse`] of the acceptor. Where both
//! have [`FEATURE_RDMA`], one [`PairEnd`] or [`Unpaired`] of each follows, the dialler's first.
//!
//! ```text
//! magic "DWCP" │ u16 length of what follows │ u8 kind │ fields …
//! ```
//! Spoken by the dataplane's door inside TLS, before any frame. A later version may append fields to a greeting:
//! what stands behind the known fields is skipped, so that two versions can always agree or refuse by name.
use super::rdma::{PairEnd, Unpaired};
use crate::codec::{CodecError, Encoded, Reader, Writer, messages, records};

messages! {
    /// One message of the greeting.
    pub enum Greeting<'a> {
        /// Of the dialler.
        Hello(Hello) = 1,
        /// Of the acceptor: the lane stands.
        Welcome(Welcome) = 2,
        /// Of the acceptor: the lane ends here.
        Refuse(Refuse<'a>) = 3,
        /// Of either end: its queue pair.
        Pair(PairEnd) = 4,
        /// Of either end: there will be none.
        Unpaired(Unpaired<'a>) = 5,
    }
}

records! {
    /// Protocol versions that a node speaks, both ends included.
    pub struct VersionRange {
        /// Oldest.
        pub min: u16,
        /// Newest.
        pub max: u16,
    }

    /// The dialler's wish.
    pub struct Hello {
        /// Versions that the dialler speaks.
        pub versions: VersionRange,
        /// Feature bits that the dialler understands; unknown bits are ignored.
        pub features: u64,
        /// Random, new at every start of the dialling dataplane.
        pub instance: u64,
        /// Chosen by whoever ordered the dial; means nothing to the handshake.
        pub token: u64,
        /// 1 = go on in clear after the greeting, if the acceptor says so too.
        pub clear: bool,
        /// Most payload bytes of a chunk that the dialler takes.
        pub chunk_length_max: u32,
        /// Bytes that the acceptor may send before the first credit.
        pub credit_bytes: u64,
    }

    /// The acceptor's answer.
    pub struct Welcome {
        /// The version that both speak from here on.
        pub version: u16,
        /// Feature bits that both understand.
        pub features: u64,
        /// Random, new at every start of the accepting dataplane.
        pub instance: u64,
        /// 1 = the bytes after this message are in clear; never without the dialler's wish.
        pub clear: bool,
        /// Most payload bytes of a chunk that the acceptor takes.
        pub chunk_length_max: u32,
        /// Bytes that the dialler may send before the first credit.
        pub credit_bytes: u64,
    }

    /// The acceptor's refusal.
    pub struct Refuse<'a> {
        /// Why, for the program: [`REFUSE_VERSION`], or a code of a later version.
        pub code: u16,
        /// Versions that the acceptor speaks.
        pub versions: VersionRange,
        /// Why, for a person. UTF-8, at most [`REFUSE_TEXT_MAX`] bytes.
        pub text: &'a [u8],
    }
}

/// The versions of this build, as they are greeted with.
pub const VERSIONS: VersionRange =
    VersionRange { min: *super::VERSIONS.start(), max: *super::VERSIONS.end() };

/// Feature bit: what follows the greeting are frames of tunnels ([`super::TunnelFrame`]), not of jobs. The dialler of
/// such a lane sets it, and goes on only if the acceptor's answer has it, too: a node that knows no tunnels masks it.
pub const FEATURE_TUNNEL: u64 = 1;

/// Feature bit: this end has an RDMA device for the lane and wants to try it. The dialler says its [`PairEnd`] after a
/// `Welcome` with this bit, and the acceptor answers with its own; an [`Unpaired`] of either leaves the lane on TCP.
pub const FEATURE_RDMA: u64 = 2;

/// Code of a [`Refuse`] for want of a common version.
pub const REFUSE_VERSION: u16 = 1;

/// Longest text of a [`Refuse`] that is sent.
pub const REFUSE_TEXT_MAX: usize = 512;

/// Longest greeting that is read or written, head included.
pub const GREETING_MAX: usize = 1024;

/// First bytes of every greeting.
pub const MAGIC: [u8; 4] = *b"DWCP";

const HEAD_LENGTH: usize = MAGIC.len() + 2;

impl VersionRange {
    /// The newest version in both ranges.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl core::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}..{}", self.min, self.max)
    }
}

impl<'a> Greeting<'a> {
    /// Writes the greeting with its head; says how many bytes it took.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`] where `bytes` is short, [`CodecError::TooLarge`] above [`GREETING_MAX`].
    pub fn encode_framed(&self, bytes: &mut [u8]) -> Result<usize, CodecError> {
        let (head, body) = bytes.split_at_mut_checked(HEAD_LENGTH).ok_or(CodecError::NoRoom)?;
        let length = self.encode(body)?;
        let framed = HEAD_LENGTH + length;
        if framed > GREETING_MAX {
            return Err(too_large(framed));
        }
        let mut writer = Writer::new(head);
        writer.bytes(&MAGIC)?;
        writer.u16(u16::try_from(length).map_err(|_| too_large(framed))?)?;
        Ok(framed)
    }

    /// Reads one greeting from the front of `bytes`; `None` while it is incomplete. The number beside it says how
    /// many bytes it took.
    ///
    /// # Errors
    /// Any [`CodecError`], as soon as the bytes at hand show that no greeting begins with them.
    pub fn decode_framed(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, CodecError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(CodecError::Unknown { field: "magic", value: magic_value(&bytes[..known]) });
        }
        let mut reader = Reader::new(&bytes[known..]);
        let Ok(length) = reader.u16() else { return Ok(None) };
        let framed = HEAD_LENGTH + usize::from(length);
        if framed > GREETING_MAX {
            return Err(too_large(framed));
        }
        let Ok(body) = reader.bytes(usize::from(length)) else { return Ok(None) };
        let greeting = Self::read(&mut Reader::new(body))?;
        Ok(Some((greeting, framed)))
    }
}

fn too_large(framed: usize) -> CodecError {
    CodecError::TooLarge { field: "greeting", value: framed as u64, max: GREETING_MAX as u64 }
}

fn magic_value(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        versions: VersionRange { min: 1, max: 3 },
        features: 0x05,
        instance: 0x1122_3344_5566_7788,
        token: 9,
        clear: true,
        chunk_length_max: 1 << 20,
        credit_bytes: 1 << 24,
    };
    const WELCOME: Welcome = Welcome {
        version: 2,
        features: 1,
        instance: 7,
        clear: false,
        chunk_length_max: 1 << 19,
        credit_bytes: 1 << 22,
    };

    const PAIR: PairEnd = PairEnd {
        queue_pair: 5,
        packet_sequence: 9,
        gid: [7; 16],
        lid: 0,
        mtu: 4096,
        memory_address: 4096,
        memory_key: 1,
        slots: 16,
        slot_bytes: 4096,
    };

    fn framed(greeting: &Greeting<'_>) -> Vec<u8> {
        let mut bytes = [0; GREETING_MAX];
        let length = greeting.encode_framed(&mut bytes).expect("fits");
        bytes[..length].to_vec()
    }

    fn refuse() -> Greeting<'static> {
        let versions = VersionRange { min: 4, max: 5 };
        Greeting::Refuse(Refuse { code: REFUSE_VERSION, versions, text: b"speaks 4..5, not 1..3" })
    }

    #[test]
    fn greetings_come_back_as_they_went() {
        let unpaired = Greeting::Unpaired(Unpaired { text: b"no device" });
        let pair = Greeting::Pair(PAIR);
        for greeting in [Greeting::Hello(HELLO), Greeting::Welcome(WELCOME), refuse(), pair, unpaired] {
            let bytes = framed(&greeting);
            assert_eq!(Greeting::decode_framed(&bytes), Ok(Some((greeting, bytes.len()))));
        }
    }

    #[test]
    fn layout_of_hello_is_pinned() {
        let golden = [
            b'D', b'W', b'C', b'P', 42, 0, 1, // head, kind
            1, 0, 3, 0, // versions
            5, 0, 0, 0, 0, 0, 0, 0, // features
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // instance
            9, 0, 0, 0, 0, 0, 0, 0, // token
            1, // clear
            0, 0, 0x10, 0, // chunk_length_max
            0, 0, 0, 1, 0, 0, 0, 0, // credit_bytes
        ];
        assert_eq!(framed(&Greeting::Hello(HELLO)), golden);
    }

    #[test]
    fn layout_of_the_answers_is_pinned() {
        let welcome = [
            b'D', b'W', b'C', b'P', 32, 0, 2, // head, kind
            2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, // version, features, instance
            0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, // clear, chunk_length_max, credit_bytes
        ];
        assert_eq!(framed(&Greeting::Welcome(WELCOME)), welcome);
        let refused = framed(&refuse());
        assert_eq!(refused[..15], [b'D', b'W', b'C', b'P', 30, 0, 3, 1, 0, 4, 0, 5, 0, 21, 0]);
        assert_eq!(&refused[15..], b"speaks 4..5, not 1..3");
    }

    #[test]
    fn every_front_part_is_incomplete() {
        let bytes = framed(&refuse());
        for end in 0..bytes.len() {
            assert_eq!(Greeting::decode_framed(&bytes[..end]), Ok(None), "first {end} bytes");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let mut bytes = framed(&Greeting::Hello(HELLO));
        bytes.extend_from_slice(b"later");
        bytes[4] += 5;
        assert_eq!(Greeting::decode_framed(&bytes), Ok(Some((Greeting::Hello(HELLO), bytes.len()))));
    }

    #[test]
    fn what_is_no_greeting_is_refused_early() {
        assert!(Greeting::decode_framed(b"G").is_err());
        assert!(Greeting::decode_framed(b"DWCQ").is_err());
        let oversized = [b'D', b'W', b'C', b'P', 0xff, 0xff];
        assert!(matches!(Greeting::decode_framed(&oversized), Err(CodecError::TooLarge { .. })));
        let unknown_kind = [b'D', b'W', b'C', b'P', 1, 0, 9];
        assert!(matches!(Greeting::decode_framed(&unknown_kind), Err(CodecError::Unknown { .. })));
    }

    #[test]
    fn newest_common_version_wins() {
        let range = |min, max| VersionRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 1)), Some(1));
        assert_eq!(range(1, 2).common(range(3, 4)), None);
        assert_eq!(range(5, 1).common(range(1, 5)), None);
    }

    /// xorshift64 (Marsaglia 2003): the seed in a failure's message replays it.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn mutated_greetings_never_panic_and_what_is_read_can_be_written() {
        let originals = [
            framed(&Greeting::Hello(HELLO)),
            framed(&Greeting::Welcome(WELCOME)),
            framed(&refuse()),
            framed(&Greeting::Pair(PAIR)),
        ];
        for seed in 1..=20_000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut bytes = originals[(next(&mut state) % 4) as usize].clone();
            for _ in 0..=next(&mut state) % 4 {
                let at = (next(&mut state) % bytes.len() as u64) as usize;
                match next(&mut state) % 4 {
                    0 => bytes[at] ^= 1 << (next(&mut state) % 8),
                    1 => bytes[at] = next(&mut state) as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, next(&mut state) as u8),
                }
            }
            let Ok(Some((greeting, taken))) = Greeting::decode_framed(&bytes) else { continue };
            assert!(taken <= bytes.len(), "seed {seed}");
            let again = framed(&greeting);
            assert_eq!(Greeting::decode_framed(&again), Ok(Some((greeting, again.len()))), "seed {seed}");
        }
    }
}
