//! `DATA_DIR/control.sock`: how commands reach the engine that holds the data directory.
//!
//! It carries `/api/v1` ([`evermill_api`]), readable and writable by the
//! owner alone (0600).

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evermill_api::{Request, Site};

use crate::failure::Failure;

const NAME: &str = "control.sock";
/// An answer longer than this is taken for a mistake.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
const HEADERS_MAX: usize = 32;
/// The longest that whoever asks waits for the engine.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// A socket's path has room for 107 bytes (unix(7)); a longer one is reached through its folder.
const PATH_BYTES_MAX: usize = 107;

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
    pub(crate) fn open(data_dir: &Path, site: Arc<Site>) -> Result<Self, Failure> {
        let path = data_dir.join(NAME);
        let refused = |cause| Failure::failed(format!("{}: {cause}", path.display()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        let listener = through(data_dir, |path| UnixListener::bind(path)).map_err(refused)?;
        // Until now the directory's own mode (0700) keeps others out.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(refused)?;
        // Without a runtime there is nobody to tell; the run itself goes on.
        let serve = move || drop(evermill_api::serve(listener, &site));
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

/// Whether an engine listens there.
pub(crate) fn is_answered(data_dir: &Path) -> bool {
    through(data_dir, |path| UnixStream::connect(path)).is_ok()
}

/// Asks the engine that holds `data_dir`: its answer's status and body. What may take long is
/// waited for as long as it takes.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] when no engine answers (yet).
pub(crate) fn ask(
    data_dir: &Path,
    request: &Request,
    takes_long: bool,
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = through(data_dir, |path| UnixStream::connect(path))?;
    stream.set_read_timeout((!takes_long).then_some(ANSWER_PATIENCE))?;
    stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
    write!(
        stream,
        "{} {} HTTP/1.1\r\nhost: evermill\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        request.method.name(),
        request.target,
        request.body.len()
    )?;
    stream.write_all(&request.body)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let strange = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let parsed = response
        .parse(&bytes)
        .map_err(|error| strange(error.to_string()))?;
    match (parsed, response.code) {
        (httparse::Status::Complete(head), Some(code)) => Ok((code, bytes.split_off(head))),
        _ => Err(strange("its answer ended too early".to_owned())),
    }
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
