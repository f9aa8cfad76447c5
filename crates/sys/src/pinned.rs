//! Certificates that are known by fingerprint, or not at all: what the dataplane's lanes and the cluster's connections have
//! in common.
//!
//! Nothing in a certificate is believed but its key. That the other end holds that key is what the handshake's signature
//! proves, and it is verified here for every connection.
use std::fmt;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::identity::Fingerprint;

/// Whose certificates are accepted.
pub trait Accept: fmt::Debug + Send + Sync + 'static {
    /// Whether a certificate with this fingerprint is.
    fn accepts(&self, shown: &Fingerprint) -> bool;
}

/// Verifies the other end of connections, in either role. Ed25519 and TLS 1.3 only.
#[derive(Debug)]
pub struct PinnedVerifier<A> {
    known: A,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<A: Accept> PinnedVerifier<A> {
    /// Accepts who is known.
    #[must_use]
    pub const fn new(known: A, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { known, algorithms }
    }

    /// Who decides.
    #[must_use]
    pub const fn known(&self) -> &A {
        &self.known
    }

    fn verify_certificate(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        if self.known.accepts(&Fingerprint::of_certificate(end_entity)) {
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

impl<A: Accept> ServerCertVerifier for PinnedVerifier<A> {
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

impl<A: Accept> ClientCertVerifier for PinnedVerifier<A> {
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
