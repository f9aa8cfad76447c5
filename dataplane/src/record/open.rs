//! Protected records into plain bytes: the receiving direction of a lane. Called by workers for what arrived; it
//! neither reads from sockets nor keeps parts of records.
use ring::aead::{Aad, LessSafeKey};

use super::{
    ALERT_CLOSE_NOTIFY, BODY_MAX, DirectionSecrets, HEADER_LENGTH, PLAIN_MAX, RecordError, Sequence,
    TAG_LENGTH, TYPE_ALERT, TYPE_APPLICATION_DATA,
};

/// Opens what the peer sends on a lane.
#[derive(Debug)]
pub struct Opener {
    key: LessSafeKey,
    pub(super) sequence: Sequence,
}

/// What a record held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// So many plain bytes, at the front of the output.
    Data(usize),
    /// The peer has ended the lane in good order; nothing follows.
    CloseNotify,
}

impl Opener {
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

    /// Bytes of the whole record, header included, that begins with `header`.
    ///
    /// # Errors
    /// [`RecordError::Header`] where no protected record begins so.
    pub fn record_length(header: &[u8; HEADER_LENGTH]) -> Result<usize, RecordError> {
        let [content_type, major, minor, high, low] = *header;
        let body_length = usize::from(u16::from_be_bytes([high, low]));
        let fits = (TAG_LENGTH + 1..=BODY_MAX).contains(&body_length);
        if (content_type, major, minor) != (TYPE_APPLICATION_DATA, 3, 3) || !fits {
            return Err(RecordError::Header { header: *header });
        }
        Ok(HEADER_LENGTH + body_length)
    }

    /// Bytes of output that [`Self::open`] needs for a record of so many bytes: those of the plain text, and of the
    /// content type and padding behind it, which the next record may overwrite.
    #[must_use]
    pub const fn room_for(record_length: usize) -> usize {
        record_length.saturating_sub(HEADER_LENGTH + TAG_LENGTH)
    }

    /// Opens one whole record (header and body) into the front of `out`, which must have room for its plain bytes.
    /// The record is spent: its bytes are whatever the library left there.
    ///
    /// # Errors
    /// Any [`RecordError`]. After one the lane must end: the stream has lost its place.
    pub fn open(&mut self, record: &mut [u8], out: &mut [u8]) -> Result<Opened, RecordError> {
        let found = record.len();
        let Some((header, body)) = record.split_first_chunk_mut() else {
            return Err(RecordError::Length { expected: HEADER_LENGTH, found });
        };
        let expected = Self::record_length(header)?;
        if expected != found {
            return Err(RecordError::Length { expected, found });
        }
        let room = out.len();
        if room < Self::room_for(found) {
            return Err(RecordError::NoRoom { needed: Self::room_for(found), room });
        }
        let nonce = self.sequence.nonce()?;
        let inner =
            self.key.open_in_place(nonce, Aad::from(*header), body).map_err(|_| RecordError::Forged)?;
        self.sequence.advance();
        // Sixteen KiB that were just written are in the nearest cache: copying them is nearly free, and the record may
        // lie anywhere in what was received.
        let opened = content(inner)?;
        if let Opened::Data(count) = opened {
            out[..count].copy_from_slice(&inner[..count]);
        }
        Ok(opened)
    }

    /// The lane has carried so much under its key that another should take its place.
    #[must_use]
    pub fn needs_retirement(&self) -> bool {
        self.sequence.needs_retirement()
    }
}

/// Splits plain text, content type and zero padding (RFC 8446 §5.4).
fn content(inner: &[u8]) -> Result<Opened, RecordError> {
    if inner.len() > PLAIN_MAX + 1 {
        return Err(RecordError::Length { expected: PLAIN_MAX + 1, found: inner.len() });
    }
    let Some(end) = inner.iter().rposition(|byte| *byte != 0) else {
        return Err(RecordError::ContentType { content_type: 0 });
    };
    match (inner[end], &inner[..end]) {
        (TYPE_APPLICATION_DATA, plain) => Ok(Opened::Data(plain.len())),
        (TYPE_ALERT, [_, ALERT_CLOSE_NOTIFY]) => Ok(Opened::CloseNotify),
        (TYPE_ALERT, [_, code]) => Err(RecordError::Alert { code: *code }),
        (content_type, _) => Err(RecordError::ContentType { content_type }),
    }
}
