//! The listener for other hosts: TLS 1.3 and nothing older. Certificate and key are read again when their files change,
//! without a restart; files that are wrong then leave the former ones in use.
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::app::App;

/// Where certificate and key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{file} cannot be read: {error}")]
    Read { file: String, error: std::io::Error },
    #[error("{file} holds no usable PEM: {error}")]
    Pem { file: String, error: rustls::pki_types::pem::Error },
    #[error("{certificate} and {key} do not belong together or are not usable: {error}")]
    Unusable { certificate: String, key: String, error: rustls::Error },
    #[error("{file} is no X.509 certificate")]
    Certificate { file: String },
}

/// What is in use.
pub(super) struct Tls {
    files: Files,
    inner: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    read_of: [Option<SystemTime>; 2],
}

impl Tls {
    /// Reads the files for the first time; the second value is when the certificate expires, in seconds since 1970.
    pub(super) fn load(files: Files) -> Result<(Self, i64), TlsError> {
        let read_of = files.changed();
        let (config, expires_s) = files.read()?;
        Ok((Self { files, inner: RwLock::new(Loaded { config, read_of }) }, expires_s))
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let config = Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).config);
        TlsAcceptor::from(config)
    }

    /// Looks now and then whether the files have changed.
    pub(super) async fn follow(self: Arc<Self>, app: Arc<App>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let changed = self.files.changed();
            if changed == self.inner.read().unwrap_or_else(PoisonError::into_inner).read_of {
                continue;
            }
            match self.files.read() {
                Ok((config, expires_s)) => {
                    app.lock().certificate_expires_s = Some(expires_s);
                    *self.inner.write().unwrap_or_else(PoisonError::into_inner) =
                        Loaded { config, read_of: changed };
                    tracing::info!(component = "http", expires_s, "certificate read again");
                }
                Err(error) => {
                    // Said once for each change.
                    self.inner.write().unwrap_or_else(PoisonError::into_inner).read_of = changed;
                    app.note_error("control", "certificate", &error.to_string());
                    tracing::error!(component = "http", %error, "new certificate not used; the former one stays");
                }
            }
        }
    }
}

impl Files {
    /// When each was changed last.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key]
            .map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
    }

    fn read(&self) -> Result<(Arc<ServerConfig>, i64), TlsError> {
        let name = |file: &PathBuf| file.display().to_string();
        let read =
            |file: &PathBuf| std::fs::read(file).map_err(|error| TlsError::Read { file: name(file), error });
        let pem = |file: &PathBuf, error| TlsError::Pem { file: name(file), error };
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let chain = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem(&self.certificate, error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| pem(&self.key, error))?;
        let expires_s = chain.first().and_then(|first| expiry(first));
        let expires_s = expires_s.ok_or_else(|| TlsError::Certificate { file: name(&self.certificate) })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let config = config.map_err(|error| TlsError::Unusable {
            certificate: name(&self.certificate),
            key: name(&self.key),
            error,
        })?;
        Ok((Arc::new(config), expires_s))
    }
}

fn expiry(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

const LOOK: Duration = Duration::from_secs(5);
