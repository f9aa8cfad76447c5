//! The listener for other hosts: TLS 1.3 and nothing older. Its files are read again when they change, without a
//! restart; files that are wrong then leave the former ones in use.
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::certificates::{CertificateError, Files, InUse, Loaded};

/// What is in use.
pub(super) struct Tls {
    files: Files,
    inner: RwLock<(Loaded, Vec<Stamp>)>,
}

/// When a file was changed last, and its length.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads the files for the first time.
    pub(super) fn load(files: Files) -> Result<Self, CertificateError> {
        let stamps = stamps(&files);
        let loaded = files.read()?;
        Ok(Self { files, inner: RwLock::new((loaded, stamps)) })
    }

    /// The certificates in use.
    pub(super) fn in_use(&self) -> Vec<InUse> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).0.in_use.clone()
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&inner.0.config))
    }

    /// Looks now and then whether the files have changed.
    pub(super) async fn follow(self: Arc<Self>, app: Arc<App>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let stamps = stamps(&self.files);
            if stamps == self.inner.read().unwrap_or_else(PoisonError::into_inner).1 {
                continue;
            }
            match self.files.read() {
                Ok(loaded) => {
                    let expires_s = loaded.in_use.first().map(|first| first.expires_s);
                    app.lock().certificates = loaded.in_use.clone();
                    *self.inner.write().unwrap_or_else(PoisonError::into_inner) = (loaded, stamps);
                    tracing::info!(component = "http", expires_s, "certificates read again");
                }
                Err(error) => {
                    // Said once for each change.
                    self.inner.write().unwrap_or_else(PoisonError::into_inner).1 = stamps;
                    app.note_error("control", "certificate", &error.to_string());
                    tracing::error!(component = "http", %error, "new certificate not used; the former one stays");
                }
            }
        }
    }
}

fn stamps(files: &Files) -> Vec<Stamp> {
    let stamp = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.all().map(stamp).collect()
}

const LOOK: Duration = Duration::from_secs(5);
