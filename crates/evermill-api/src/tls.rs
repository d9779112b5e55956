//! TLS over TCP: a certificate and its key, read again when their files change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::limits;

/// A certificate with its chain, and its key, both as PEM.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    now: Mutex<Now>,
}

struct Now {
    config: Arc<ServerConfig>,
    /// When the files were changed last, as far as was looked.
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// A sentence with the file: it cannot be read, holds something else, or the two do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let config = config(certificate, key)?;
        Ok(Self {
            now: Mutex::new(Now {
                config,
                changed: changed(certificate, key),
                looked: Instant::now(),
            }),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// What the next connection is greeted with. A certificate that was renewed is taken when it can be read
    /// whole; until then the old one goes on.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= limits::CERTIFICATE_LOOK {
            now.looked = Instant::now();
            let changed = changed(&self.certificate, &self.key);
            if changed != now.changed
                && let Ok(config) = config(&self.certificate, &self.key)
            {
                now.config = config;
                now.changed = changed;
            }
        }
        TlsAcceptor::from(Arc::clone(&now.config))
    }
}

fn changed(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let said = |path: &Path, cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
    let read = |path: &Path| fs::read(path).map_err(|cause: io::Error| said(path, &cause));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|cause| said(certificate, &cause))?;
    if chain.is_empty() {
        return Err(said(
            certificate,
            &"there is no certificate in it; want PEM",
        ));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|cause| said(key, &cause))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|cause: rustls::Error| cause.to_string())?;
    let config = builder
        .with_no_client_auth()
        .with_single_cert(chain, secret);
    config.map(Arc::new).map_err(|cause| {
        let pair = format!("{} and {}", certificate.display(), key.display());
        format!("{pair} do not go together: {cause}")
    })
}
