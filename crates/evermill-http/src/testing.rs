//! A server on loopback that tests script: it answers each request as a closure says, and remembers
//! what it was asked.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A request that waits longer for company never comes: a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    streams: Vec<TcpStream>,
    ended: bool,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path with the query.
    pub path: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Which connection it came over, from 0.
    pub connection: usize,
}

/// What the server does about a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// Headers beside `Content-Length`.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// These bytes, and then the connection ends.
    Raw(Vec<u8>),
    /// Silence for as long as the server lives.
    Silence,
}

impl Reply {
    /// An answer with a status and a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// The same with a further header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

impl Seen {
    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Server {
    /// Starts a server on a free port of loopback.
    ///
    /// # Panics
    /// When the machine gives no port or thread.
    #[must_use]
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                if !serving.keep(&stream) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A client that breaks off is part of many tests.
                thread::spawn(move || serving.serve(stream, connection).ok());
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// Waits until so many requests were there in all, and returns them.
    ///
    /// # Panics
    /// When they do not come.
    #[must_use]
    pub fn wait_for(&self, requests: usize) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        while state.seen.len() < requests {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {requests} came", state.seen.len());
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.seen.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        for stream in state.streams.drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the server has ended.
    fn keep(&self, stream: &TcpStream) -> bool {
        let mut state = self.lock();
        if let (false, Ok(stream)) = (state.ended, stream.try_clone()) {
            state.streams.push(stream);
            return true;
        }
        false
    }

    fn serve(&self, mut stream: TcpStream, connection: usize) -> io::Result<()> {
        let mut bytes = Vec::new();
        while let Some(seen) = request(&mut stream, &mut bytes, connection)? {
            let reply = (self.answer)(&seen);
            self.lock().seen.push(seen.clone());
            self.changed.notify_all();
            match reply {
                Reply::Answer {
                    status,
                    headers,
                    body,
                } => answer(&mut stream, &seen, status, &headers, &body)?,
                Reply::Raw(bytes) => {
                    stream.write_all(&bytes)?;
                    return stream.shutdown(Shutdown::Both);
                }
                Reply::Silence => {
                    let mut state = self.lock();
                    while !state.ended {
                        state = self
                            .changed
                            .wait(state)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        }
        Ok(())
    }
}

fn answer(
    stream: &mut TcpStream,
    seen: &Seen,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n", body.len());
    if matches!(status, 204 | 304) {
        head = format!("HTTP/1.1 {status} -\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if seen.method != "HEAD" && !matches!(status, 204 | 304) {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes)
}

/// The next request of a connection; None at its end.
fn request(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Seen>> {
    loop {
        if let Some((seen, used)) = parsed(bytes, connection)? {
            bytes.drain(..used);
            return Ok(Some(seen));
        }
        let mut part = [0; 16 * 1024];
        match stream.read(&mut part)? {
            0 => return Ok(None),
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// A request and its length, once all of it is there.
fn parsed(bytes: &[u8], connection: usize) -> io::Result<Option<(Seen, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
    let Some(body) = bytes.get(used..used + length) else {
        return Ok(None);
    };
    let seen = Seen {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        headers,
        body: body.to_vec(),
        connection,
    };
    Ok(Some((seen, used + length)))
}
