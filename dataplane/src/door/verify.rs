//! Who is at the other end: certificates are known by fingerprint, or not at all. Used by [`super::tls`] for both
//! roles; which fingerprints are known is the plan's affair.
//!
//! Nothing in a certificate is believed but its key. That the other end holds that key is what the handshake's
//! signature proves, and it is verified here for every connection.
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::plan::Plan;
use crate::identity::Fingerprint;

/// Whose certificates are accepted.
#[derive(Debug)]
pub(super) enum Known {
    /// The one peer that was dialled.
    One(Fingerprint),
    /// Every peer of a plan.
    Plan(Arc<Plan>),
}

/// Verifies the other end of one connection, and remembers whom it met there.
#[derive(Debug)]
pub(super) struct Verifier {
    known: Known,
    algorithms: WebPkiSupportedAlgorithms,
    presented: OnceLock<Fingerprint>,
}

impl Verifier {
    pub(super) fn new(known: Known, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { known, algorithms, presented: OnceLock::new() }
    }

    /// The certificate that the other end showed, whether it was accepted or not.
    pub(super) fn presented(&self) -> Option<Fingerprint> {
        self.presented.get().copied()
    }

    fn verify_certificate(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let shown = Fingerprint::of_certificate(end_entity);
        let presented = *self.presented.get_or_init(|| shown);
        let known = match &self.known {
            Known::One(expected) => *expected == shown,
            Known::Plan(plan) => plan.by_fingerprint(&shown).is_some(),
        };
        if known && presented == shown {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_certificate(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_certificate(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Only TLS 1.3 is configured, so that rustls never asks.
fn tls12() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}
