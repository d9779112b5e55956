//! The TCP listener: opened when a DAG has a source that takes requests, or when somebody asks for it.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;

use evermill_api::Site;

use crate::failure::Failure;

/// Where we listen unless somebody says otherwise.
const ADDRESS: &str = "127.0.0.1:4700";

/// A listener that nobody is answered by yet: who connects waits.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Takes the address.
    ///
    /// # Errors
    /// When it is none of this machine's loopback, or taken.
    pub(crate) fn open(address: Option<&str>) -> Result<Self, Failure> {
        let written = address.unwrap_or(ADDRESS);
        let found = written.to_socket_addrs().map_err(|cause| {
            Failure::usage(format!(
                "--listen {written}: {cause}; want HOST:PORT, such as {ADDRESS}"
            ))
        })?;
        let found: Vec<_> = found.collect();
        if let Some(open) = found.iter().find(|address| !address.ip().is_loopback()) {
            return Err(Failure::usage(format!(
                "--listen {written}: {} can be reached from elsewhere, and there is no access control yet; \
                 listen on {ADDRESS} and put a proxy that has some in front of it",
                open.ip()
            )));
        }
        let taken = |cause| {
            Failure::failed(format!(
                "--listen {written}: {cause}; name another port, or --listen 127.0.0.1:0 for any that is free"
            ))
        };
        let listener = TcpListener::bind(&found[..]).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        Ok(Self { listener, address })
    }

    /// Takes the usual port of loopback, or any that is free.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn anywhere() -> Result<Self, Failure> {
        Self::open(None).or_else(|_| Self::open(Some("127.0.0.1:0")))
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        for refused in [
            "0.0.0.0:0",
            "[::]:0",
            "192.0.2.1:80",
            "nonsense",
            "127.0.0.1",
        ] {
            let error = Listening::open(Some(refused)).unwrap_err().to_string();
            assert!(error.contains(refused), "{error}");
        }
        let open = Listening::open(Some("127.0.0.1:0")).unwrap();
        let address = open.address();
        assert!(address.ip().is_loopback() && address.port() > 0);
        let error = Listening::open(Some(&address.to_string()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("name another port"), "{error}");
    }
}
