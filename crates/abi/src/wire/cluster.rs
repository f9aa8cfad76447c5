//! Frames between the controls of a cluster's members, inside TLS 1.3.
//!
//! ```text
//!  0               4        5        8
//!  ┌───────────────┬────────┬────────┐
//!  │    length     │  kind  │   0    │   then `length` bytes. Integers are little-endian.
//!  └───────────────┴────────┴────────┘
//! ```
//! A member that dials only sends; the other direction has its own connection. Who asks to be admitted sends one
//! [`ClusterJoin`] and gets one answer.
use crate::codec::{CodecError, Encoded, Reader, codes, records};

codes! {
    /// What a frame of a cluster carries.
    pub enum ClusterFrameKind: u8 {
        /// A message of the consensus protocol, as `crates/consensus` writes it.
        Message = 0,
        /// A [`ClusterJoin`].
        Join = 1,
        /// A [`ClusterAdmitted`].
        Admitted = 2,
        /// Why not, as text of at most [`CLUSTER_REASON_BYTES_MAX`] bytes.
        Refused = 3,
    }
}

/// In front of every frame.
pub const CLUSTER_FRAME_HEADER_BYTES: usize = 8;
/// Largest body of a frame.
pub const CLUSTER_FRAME_BYTES_MAX: usize = 8 << 20;
/// Longest reason for a refusal.
pub const CLUSTER_REASON_BYTES_MAX: usize = 1024;
/// The name that both ends choose in the handshake.
pub const CLUSTER_ALPN: &[u8] = b"dwcp-cluster/1";
/// Longest name, region and address of a member.
pub const CLUSTER_TEXT_BYTES_MAX: usize = 128;

/// The header of a frame.
///
/// # Errors
/// [`CodecError::TooLarge`] where the body is longer than any may be.
pub fn cluster_frame_header(
    kind: ClusterFrameKind,
    length: usize,
) -> Result<[u8; CLUSTER_FRAME_HEADER_BYTES], CodecError> {
    let too_large =
        CodecError::TooLarge { field: "length", value: length as u64, max: CLUSTER_FRAME_BYTES_MAX as u64 };
    if length > CLUSTER_FRAME_BYTES_MAX {
        return Err(too_large);
    }
    let [a, b, c, d] = u32::try_from(length).map_err(|_| too_large)?.to_le_bytes();
    Ok([a, b, c, d, kind as u8, 0, 0, 0])
}

/// Kind and length of the body, from a header.
///
/// # Errors
/// [`CodecError::Unknown`] and [`CodecError::TooLarge`].
pub fn read_cluster_frame_header(
    header: &[u8; CLUSTER_FRAME_HEADER_BYTES],
) -> Result<(ClusterFrameKind, usize), CodecError> {
    let mut reader = Reader::new(header);
    let length = reader.u32()?;
    let kind = ClusterFrameKind::read(&mut reader)?;
    if reader.array::<3>()? != [0; 3] {
        return Err(CodecError::Unknown { field: "reserved", value: 1 });
    }
    if length as usize > CLUSTER_FRAME_BYTES_MAX {
        let (value, max) = (u64::from(length), CLUSTER_FRAME_BYTES_MAX as u64);
        return Err(CodecError::TooLarge { field: "length", value, max });
    }
    Ok((kind, length as usize))
}

records! {
    /// Asks to become a member.
    pub struct ClusterJoin<'a> {
        /// The secret half of the token.
        pub secret: [u8; 16],
        /// Public key of the replica's signatures, Ed25519.
        pub signing: [u8; 32],
        /// Public key of its verifiable random function, ristretto255.
        pub random: [u8; 32],
        /// [`ClusterAbout`], encoded.
        pub about: &'a [u8],
    }

    /// What members know of each other beside keys.
    pub struct ClusterAbout<'a> {
        /// SHA-256 of the node's certificate.
        pub fingerprint: [u8; 32],
        /// Its name.
        pub name: &'a [u8],
        /// Where its control listens for members, `host:port`.
        pub address: &'a [u8],
        /// Where it stands; for people.
        pub region: &'a [u8],
    }

    /// Admits a new member. Behind it stands, to the end of the frame, where its first epoch begins, as
    /// `crates/consensus` writes it.
    pub struct ClusterAdmitted {
        /// The cluster's name.
        pub cluster: [u8; 32],
        /// The new member's number.
        pub replica: u16,
    }
}
