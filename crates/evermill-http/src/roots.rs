//! Whom TLS believes: the machine's own roots, or those that a connection names.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ureq::tls::{Certificate, PemItem, RootCerts};

/// The machine's roots, read once; a sentence if there are none.
pub(crate) fn of_machine() -> Result<RootCerts, String> {
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        let roots = found
            .iter()
            .map(|root| Certificate::from_der(root).to_owned());
        Arc::new(roots.collect())
    });
    if roots.is_empty() {
        return Err(
            "this machine has no certificate authorities to check https by; install them \
             (ca-certificates), or name a file with ca= in the connection"
                .to_owned(),
        );
    }
    Ok(RootCerts::Specific(Arc::clone(roots)))
}

/// The certificates of a PEM file; a sentence if it holds none.
pub(crate) fn of_file(path: &Path) -> Result<RootCerts, String> {
    let pem = std::fs::read(path).map_err(|cause| format!("ca = {}: {cause}", path.display()))?;
    let found = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(format!(
            "ca = {}: it holds no PEM certificate",
            path.display()
        ));
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}
