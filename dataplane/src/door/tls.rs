//! rustls, set up for lanes: TLS 1.3 only, both ends with certificates, AES-GCM, one ALPN name, no tickets, no
//! resumption, no early data, secrets that can be taken out. Used by [`super::handshake`].
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};

use super::plan::Plan;
use super::verify::{Known, Verifier, verifier};
use crate::identity::{Fingerprint, Identity};

/// The name that both ends must choose.
pub(super) const ALPN: &[u8] = b"dwcp/1";

/// What every handshake of a door has in common.
#[derive(Debug)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    shown: Arc<SingleCertAndKey>,
}

impl Tls {
    /// Shows `identity` to every peer.
    pub(crate) fn new(identity: &Identity) -> Self {
        let mut provider = default_provider();
        // AES-128 first: it seals 1.34 times the bytes per core, and its strength is not what a lane would fail by.
        provider.cipher_suites =
            vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
        let shown = Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified())));
        Self { provider: Arc::new(provider), shown }
    }

    /// The dialler's end of a connection to the one peer with fingerprint `expected`.
    pub(super) fn dial(
        &self,
        expected: Fingerprint,
        address: IpAddr,
    ) -> Result<(ClientConnection, Arc<Verifier>), Error> {
        let verifier = Arc::new(self.verifier(Known::One(expected)));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_early_data = false;
        config.enable_secret_extraction = true;
        let name = ServerName::IpAddress(address.into());
        Ok((ClientConnection::new(Arc::new(config), name)?, verifier))
    }

    /// The acceptor's end of a connection from any peer of `plan`.
    pub(super) fn accept(&self, plan: Arc<Plan>) -> Result<(ServerConnection, Arc<Verifier>), Error> {
        let verifier = Arc::new(self.verifier(Known::Plan(plan)));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::clone(&self.shown) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.enable_secret_extraction = true;
        Ok((ServerConnection::new(Arc::new(config))?, verifier))
    }

    fn verifier(&self, known: Known) -> Verifier {
        verifier(known, self.provider.signature_verification_algorithms)
    }
}

/// Connections in memory, for tests of what comes after them.
#[cfg(test)]
pub(crate) mod testing {
    use rustls::sign::CertifiedKey;
    use rustls::{CipherSuite, Connection};

    use super::*;
    use crate::door::{PeerName, PlanPeer};

    /// A dialler and an acceptor whose handshake is complete, with the given suite.
    pub(crate) fn connected(suite: CipherSuite) -> (Connection, Connection) {
        let (near, far) = (Identity::generate().expect("identity"), Identity::generate().expect("identity"));
        let peer = |identity: &Identity| PlanPeer {
            name: PeerName::from("peer"),
            fingerprint: identity.fingerprint(),
            address: String::new(),
        };
        let plan = Arc::new(Plan { peers: vec![peer(&near)], ..Plan::default() });
        let mut tls = Tls::new(&near);
        let mut provider = (*tls.provider).clone();
        provider.cipher_suites.retain(|known| known.suite() == suite);
        tls.provider = Arc::new(provider);
        let (dialler, _) = tls.dial(far.fingerprint(), [127, 0, 0, 1].into()).expect("dialler");
        let (acceptor, _) = Tls::new(&far).accept(plan).expect("acceptor");
        let (mut dialler, mut acceptor) = (Connection::from(dialler), Connection::from(acceptor));
        while dialler.is_handshaking() || acceptor.is_handshaking() {
            carry(&mut dialler, &mut acceptor);
            carry(&mut acceptor, &mut dialler);
        }
        (dialler, acceptor)
    }

    /// Shows one node's certificate with another node's key.
    pub(crate) fn impostor(shown: &Identity, own: &Identity) -> Tls {
        let certified = CertifiedKey::new(shown.certified().cert.clone(), Arc::clone(&own.certified().key));
        let mut tls = Tls::new(own);
        tls.shown = Arc::new(SingleCertAndKey::from(certified));
        tls
    }

    /// Everything that `from` has to say, to `to`.
    pub(crate) fn carry(from: &mut Connection, to: &mut Connection) {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).expect("memory");
        }
        hear(to, &bytes);
    }

    /// `bytes` arrive at `to`.
    pub(crate) fn hear(to: &mut Connection, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            to.read_tls(&mut bytes).expect("memory");
            to.process_new_packets().expect("fine records");
        }
    }
}
