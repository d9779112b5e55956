//! HTTP/1.1 over streams, one request a connection, each on a thread of its own.
//!
//! Small on purpose: it carries what [`crate::respond`] answers and knows nothing else. Whoever is
//! slow or gone holds up nobody but himself.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use evermill_engine::Operations;

use crate::problem::Problem;
use crate::routes::{Method, Request, Response, respond};

/// Bytes of a request; the payload of one parked event has to fit.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Bytes of a request before its body.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 32;
/// Connections that are answered at the same time; further ones are told to come again.
const CONNECTIONS_MAX: usize = 16;

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
    let busy = Arc::new(AtomicUsize::new(0));
    for mut stream in incoming {
        if busy.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            let text = "too many requests at the same time; ask again";
            let problem = Problem::new(503, "busy", "Too many requests", text);
            // Who does not take the answer comes again anyway.
            drop(write(&mut stream, &problem.into()));
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (service, busy) = (Arc::clone(service), Arc::clone(&busy));
        let answer = move || {
            let response = match read(&mut stream) {
                Ok(request) => respond(&*service, &request),
                Err(problem) => problem.into(),
            };
            // Whoever asked may have gone.
            drop(write(&mut stream, &response));
            busy.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(answer)?;
    }
    Ok(())
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
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// Reads one request; a problem is what is wrong with it.
fn read(stream: &mut impl Read) -> Result<Request, Problem> {
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
    if head.body > REQUEST_BYTES_MAX {
        return Err(too_large("it", REQUEST_BYTES_MAX));
    }
    while bytes.len() < head.end + head.body {
        more(stream, &mut bytes)?;
    }
    let body = Bytes::from(bytes).slice(head.end..head.end + head.body);
    Ok(Request {
        method: head.method,
        target: head.target,
        body,
    })
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
    method: Method,
    target: String,
    /// Where the body begins.
    end: usize,
    /// Bytes of the body.
    body: usize,
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
        let named = |name: &str| {
            let mut headers = request.headers.iter();
            headers.find(|header| header.name.eq_ignore_ascii_case(name))
        };
        if named("transfer-encoding").is_some() {
            return Err(Problem::bad_request("send a content-length, not chunks"));
        }
        let length = named("content-length").map(|header| {
            let text = std::str::from_utf8(header.value).ok();
            text.and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Problem::bad_request("its content-length is no number"))
        });
        let method = request.method.and_then(Method::of);
        Ok(Some(Self {
            method: method.ok_or_else(|| Problem::wrong_method("GET, POST and PUT"))?,
            target: request.path.unwrap_or_default().to_owned(),
            end,
            body: length.transpose()?.unwrap_or(0),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> Problem {
        read(&mut &bytes[..]).expect_err("it is wrong")
    }

    #[test]
    fn a_request_is_read_whole_however_it_is_cut() {
        struct Drip(Vec<u8>, usize);
        impl Read for Drip {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let Some(byte) = self.0.get(self.1) else {
                    return Ok(0);
                };
                into[0] = *byte;
                self.1 += 1;
                Ok(1)
            }
        }
        let bytes = b"PUT /api/v1/x?id=a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_vec();
        let request = read(&mut Drip(bytes, 0)).unwrap();
        assert_eq!(request.method, Method::Put);
        assert_eq!(request.target, "/api/v1/x?id=a");
        assert_eq!(request.body, "hello");
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
