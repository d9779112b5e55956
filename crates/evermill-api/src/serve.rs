//! HTTP/1.1 over streams, one request a connection, each on a thread of its own.
//!
//! Small on purpose: it carries what [`crate::respond`] answers and knows nothing else. Whoever is
//! slow or gone holds up nobody but himself.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermill_engine::Operations;

use crate::problem::Problem;
use crate::routes::{Method, Request, Response, respond};

/// Bytes of a request; the payload of one parked event has to fit.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Bytes of a request before its body.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Connections that are answered at the same time; further ones are told to come again.
const CONNECTIONS_MAX: usize = 16;

/// Of a request that is refused before it is there as much is still taken.
const REFUSED_BYTES_MAX: usize = 32 << 20;
/// See [`REFUSED_BYTES_MAX`].
const REFUSED_TIME: Duration = Duration::from_secs(5);

/// Who answers; shared by all connections.
pub type Service = Arc<dyn Operations>;

/// Answers every connection of `incoming`, until that ends.
///
/// # Errors
/// When no thread can be had.
pub fn serve<S: Read + Write + Send + 'static>(
    incoming: impl Iterator<Item = S>,
    service: &Service,
) -> io::Result<()> {
    let service = Arc::clone(service);
    let answer = move |received: Received| match received.request() {
        Ok(request) => respond(&*service, &request),
        Err(problem) => problem.into(),
    };
    each(incoming, CONNECTIONS_MAX, |_| REQUEST_BYTES_MAX, answer)
}

/// Reads one request of each connection, `most` of them at a time, and answers it. `bytes_max` bounds
/// the body by the target.
pub(crate) fn each<S: Read + Write + Send + 'static>(
    incoming: impl Iterator<Item = S>,
    most: usize,
    bytes_max: impl Fn(&str) -> usize + Send + Sync + 'static,
    answer: impl Fn(Received) -> Response + Send + Sync + 'static,
) -> io::Result<()> {
    let busy = Arc::new(AtomicUsize::new(0));
    let shared = Arc::new((bytes_max, answer));
    for mut stream in incoming {
        if busy.fetch_add(1, Ordering::Relaxed) >= most {
            let text = "too many requests at the same time; ask again";
            let problem = Problem::new(503, "busy", "Too many requests", text);
            // Who does not take the answer comes again anyway.
            drop(write(&mut stream, &problem.into()));
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (shared, busy) = (Arc::clone(&shared), Arc::clone(&busy));
        let serve_one = move || {
            let (bytes_max, answer) = &*shared;
            // Whoever asked may have gone.
            match read(&mut stream, bytes_max) {
                Ok(received) => drop(write(&mut stream, &answer(received))),
                Err(problem) => {
                    drop(write(&mut stream, &problem.into()));
                    let_finish(&mut stream);
                }
            }
            busy.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(serve_one)?;
    }
    Ok(())
}

/// Takes what is still being sent, for a while: a connection that ends before is reset, and whoever
/// sends hears of that and not of our answer.
fn let_finish(stream: &mut impl Read) {
    let mut part = [0; 16 << 10];
    let (mut taken, begun) = (0, Instant::now());
    while taken < REFUSED_BYTES_MAX && begun.elapsed() < REFUSED_TIME {
        match stream.read(&mut part) {
            Ok(n @ 1..) => taken += n,
            Ok(0) | Err(_) => return,
        }
    }
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Bytes,
}

impl Received {
    /// As a request to `/api/v1`.
    pub(crate) fn request(self) -> Result<Request, Problem> {
        let method = Method::of(&self.method);
        let idempotency_key = self.header("idempotency-key").map(str::to_owned);
        Ok(Request {
            idempotency_key: idempotency_key.map(Bytes::from),
            method: method.ok_or_else(|| Problem::wrong_method("GET, POST and PUT"))?,
            target: self.target,
            body: self.body,
        })
    }

    /// The first header of this lower-case name, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find_map(|(found, value)| (found == name).then_some(value));
        found.and_then(|value| std::str::from_utf8(value).ok())
    }
}

fn write(stream: &mut impl Write, response: &Response) -> io::Result<()> {
    let Response {
        status,
        media_type,
        body,
    } = response;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    // Whoever is told to come again hears when.
    let again = if matches!(status, 429 | 503) {
        "retry-after: 1\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n{again}\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Reads one request; a problem is what is wrong with it.
fn read(
    stream: &mut (impl Read + Write),
    bytes_max: &impl Fn(&str) -> usize,
) -> Result<Received, Problem> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = Head::parse(&bytes)? {
            break head;
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(too_large("its head", HEAD_BYTES_MAX));
        }
        more(stream, &mut bytes)?;
    };
    let most = bytes_max(&head.target);
    if matches!(head.body, Body::Bytes(length) if length > most) {
        return Err(too_large("it", most));
    }
    if head.waits {
        let go_on = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        go_on.map_err(cut_short)?;
    }
    let mut rest = bytes.split_off(head.end);
    let body = match head.body {
        Body::Bytes(length) => {
            while rest.len() < length {
                more(stream, &mut rest)?;
            }
            rest.truncate(length);
            rest
        }
        Body::Chunks => chunks(stream, rest, most)?,
    };
    Ok(Received {
        method: head.method,
        target: head.target,
        headers: head.headers,
        body: body.into(),
    })
}

/// A body that comes in chunks; `bytes` is what came of it with the head.
fn chunks(stream: &mut impl Read, mut bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(&bytes)
            .map_err(|_| Problem::bad_request("its chunks have no sizes"))?;
        let httparse::Status::Complete((begin, length)) = parsed else {
            more(stream, &mut bytes)?;
            continue;
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > most.saturating_sub(body.len()) {
            return Err(too_large("it", most));
        }
        // A chunk ends with a new line; trailers are of no interest, since the connection ends.
        while length > 0 && bytes.len() < begin + length + 2 {
            more(stream, &mut bytes)?;
        }
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&bytes[begin..begin + length]);
        bytes.drain(..begin + length + 2);
    }
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(), Problem> {
    let mut part = [0; 16 << 10];
    let n = stream.read(&mut part).map_err(cut_short)?;
    if n == 0 {
        return Err(cut_short(io::ErrorKind::UnexpectedEof.into()));
    }
    bytes.extend_from_slice(&part[..n]);
    Ok(())
}

fn cut_short(cause: io::Error) -> Problem {
    Problem::bad_request(format!("it ended before it was complete: {cause}"))
}

fn too_large(what: &str, max: usize) -> Problem {
    let detail = format!("{what} is larger than {max} bytes");
    Problem::new(413, "too_large", "The request is too large", detail)
}

struct Head {
    method: String,
    target: String,
    /// Names in lower case.
    headers: Vec<(String, Bytes)>,
    /// Where the body begins.
    end: usize,
    body: Body,
    /// Whoever sends waits for a word before the body.
    waits: bool,
}

enum Body {
    Bytes(usize),
    Chunks,
}

impl Head {
    /// `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Problem> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request
            .parse(bytes)
            .map_err(|cause| Problem::bad_request(format!("this is no HTTP request: {cause}")))?;
        let httparse::Status::Complete(end) = parsed else {
            return Ok(None);
        };
        let headers = request.headers.iter();
        let headers: Vec<_> = headers
            .map(|header| {
                let value = Bytes::copy_from_slice(header.value);
                (header.name.to_ascii_lowercase(), value)
            })
            .collect();
        let named = |name: &str| {
            let mut headers = headers.iter();
            headers.find_map(|(found, value)| (found == name).then_some(value))
        };
        let length = named("content-length");
        let body = match (named("transfer-encoding"), length) {
            (None, None) => Body::Bytes(0),
            (None, Some(length)) => {
                let length = std::str::from_utf8(length).ok();
                let length = length.and_then(|text| text.trim().parse().ok());
                Body::Bytes(
                    length
                        .ok_or_else(|| Problem::bad_request("its content-length is no number"))?,
                )
            }
            (Some(how), None) if how.eq_ignore_ascii_case(b"chunked") => Body::Chunks,
            // Two lengths, or a coding that nobody knows: where the body ends would be a guess.
            (Some(_), _) => {
                return Err(Problem::bad_request(
                    "send a content-length, or chunks alone",
                ));
            }
        };
        let waits = named("expect").is_some_and(|what| what.eq_ignore_ascii_case(b"100-continue"));
        let method = request.method.unwrap_or_default().to_owned();
        let target = request.path.unwrap_or_default().to_owned();
        Ok(Some(Self {
            method,
            target,
            headers,
            end,
            body,
            waits,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What somebody sends, a few bytes at a time; what is written to him.
    struct Drip(Vec<u8>, usize, usize, Vec<u8>);

    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let part = self.0[self.1..].iter().take(self.2.min(into.len()));
            let n = part
                .zip(into.iter_mut())
                .map(|(from, to)| *to = *from)
                .count();
            self.1 += n;
            Ok(n)
        }
    }

    impl Write for Drip {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.3.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn received(bytes: &[u8], step: usize) -> Result<Received, Problem> {
        let mut drip = Drip(bytes.to_vec(), 0, step, Vec::new());
        read(&mut drip, &|_| 1000)
    }

    fn refused(bytes: &[u8]) -> Problem {
        let read = received(bytes, 1 << 20);
        read.and_then(Received::request).expect_err("it is wrong")
    }

    #[test]
    fn a_request_is_read_whole_however_it_is_cut() {
        let bytes = b"PUT /api/v1/x?id=a HTTP/1.1\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
        let request = received(bytes, 1).unwrap();
        assert_eq!(request.header("x-a"), Some("b"));
        let request = request.request().unwrap();
        assert_eq!(request.method, Method::Put);
        assert_eq!(request.target, "/api/v1/x?id=a");
        assert_eq!(request.body, "hello");
    }

    #[test]
    fn chunks_are_put_together_and_bounded() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n";
        let bytes = format!("{head}5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n");
        for step in [1, 7, 1 << 20] {
            assert_eq!(received(bytes.as_bytes(), step).unwrap().body, "hello!");
        }
        let wrong = |chunks: &str| refused(format!("{head}{chunks}").as_bytes()).status;
        assert_eq!(wrong("3e9\r\n"), 413);
        assert_eq!(wrong("200\r\n"), 400);
        assert_eq!(wrong("ffffffffffffffff\r\n"), 413);
        assert_eq!(wrong("x\r\n"), 400);
        let both = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(refused(both).status, 400);
    }

    #[test]
    fn whoever_waits_before_the_body_is_told_to_go_on() {
        let bytes = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi";
        let mut drip = Drip(bytes.to_vec(), 0, 1 << 20, Vec::new());
        assert_eq!(read(&mut drip, &|_| 2).unwrap().body, "hi");
        assert!(drip.3.starts_with(b"HTTP/1.1 100 "));
        let mut drip = Drip(bytes.to_vec(), 0, 1 << 20, Vec::new());
        assert_eq!(read(&mut drip, &|_| 1).unwrap_err().status, 413);
        assert!(drip.3.is_empty());
    }

    #[test]
    fn what_is_no_request_or_too_large_is_a_problem_and_not_read_further() {
        assert_eq!(refused(b"hello\r\n\r\n").status, 400);
        assert_eq!(refused(b"GET / HTTP/1.1\r\n").status, 400);
        assert_eq!(refused(b"BREW / HTTP/1.1\r\n\r\n").status, 405);
        let huge = b"PUT / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n";
        assert_eq!(refused(huge).status, 413);
        let long = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 20 << 10]].concat();
        assert_eq!(refused(&long).status, 413);
    }
}
