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
        TlsAcceptor::from(self.config_at(Instant::now()))
    }

    fn config_at(&self, time: Instant) -> Arc<ServerConfig> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if time.saturating_duration_since(now.looked) >= limits::CERTIFICATE_LOOK {
            now.looked = time;
            let changed = changed(&self.certificate, &self.key);
            if changed != now.changed
                && let Ok(config) = config(&self.certificate, &self.key)
            {
                now.config = config;
                now.changed = changed;
            }
        }
        Arc::clone(&now.config)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{
        ClientConfig, ClientConnection, Connection, RootCertStore, ServerConnection, version,
    };

    use super::*;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../evermill-http/golden")
            .join(name)
    }

    /// Greets a server as a client that believes only in `who`; what the server shows.
    fn greet(
        server: &Arc<ServerConfig>,
        who: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<CertificateDer<'static>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let certificate = golden(&format!("{who}.pem"));
        roots.add(CertificateDer::from_pem_file(certificate).unwrap())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = builder.with_protocol_versions(versions)?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name)?;
        let mut client = Connection::from(client);
        let mut server = Connection::from(ServerConnection::new(Arc::clone(server))?);
        while client.is_handshaking() || server.is_handshaking() {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        Ok(client.peer_certificates().unwrap()[0].clone().into_owned())
    }

    fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            to.read_tls(&mut bytes).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    const BOTH: &[&rustls::SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

    /// S18.
    #[test]
    fn a_renewed_certificate_is_shown_without_a_restart_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        let put = |from: &str, to: &Path| {
            let text = fs::read(golden(from)).unwrap();
            fs::write(to, text).unwrap();
        };
        put("localhost.pem", &certificate);
        put("localhost.key.pem", &key);
        let tls = Tls::read(&certificate, &key).unwrap();
        let begin = Instant::now();
        let shown = |looks: u32, who| {
            let time = begin + limits::CERTIFICATE_LOOK * looks + Duration::from_secs(1);
            greet(&tls.config_at(time), who, BOTH)
        };
        let is_refused = |looks, who| {
            let refused = shown(looks, who).unwrap_err();
            assert!(
                matches!(refused, rustls::Error::InvalidCertificate(_)),
                "{refused}"
            );
        };
        let old = shown(0, "localhost").unwrap();
        is_refused(0, "renewed");
        // Whoever renews writes one file after the other, and one of them in pieces perhaps.
        fs::write(&certificate, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
        assert_eq!(shown(1, "localhost").unwrap(), old);
        put("renewed.pem", &certificate);
        assert_eq!(
            shown(2, "localhost").unwrap(),
            old,
            "the key is the old one"
        );
        put("renewed.key.pem", &key);
        assert_eq!(shown(2, "localhost").unwrap(), old, "it is not looked yet");
        assert_ne!(shown(3, "renewed").unwrap(), old);
        is_refused(3, "localhost");
        for file in [&certificate, &key] {
            fs::remove_file(file).unwrap();
        }
        shown(4, "renewed").unwrap();
    }

    /// S18.
    #[test]
    fn both_versions_of_tls_that_are_safe_are_spoken() {
        let pair = [golden("localhost.pem"), golden("localhost.key.pem")];
        let tls = Tls::read(&pair[0], &pair[1]).unwrap();
        let config = tls.config_at(Instant::now());
        for version in BOTH {
            greet(&config, "localhost", &[*version]).unwrap();
        }
    }
}
