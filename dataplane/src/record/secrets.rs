//! The secrets of a lane: what rustls gives out after a handshake, in the form that the record layer takes.
//! Made by the door, spent by a worker; it derives nothing itself.
use ring::aead::{AES_128_GCM, AES_256_GCM, Algorithm, LessSafeKey, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::{RecordError, Sequence};

/// Cipher suites that a lane may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128Gcm,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256Gcm,
}

/// Key, IV and next sequence number of one direction. The key is wiped when this is dropped.
pub struct DirectionSecrets {
    suite: Suite,
    secrets: ConnectionTrafficSecrets,
    sequence: u64,
}

/// Both directions of a lane.
#[derive(Debug)]
pub struct LaneSecrets {
    /// For what this node sends.
    pub send: DirectionSecrets,
    /// For what the peer sends.
    pub receive: DirectionSecrets,
}

impl LaneSecrets {
    /// Takes what [`rustls::Connection::dangerous_extract_secrets`] gave.
    ///
    /// # Errors
    /// [`RecordError::Library`] for a suite that lanes do not have.
    pub fn from_extracted(extracted: ExtractedSecrets) -> Result<Self, RecordError> {
        Ok(Self {
            send: DirectionSecrets::from_traffic(extracted.tx)?,
            receive: DirectionSecrets::from_traffic(extracted.rx)?,
        })
    }

    /// The suite of both directions.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.send.suite
    }
}

impl DirectionSecrets {
    fn from_traffic((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let suite = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { .. } => Suite::Aes128Gcm,
            ConnectionTrafficSecrets::Aes256Gcm { .. } => Suite::Aes256Gcm,
            _ => return Err(RecordError::Library),
        };
        Ok(Self { suite, secrets, sequence })
    }

    pub(super) fn key(&self) -> Result<(LessSafeKey, Sequence), RecordError> {
        let (key, iv) = match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (key.as_ref(), iv.as_ref()),
            _ => return Err(RecordError::Library),
        };
        let iv = iv.try_into().map_err(|_| RecordError::Library)?;
        let unbound = UnboundKey::new(self.suite.algorithm(), key).map_err(|_| RecordError::Library)?;
        Ok((LessSafeKey::new(unbound), Sequence { iv, next: self.sequence }))
    }
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
        }
    }
}

/// Shows no secret.
impl std::fmt::Debug for DirectionSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("DirectionSecrets");
        shown.field("suite", &self.suite).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
