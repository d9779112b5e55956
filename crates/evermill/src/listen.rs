//! The TCP listener: opened when a DAG has a source that takes requests, or when somebody asks for it.

use std::net::{TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermill_api::{Face, Site, Tls, Tokens};

use crate::failure::Failure;

/// Where we listen unless somebody says otherwise.
const ADDRESS: &str = "127.0.0.1:4700";

/// What is said where tokens travel in the clear.
const CLEAR: &str = "whoever listens on the way reads the tokens: speak TLS, --tls-cert and --tls-key, or put a proxy in \
                     front that does and name it, --public-url https://...";

/// How a server can be reached over TCP.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Reached {
    /// Speak TLS with this certificate and its chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where a proxy serves this from, such as https://jobs.example/evermill; it leaves the path in front
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

/// A listener that nobody is answered by yet: who connects waits.
pub(crate) struct Listening {
    listener: TcpListener,
    url: String,
    warning: Option<&'static str>,
    /// How it looks from outside.
    pub(crate) face: Face,
}

impl Listening {
    /// Takes the address.
    ///
    /// # Errors
    /// When it can be reached from elsewhere and nobody has a token, or it is taken.
    pub(crate) fn open(
        address: Option<&str>,
        reached: &Reached,
        data_dir: &Path,
    ) -> Result<Self, Failure> {
        let written = address.unwrap_or(ADDRESS);
        let found = written.to_socket_addrs().map_err(|cause| {
            Failure::usage(format!(
                "--listen {written}: {cause}; want HOST:PORT, such as {ADDRESS}"
            ))
        })?;
        let found: Vec<_> = found.collect();
        let mut face = reached.face(data_dir)?;
        let open = found.iter().find(|address| !address.ip().is_loopback());
        face.exposed = face.exposed || open.is_some();
        if face.exposed {
            let what = match (open, &reached.public_url) {
                (Some(open), _) => format!("--listen {written}: {}", open.ip()),
                (None, url) => format!("--public-url {}: it", url.as_deref().unwrap_or_default()),
            };
            refuse_without_tokens(&what, data_dir)?;
        }
        let taken = |cause| {
            Failure::failed(format!(
                "--listen {written}: {cause}; name another port, or --listen 127.0.0.1:0 for any that is free"
            ))
        };
        let listener = TcpListener::bind(&found[..]).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let scheme = if face.tls.is_some() { "https" } else { "http" };
        let clear = face.exposed && !face.secure;
        Ok(Self {
            listener,
            url: format!("{scheme}://{address}{}", face.base),
            warning: clear.then_some(CLEAR),
            face,
        })
    }

    /// Takes the usual port of loopback, or any that is free.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn anywhere(data_dir: &Path) -> Result<Self, Failure> {
        let open = |address| Self::open(address, &Reached::default(), data_dir);
        open(None).or_else(|_| open(Some("127.0.0.1:0")))
    }

    /// Where it is, as a browser wants it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How it looks from outside; once.
    pub(crate) fn take_face(&mut self) -> Face {
        let local = Face::local(self.face.data_dir.clone());
        std::mem::replace(&mut self.face, local)
    }

    /// What there is to say of it before it answers.
    pub(crate) const fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// When there is no thread.
    pub(crate) fn answer(self, site: Arc<Site>) -> Result<(), Failure> {
        let listener = self.listener;
        // Without a runtime there is nobody to tell; the run itself goes on.
        let serve = move || drop(evermill_api::listen(listener, &site));
        let thread = std::thread::Builder::new()
            .name("listen".into())
            .spawn(serve);
        thread
            .map(drop)
            .map_err(|error| Failure::failed(format!("no thread: {error}")))
    }
}

impl Reached {
    fn face(&self, data_dir: &Path) -> Result<Face, Failure> {
        let mut face = Face::local(data_dir.to_owned());
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let tls = Tls::read(certificate, key);
            face.tls = Some(tls.map_err(|why| Failure::usage(format!("--tls-cert: {why}")))?);
            face.secure = true;
        }
        if let Some(url) = &self.public_url {
            let wrong = || {
                Failure::usage(format!(
                    "--public-url {url}: want a URL such as https://jobs.example/evermill, without a query"
                ))
            };
            let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
            let (host, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !matches!(scheme, "http" | "https")
                || host.is_empty()
                || rest.contains(['?', '#', '@'])
            {
                return Err(wrong());
            }
            face.secure |= scheme == "https";
            face.host = Some(host.to_owned());
            base.trim_end_matches('/').clone_into(&mut face.base);
            face.exposed = true;
        }
        Ok(face)
    }
}

fn refuse_without_tokens(what: &str, data_dir: &Path) -> Result<(), Failure> {
    let tokens = Tokens::at(data_dir).list();
    let tokens = tokens.map_err(|fault| Failure::failed(fault.to_string()))?;
    if tokens.iter().any(|token| !token.is_over()) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{what} can be reached from elsewhere, and nobody has a token: make one, `evermill --data-dir {} token create NAME \
         --role admin`, or listen on {ADDRESS}, where this machine alone asks",
        data_dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on_before_there_is_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let open = |address| Listening::open(Some(address), &Reached::default(), folder.path());
        let refusal = |address| match open(address) {
            Ok(_) => panic!("{address} is listened on"),
            Err(refused) => refused.to_string(),
        };
        for refused in [
            "0.0.0.0:0",
            "[::]:0",
            "192.0.2.1:80",
            "nonsense",
            "127.0.0.1",
        ] {
            let error = refusal(refused);
            assert!(error.contains(refused), "{error}");
        }
        assert!(refusal("0.0.0.0:0").contains("token create"));
        let open = open("127.0.0.1:0").unwrap();
        let address = open.url().strip_prefix("http://").unwrap();
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"));
        let error = refusal(address);
        assert!(error.contains("name another port"), "{error}");
    }

    #[test]
    fn a_place_behind_a_proxy_needs_a_token_too() {
        let folder = tempfile::tempdir().unwrap();
        let open = |url: &str| {
            let reached = Reached {
                public_url: Some(url.to_owned()),
                ..Reached::default()
            };
            Listening::open(Some("127.0.0.1:0"), &reached, folder.path())
        };
        let said = |url| open(url).map(|_| ()).unwrap_err().to_string();
        assert!(said("https://jobs.example/evermill/").contains("token create"));
        for wrong in [
            "jobs.example",
            "ftp://jobs.example",
            "https:///x",
            "https://a/?x=1",
        ] {
            assert!(said(wrong).contains("want a URL"), "{wrong}");
        }
        let wanted = evermill_api::Wanted {
            name: "me".to_owned(),
            role: evermill_api::Role::Admin,
            dags: None,
            expires_ms: None,
        };
        Tokens::at(folder.path()).create(wanted).unwrap();
        let face = open("https://jobs.example/evermill/").unwrap().face;
        assert_eq!(
            (face.host.as_deref(), &*face.base),
            (Some("jobs.example"), "/evermill")
        );
        assert!(face.secure && face.exposed);
        assert!(open("http://jobs.example").unwrap().warning().is_some());
    }
}
