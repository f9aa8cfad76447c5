//! TLS records from a socket, one at a time and not one byte further: what follows the greeting belongs to the
//! worker. Used by [`super::handshake`] only; it looks at nothing but lengths.
use std::io::{self, Read};

use crate::record::{BODY_MAX, HEADER_LENGTH};

/// Collects one record after the other.
#[derive(Debug, Default)]
pub(super) struct ExactReader {
    record: Vec<u8>,
    total: usize,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A whole record, header included.
    Record(&'a [u8]),
    /// The socket has no more bytes at present.
    Waiting,
}

/// Why no record comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExactError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("closed by the other end")]
    Closed,
    #[error("what arrives is not TLS")]
    NotTls,
    #[error("more than {GREETING_BYTES_MAX} bytes before the greeting was complete")]
    TooMuch,
}

impl ExactReader {
    /// Reads on, at most to the end of one record.
    pub(super) fn read(&mut self, stream: &mut impl Read) -> Result<Step<'_>, ExactError> {
        if self.record.len() >= HEADER_LENGTH && self.record.len() == self.wanted()? {
            self.record.clear();
        }
        loop {
            let wanted = self.wanted()?;
            let have = self.record.len();
            if have == wanted {
                return Ok(Step::Record(&self.record));
            }
            self.record.resize(wanted, 0);
            let read = stream.read(&mut self.record[have..]);
            self.record.truncate(have + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(ExactError::Closed),
                Ok(count) => self.total += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waiting),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if self.total > GREETING_BYTES_MAX {
                return Err(ExactError::TooMuch);
            }
        }
    }

    /// Bytes of the header while it is incomplete, of the whole record after that.
    fn wanted(&self) -> Result<usize, ExactError> {
        let Some(header) = self.record.first_chunk::<HEADER_LENGTH>() else { return Ok(HEADER_LENGTH) };
        let [content_type, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !CONTENT_TYPES.contains(&content_type) || major != 3 || length == 0 || length > BODY_MAX {
            return Err(ExactError::NotTls);
        }
        Ok(HEADER_LENGTH + length)
    }
}

/// change_cipher_spec, alert, handshake, application_data (RFC 8446 §5.1).
const CONTENT_TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// A handshake with two small certificates takes under 4 KiB.
const GREETING_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes a call, then would block once, and so on.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
        blocked: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.blocked = !self.blocked;
            if self.blocked {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.step.min(out.len());
            (&self.bytes[..self.bytes.len().min(count)]).read(out).inspect(|read| {
                self.bytes = &self.bytes[*read..];
            })
        }
    }

    fn record(content_type: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![content_type, 3, 3, (length >> 8) as u8, length as u8];
        bytes.resize(HEADER_LENGTH + length, 0xab);
        bytes
    }

    #[test]
    fn stops_at_the_end_of_each_record() {
        let stream = [record(22, 300), record(20, 1), record(23, BODY_MAX), vec![1, 2, 3]].concat();
        for step in [1, 4, 7, 1000, usize::MAX] {
            let mut trickle = Trickle { bytes: &stream, step, blocked: false };
            let mut reader = ExactReader::default();
            let mut left = Vec::new();
            while left.len() < 3 {
                if let Step::Record(_) = reader.read(&mut trickle).expect("record") {
                    left.push(trickle.bytes.len());
                }
            }
            assert_eq!(left, [6 + HEADER_LENGTH + BODY_MAX + 3, HEADER_LENGTH + BODY_MAX + 3, 3], "{step}");
        }
    }

    #[test]
    fn refuses_what_is_not_tls() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            &[22, 2, 0, 0, 1, 0],
            &[23, 3, 3, 0x41, 1],
            &[24, 3, 3, 0, 1],
            &[22, 3, 1, 0, 0],
        ] {
            let failed = ExactReader::default().read(&mut &bytes[..]).expect_err("refused");
            assert!(matches!(failed, ExactError::NotTls), "{bytes:?}");
        }
    }

    #[test]
    fn ends_with_the_stream_and_at_its_limit() {
        let failed = ExactReader::default().read(&mut &[22, 3, 1][..]).expect_err("closed");
        assert!(matches!(failed, ExactError::Closed));
        let endless = record(22, BODY_MAX).repeat(8);
        let mut endless = &endless[..];
        let mut reader = ExactReader::default();
        let failed = loop {
            if let Err(failed) = reader.read(&mut endless) {
                break failed;
            }
        };
        assert!(matches!(failed, ExactError::TooMuch));
    }
}
