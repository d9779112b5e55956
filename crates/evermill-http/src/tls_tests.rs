//! The client against a server that speaks TLS, with a certificate that no machine's roots have signed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Client, Connection, Error, Method, Request, Response, Target};

/// All are for the name `localhost` alone: `localhost` and `renewed` until 2120, `expired` until 2021. The keys
/// protect nothing.
fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// Answers one request a connection with `answer`, until the process ends; returns its port.
fn serve(answer: &'static str) -> u16 {
    serve_as("localhost", answer)
}

fn serve_as(who: &str, answer: &'static str) -> u16 {
    let certificate = CertificateDer::from_pem_file(pem(&format!("{who}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(pem(&format!("{who}.key.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that believes nothing of it breaks off.
            drop(answer_one(stream, &config, answer));
        }
    });
    port
}

fn answer_one(stream: TcpStream, config: &Arc<ServerConfig>, answer: &str) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
    }
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn get(address: &str) -> Result<Response, Error> {
    let connection = Connection::parse("http_default", address).unwrap();
    let target = Target::Below("/".to_owned());
    Client::new(connection)?.send(&Request::new(Method::GET, target))
}

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_certificate_of_the_connections_own_authority_is_believed() {
    let port = serve(HELLO);
    let ca = pem("localhost.pem");
    let answer = get(&format!("https://localhost:{port}?ca={}", ca.display())).unwrap();
    assert_eq!(answer.body, b"hello");
}

/// F09, S18.
#[test]
fn a_certificate_that_nobody_vouches_for_or_of_another_name_is_not() {
    let port = serve(HELLO);
    let ca = pem("localhost.pem");
    for address in [
        format!("https://localhost:{port}"),
        format!("https://127.0.0.1:{port}?ca={}", ca.display()),
    ] {
        // A machine without any roots says so before it asks.
        let error = get(&address).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}

/// S18.
#[test]
fn a_certificate_that_has_ended_is_refused_also_when_its_authority_is_believed() {
    let port = serve_as("expired", HELLO);
    let ca = pem("expired.pem");
    let error = get(&format!("https://localhost:{port}?ca={}", ca.display()));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn a_file_without_certificates_is_refused() {
    for file in ["localhost.key.pem", "no-such-file"] {
        let ca = pem(file);
        let error = get(&format!("https://localhost:1?ca={}", ca.display()));
        let error = error.map(|_| ()).unwrap_err();
        assert!(
            matches!(&error, Error::Refused(why) if why.contains(file)),
            "{error}"
        );
    }
}

/// F04, S11.
#[test]
fn a_redirect_from_https_to_http_is_refused() {
    let port =
        serve("HTTP/1.1 302 -\r\nContent-Length: 0\r\nLocation: http://localhost:1/\r\n\r\n");
    let ca = pem("localhost.pem");
    let error = get(&format!("https://localhost:{port}?ca={}", ca.display()));
    let error = error.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, Error::Refused(why) if why.contains("from https to http")),
        "{error}"
    );
}
