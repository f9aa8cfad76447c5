//! Files sealed with a passphrase: written through [`Sealer`], read whole by [`open`]. `dwcp_abi::disk` draws the layout. Used
//! by the command for copies of the state.
use std::io::{self, Write};
use std::num::NonZeroU32;

use dwcp_abi::codec::CodecError;
use dwcp_abi::disk::{SEALED_HEADER_BYTES, SEALED_SEGMENT_BYTES, SEALED_TAG_BYTES, SealedHeader};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no sealed file.
    #[error("it is not sealed: {0}")]
    Header(#[from] CodecError),
    /// Another passphrase, or somebody changed it, or a part is missing: there is no telling which.
    #[error("the passphrase is another one, or the file is damaged")]
    Refused,
}

/// Seals what is written to it. Only [`Sealer::finish`] makes the file whole.
pub struct Sealer<W> {
    target: W,
    seal: Seal,
    segment: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Writes the head. Deriving the key takes a good part of a second, as it has to.
    ///
    /// # Errors
    /// The system has no randomness, or `target` does not take the head.
    pub fn new(target: W, passphrase: &[u8]) -> io::Result<Self> {
        Self::with(target, passphrase, ITERATIONS)
    }

    fn with(mut target: W, passphrase: &[u8], iterations: u32) -> io::Result<Self> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| io::Error::other("the system has no randomness"))?;
        let header = SealedHeader { iterations, salt };
        target.write_all(&header.to_bytes())?;
        let segment = Vec::with_capacity(SEALED_SEGMENT_BYTES + SEALED_TAG_BYTES);
        Ok(Self { target, seal: Seal::new(&header, passphrase)?, segment })
    }

    /// Writes the last segment; gives the target back.
    ///
    /// # Errors
    /// `target` does not take it.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_segment(true)?;
        Ok(self.target)
    }

    fn write_segment(&mut self, is_last: bool) -> io::Result<()> {
        let (nonce, aad) = self.seal.next(is_last);
        let sealed = self.seal.key.seal_in_place_append_tag(nonce, aad, &mut self.segment);
        sealed.map_err(|_| io::Error::other("the file is too long to be sealed"))?;
        self.target.write_all(&self.segment)?;
        self.segment.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full segment waits until it is known not to be the last one.
        if self.segment.len() == SEALED_SEGMENT_BYTES && !bytes.is_empty() {
            self.write_segment(false)?;
        }
        let taken = bytes.len().min(SEALED_SEGMENT_BYTES - self.segment.len());
        self.segment.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

/// Whether a file begins as a sealed one does.
#[must_use]
pub fn is_sealed(file: &[u8]) -> bool {
    SealedHeader::is_of(file)
}

/// What is in a sealed file.
///
/// # Errors
/// [`OpenError`]; nothing of it is given away then.
pub fn open(mut file: Vec<u8>, passphrase: &[u8]) -> Result<Vec<u8>, OpenError> {
    let truncated = CodecError::Unknown { field: "length", value: file.len() as u64 };
    let header = SealedHeader::from_bytes(file.first_chunk::<SEALED_HEADER_BYTES>().ok_or(truncated)?)?;
    let mut seal = Seal::new(&header, passphrase).map_err(|_| OpenError::Refused)?;
    let mut plain = Vec::with_capacity(file.len());
    let mut rest = &mut file[SEALED_HEADER_BYTES..];
    loop {
        let length = rest.len().min(SEALED_SEGMENT_BYTES + SEALED_TAG_BYTES);
        let (segment, behind) = rest.split_at_mut(length);
        let is_last = behind.is_empty();
        let (nonce, aad) = seal.next(is_last);
        let opened = seal.key.open_in_place(nonce, aad, segment).map_err(|_| OpenError::Refused)?;
        plain.extend_from_slice(opened);
        if is_last {
            return Ok(plain);
        }
        rest = behind;
    }
}

/// The key, and which segment is next.
struct Seal {
    key: LessSafeKey,
    header: [u8; SEALED_HEADER_BYTES],
    number: u64,
}

impl Seal {
    fn new(header: &SealedHeader, passphrase: &[u8]) -> io::Result<Self> {
        let iterations = NonZeroU32::new(header.iterations).ok_or(io::ErrorKind::InvalidData)?;
        let mut bytes = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &header.salt, passphrase, &mut bytes);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { key: LessSafeKey::new(key), header: header.to_bytes(), number: 0 })
    }

    /// No nonce comes twice: numbers count up, and the key is of this file alone, as its salt is.
    fn next(&mut self, is_last: bool) -> (Nonce, Aad<[u8; SEALED_HEADER_BYTES]>) {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.number.to_le_bytes());
        nonce[11] = u8::from(is_last);
        self.number += 1;
        (Nonce::assume_unique_for_key(nonce), Aad::from(self.header))
    }
}

/// OWASP's figure for PBKDF2-HMAC-SHA256 (Password Storage Cheat Sheet, 2023).
const ITERATIONS: u32 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_abi::disk::SEALED_ITERATIONS;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::with(Vec::new(), b"correct horse", *SEALED_ITERATIONS.start()).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    #[test]
    fn every_length_comes_back() {
        for length in [0, 1, SEALED_SEGMENT_BYTES, SEALED_SEGMENT_BYTES + 1] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let file = sealed(&plain);
            assert!(is_sealed(&file) && !is_sealed(&plain));
            assert_eq!(open(file, b"correct horse").unwrap(), plain, "{length} bytes");
        }
    }

    #[test]
    fn what_was_changed_in_any_way_is_refused() {
        let plain = vec![5; 2 * SEALED_SEGMENT_BYTES + 10];
        let file = sealed(&plain);
        let segment = SEALED_SEGMENT_BYTES + SEALED_TAG_BYTES;
        let mut changed = vec![file.clone(); 5];
        // A bit, the salt, the last segment, the order, the end.
        changed[0][100] ^= 1;
        changed[1][20] ^= 1;
        changed[2].truncate(SEALED_HEADER_BYTES + 2 * segment);
        changed[3].truncate(SEALED_HEADER_BYTES);
        changed[3].extend_from_slice(&file[SEALED_HEADER_BYTES + segment..][..segment]);
        changed[3].extend_from_slice(&file[SEALED_HEADER_BYTES..][..segment]);
        changed[3].extend_from_slice(&file[SEALED_HEADER_BYTES + 2 * segment..]);
        changed[4].push(0);
        for (number, file) in changed.into_iter().enumerate() {
            assert!(matches!(open(file, b"correct horse"), Err(OpenError::Refused)), "change {number}");
        }
        assert!(matches!(open(file, b"wrong horse"), Err(OpenError::Refused)));
        assert!(matches!(open(plain, b"x"), Err(OpenError::Header(_))));
        assert!(matches!(open(Vec::new(), b"x"), Err(OpenError::Header(_))));
    }
}
