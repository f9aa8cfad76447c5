//! Plain bytes into protected records: the sending direction of a lane. Called by workers for what they are about
//! to send.
use ring::aead::{Aad, LessSafeKey};

use super::{
    ALERT_CLOSE_NOTIFY, ALERT_LEVEL_WARNING, DirectionSecrets, HEADER_LENGTH, OVERHEAD, PLAIN_MAX,
    RecordError, Sequence, TYPE_ALERT, TYPE_APPLICATION_DATA,
};

/// Seals what this node sends on a lane.
#[derive(Debug)]
pub struct Sealer {
    key: LessSafeKey,
    pub(super) sequence: Sequence,
}

impl Sealer {
    /// Continues where the handshake ended.
    ///
    /// # Errors
    /// [`RecordError::Library`] where the library refuses the key.
    pub fn new(secrets: &DirectionSecrets) -> Result<Self, RecordError> {
        let (key, sequence) = secrets.key()?;
        Ok(Self { key, sequence })
    }

    #[cfg(test)]
    pub(super) fn from_parts(key: LessSafeKey, sequence: Sequence) -> Self {
        Self { key, sequence }
    }

    /// Seals all of `plain` into records of at most [`PLAIN_MAX`] plain bytes at the front of `out`, and says how
    /// many bytes they take: [`sealed_length`] of `plain.len()`. Empty `plain` makes one empty record.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`], with nothing sealed; [`RecordError::Exhausted`], after which the lane must end.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        let needed = sealed_length(plain.len());
        let room = out.len();
        let out = out.get_mut(..needed).ok_or(RecordError::NoRoom { needed, room })?;
        if plain.is_empty() {
            return self.seal_record(TYPE_APPLICATION_DATA, plain, out);
        }
        for (plain, record) in plain.chunks(PLAIN_MAX).zip(out.chunks_mut(PLAIN_MAX + OVERHEAD)) {
            self.seal_record(TYPE_APPLICATION_DATA, plain, record)?;
        }
        Ok(needed)
    }

    /// Seals the alert that ends a lane in good order; says how many bytes of `out` it took
    /// ([`CLOSE_NOTIFY_LENGTH`]).
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_close_notify(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let room = out.len();
        let needed = CLOSE_NOTIFY_LENGTH;
        let out = out.get_mut(..needed).ok_or(RecordError::NoRoom { needed, room })?;
        self.seal_record(TYPE_ALERT, &[ALERT_LEVEL_WARNING, ALERT_CLOSE_NOTIFY], out)
    }

    /// The lane has carried so much under its key that another should take its place.
    #[must_use]
    pub fn needs_retirement(&self) -> bool {
        self.sequence.needs_retirement()
    }

    /// `record` is exactly as long as the sealed record.
    pub(super) fn seal_record(
        &mut self,
        content_type: u8,
        plain: &[u8],
        record: &mut [u8],
    ) -> Result<usize, RecordError> {
        let length = record.len();
        let (header, body) = record.split_first_chunk_mut().ok_or(RecordError::Library)?;
        *header = record_header(body.len());
        let (inner, tag) = body.split_at_mut(plain.len() + 1);
        inner[..plain.len()].copy_from_slice(plain);
        inner[plain.len()] = content_type;
        let nonce = self.sequence.nonce()?;
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(*header), inner);
        tag.copy_from_slice(sealed.map_err(|_| RecordError::Library)?.as_ref());
        self.sequence.advance();
        Ok(length)
    }
}

/// Bytes that [`Sealer::seal`] makes of so many plain bytes.
#[must_use]
pub const fn sealed_length(plain_length: usize) -> usize {
    let records = if plain_length == 0 { 1 } else { plain_length.div_ceil(PLAIN_MAX) };
    plain_length + records * OVERHEAD
}

/// Bytes that [`Sealer::seal_close_notify`] makes.
pub const CLOSE_NOTIFY_LENGTH: usize = 2 + OVERHEAD;

/// Version 0x0303 stands there for the sake of middleboxes (RFC 8446 §5.1). The body fits: PLAIN_MAX + 17.
fn record_header(body_length: usize) -> [u8; HEADER_LENGTH] {
    [TYPE_APPLICATION_DATA, 3, 3, (body_length >> 8) as u8, body_length as u8]
}
