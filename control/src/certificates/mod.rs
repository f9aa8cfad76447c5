//! The certificates of the HTTPS interface as files: read for the listener, and judged for people before they fail. Used
//! by HTTP and by whoever warns; opens no connection.
mod judge;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwcp_config::{CipherSuite, Security};
use dwcp_sys::identity::Fingerprint;
use rustls::crypto::{CryptoProvider, ring::cipher_suite};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

pub(crate) use judge::judge;

/// Where everything lies, and what follows from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Where clients are asked for certificates.
    pub(crate) clients: Option<Clients>,
    suites: Vec<CipherSuite>,
}

/// Which certificates of clients count.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) ca: PathBuf,
    is_required: bool,
}

/// A certificate that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse {
    /// `server` or `ca`.
    pub(crate) name: &'static str,
    /// In seconds since 1970.
    pub(crate) expires_s: i64,
    pub(crate) fingerprint: Fingerprint,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{file} cannot be read: {error}")]
    Read { file: String, error: std::io::Error },
    #[error("{file} is longer than {FILE_BYTES_MAX} bytes")]
    Large { file: String },
    #[error("{file} holds no usable PEM: {error}")]
    Pem { file: String, error: rustls::pki_types::pem::Error },
    #[error("{certificate} and {key} do not belong together or are not usable: {error}")]
    Unusable { certificate: String, key: String, error: rustls::Error },
    #[error("{file} is no X.509 certificate")]
    Certificate { file: String },
    #[error("{file} vouches for nobody: {reason}")]
    Authority { file: String, reason: String },
    #[error("no cipher suite is left: {0}")]
    Suites(rustls::Error),
}

/// What follows from the files.
pub(crate) struct Loaded {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) in_use: Vec<InUse>,
}

impl Files {
    pub(crate) fn of(security: &Security) -> Self {
        let clients = security
            .enable_mtls
            .then(|| Clients { ca: security.ca_file.clone(), is_required: security.client_cert_required });
        Self {
            certificate: security.certificate_file.clone(),
            key: security.key_file.clone(),
            clients,
            suites: security.cipher_suites.0.clone(),
        }
    }

    /// Each file.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Path> {
        let ca = self.clients.iter().map(|clients| clients.ca.as_path());
        [self.certificate.as_path(), self.key.as_path()].into_iter().chain(ca)
    }

    /// Reads everything and makes the settings of the listener of it.
    pub(crate) fn read(&self) -> Result<Loaded, CertificateError> {
        let provider = Arc::new(self.provider());
        let chain = chain(&self.certificate)?;
        let mut in_use = vec![in_use("server", &self.certificate, &chain[0])?];
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CertificateError::Suites)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let (verifier, authorities) = clients.verifier(provider)?;
                in_use.extend(authorities);
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key(&self.key)?);
        let mut config = config.map_err(|error| CertificateError::Unusable {
            certificate: name(&self.certificate),
            key: name(&self.key),
            error,
        })?;
        // A resumed session would keep a client's certificate in force that counts no longer.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Loaded { config: Arc::new(config), in_use })
    }

    fn provider(&self) -> CryptoProvider {
        let suite = |suite: &CipherSuite| match suite {
            CipherSuite::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::ChaCha20Poly1305 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        };
        let cipher_suites = self.suites.iter().map(suite).collect();
        CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() }
    }
}

impl Clients {
    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<(Arc<dyn ClientCertVerifier>, Vec<InUse>), CertificateError> {
        let wrong = |reason: String| CertificateError::Authority { file: name(&self.ca), reason };
        let mut roots = RootCertStore::empty();
        let mut authorities = Vec::new();
        for certificate in chain(&self.ca)? {
            authorities.push(in_use("ca", &self.ca, &certificate)?);
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok((verifier, authorities))
    }
}

/// Every certificate of a file; there is at least one.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |error| CertificateError::Pem { file: name(file), error };
    let bytes = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if chain.is_empty() {
        return Err(wrong(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let wrong = |error| CertificateError::Pem { file: name(file), error };
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(wrong)
}

fn read(file: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read;
    let wrong = |error| CertificateError::Read { file: name(file), error };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(wrong)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateError::Large { file: name(file) });
    }
    Ok(bytes)
}

fn in_use(what: &'static str, file: &Path, der: &[u8]) -> Result<InUse, CertificateError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| CertificateError::Certificate { file: name(file) })?;
    let expires_s = parsed.validity().not_after.timestamp();
    Ok(InUse { name: what, expires_s, fingerprint: Fingerprint::of_certificate(der) })
}

/// The DNS names that a certificate is for.
pub(crate) fn dns_names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    alternatives(parsed).iter().filter_map(name).collect()
}

fn alternatives<'a>(parsed: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) | Err(_) => &[],
    }
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

/// A chain has a few kilobytes, the certificates of all public authorities a few hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;
