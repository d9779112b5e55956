//! `DATA_DIR/control.sock`: how commands reach the engine that holds the data directory.
//!
//! HTTP/1.1 with one request a connection, readable and writable by the owner alone (0600).
//! The one resource so far is `GET /api/v1/runs`: `{"runs":[...]}`, with the objects of `ps --json`.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evermill_engine::{Handle, view::RunView};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;

const NAME: &str = "control.sock";
/// Where the runs are listed.
const RUNS: &str = "/api/v1/runs";
/// A request longer than this is refused.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// An answer longer than this is taken for a mistake.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const HEADERS_MAX: usize = 32;
/// The longest that one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// A socket's path has room for 107 bytes (unix(7)); a longer one is reached through its folder.
const PATH_BYTES_MAX: usize = 107;

#[derive(Serialize)]
struct Runs<'a> {
    runs: &'a [RunView],
}

#[derive(Deserialize)]
struct RawRuns {
    runs: Vec<Box<RawValue>>,
}

/// The open socket; it goes away with this.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
}

impl Control {
    /// Answers from now on. Only the holder of the directory's lock may call this: what lies there
    /// is then the socket of an engine that is gone.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn open(data_dir: &Path, handle: Handle) -> Result<Self, Failure> {
        let path = data_dir.join(NAME);
        let refused = |cause| Failure::failed(format!("{}: {cause}", path.display()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        let listener = through(data_dir, |path| UnixListener::bind(path)).map_err(refused)?;
        // Until now the directory's own mode (0700) keeps others out.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(refused)?;
        let serve = move || {
            for stream in listener.incoming().flatten() {
                // Whoever asked is gone or slow; the next one is not to suffer.
                drop(answer(stream, &handle));
            }
        };
        std::thread::Builder::new()
            .name("control".into())
            .spawn(serve)
            .map_err(refused)?;
        Ok(Self { path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // What is left over is removed by the next engine.
        drop(fs::remove_file(&self.path));
    }
}

/// Asks the engine that holds `data_dir` for its runs, each one a JSON object.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] when no engine answers (yet).
pub(crate) fn runs(data_dir: &Path) -> io::Result<Vec<Box<RawValue>>> {
    let mut stream = through(data_dir, |path| UnixStream::connect(path))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {RUNS} HTTP/1.1\r\nhost: evermill\r\nconnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let strange = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let parsed = response
        .parse(&bytes)
        .map_err(|error| strange(error.to_string()))?;
    match (parsed, response.code) {
        (httparse::Status::Complete(head), Some(200)) => {
            let runs: RawRuns = serde_json::from_slice(&bytes[head..])?;
            Ok(runs.runs)
        }
        (_, code) => Err(strange(format!("the engine answered with status {code:?}"))),
    }
}

fn answer(mut stream: UnixStream, handle: &Handle) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let (status, body) = loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part)?;
        request.extend_from_slice(&part[..n]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(&request) {
            Ok(httparse::Status::Complete(_)) => break reply(head.method, head.path, handle),
            Ok(httparse::Status::Partial) if n > 0 && request.len() < REQUEST_BYTES_MAX => {}
            Ok(_) | Err(_) => break ("400 Bad Request", problem("this is no HTTP request")),
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn reply(method: Option<&str>, path: Option<&str>, handle: &Handle) -> (&'static str, String) {
    match (method, path) {
        (Some("GET"), Some(RUNS)) => {
            // A drained engine still has its last view.
            let view = handle.fresh_view().unwrap_or_else(|_| handle.view());
            let body = serde_json::to_string(&Runs { runs: &view.runs });
            ("200 OK", body.expect("a view has string keys only"))
        }
        (_, Some(RUNS)) => ("405 Method Not Allowed", problem("only GET is known here")),
        _ => ("404 Not Found", problem("there is no such resource")),
    }
}

fn problem(what: &str) -> String {
    serde_json::json!({ "error": what }).to_string()
}

/// Names the socket by its path, or when that is too long by way of the open folder.
fn through<T>(data_dir: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = data_dir.join(NAME);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return use_path(&path);
    }
    let folder = File::open(data_dir)?;
    use_path(&PathBuf::from(format!(
        "/proc/self/fd/{}/{NAME}",
        folder.as_raw_fd()
    )))
}
