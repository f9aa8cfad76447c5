//! TLS 1.3 between members: both ends show their node's certificate, and are known by its fingerprint or not at all.
//! Who may say what follows from the fingerprint, and is decided where the connection is used.
use std::sync::Arc;

use dwcp_abi::wire::CLUSTER_ALPN;
use dwcp_sys::identity::{Fingerprint, Identity};
use dwcp_sys::pinned::{Accept, PinnedVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What every handshake of this node has in common.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    shown: Arc<SingleCertAndKey>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Self {
        let shown = Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified())));
        Self { provider: Arc::new(rustls::crypto::ring::default_provider()), shown }
    }

    /// For connections to the one node with this fingerprint.
    pub(super) fn connector(&self, expected: Fingerprint) -> Result<TlsConnector, Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(Some(expected))))
            .with_client_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = vec![CLUSTER_ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// For connections from anybody who holds the key of the certificate that it shows.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(self.verifier(None)))
            .with_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = vec![CLUSTER_ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn verifier(&self, expected: Option<Fingerprint>) -> PinnedVerifier<Expected> {
        PinnedVerifier::new(Expected(expected), self.provider.signature_verification_algorithms)
    }
}

/// The one node that is expected, or anybody who holds the key of what it shows.
#[derive(Debug)]
struct Expected(Option<Fingerprint>);

impl Accept for Expected {
    fn accepts(&self, shown: &Fingerprint) -> bool {
        self.0.as_ref().is_none_or(|expected| expected == shown)
    }
}
