//! The client against a real server on loopback.

use std::time::{Duration, Instant};

use crate::testing::{Reply, Server};
use crate::{Client, Connection, Error, Method, Request, Target};

fn client(address: &str) -> Client {
    Client::new(Connection::parse("http_default", address).unwrap()).unwrap()
}

fn get(target: Target) -> Request {
    Request::new(Method::GET, target)
}

fn below(path: &str) -> Request {
    get(Target::Below(path.to_owned()))
}

#[test]
fn a_request_carries_its_method_query_headers_and_body() {
    let server = Server::start(|_| Reply::new(201, "made").with("X-Id", "7"));
    let client = client(&format!(
        "{}/api?token=t&header.X-A=1&header.X-B=2",
        server.url()
    ));
    let mut request = Request::new(Method::PUT, Target::Below("things/1".to_owned()));
    request.query = vec![("q".to_owned(), "a b".to_owned())];
    request.headers = vec![("X-A".to_owned(), "own".to_owned())];
    request.body = Some(b"payload".to_vec());
    let response = client.send(&request).unwrap();
    assert_eq!((response.status, &response.body[..]), (201, &b"made"[..]));
    assert_eq!(response.header("x-id"), Some("7"));
    let [seen] = &server.seen()[..] else {
        panic!("one request")
    };
    assert_eq!(
        (&*seen.method, &*seen.path),
        ("PUT", "/api/things/1?q=a%20b")
    );
    assert_eq!(seen.body, b"payload");
    for (name, value) in [("authorization", "Bearer t"), ("x-a", "own"), ("x-b", "2")] {
        assert_eq!(seen.header(name), Some(value));
    }
}

#[test]
fn connections_are_kept_for_the_next_request() {
    let server = Server::start(|_| Reply::new(200, "x"));
    let client = client(&server.url());
    for _ in 0..3 {
        client.send(&below("/")).unwrap();
    }
    assert!(server.seen().iter().all(|seen| seen.connection == 0));
}

#[test]
fn a_method_without_a_body_sends_none_and_an_empty_body_is_one() {
    let server = Server::start(|_| Reply::new(204, ""));
    let client = client(&server.url());
    client.send(&below("/")).unwrap();
    let mut post = Request::new(Method::POST, Target::Below("/".to_owned()));
    post.body = Some(Vec::new());
    client.send(&post).unwrap();
    let lengths: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("content-length").map(str::to_owned))
        .collect();
    assert_eq!(lengths, [None, Some("0".to_owned())]);
}

#[test]
fn every_status_is_an_answer() {
    let server = Server::start(|seen| Reply::new(seen.path[1..].parse().unwrap(), "why"));
    let client = client(&server.url());
    for status in [200, 204, 304, 404, 429, 500, 503] {
        let response = client.send(&below(&format!("/{status}"))).unwrap();
        assert_eq!(response.status, status);
    }
}

/// F07: a head that is too long, has too many headers, or holds what no header may.
#[test]
fn f07_a_head_without_measure_or_sense_is_no_answer() {
    let heads = [
        format!("x: {}\r\n", "y".repeat(100_000)),
        (0..10_000).map(|n| format!("x{n}: y\r\n")).collect(),
        "x\u{1}y: z\r\n".to_owned(),
        "x y: z\r\n".to_owned(),
        "no colon\r\n".to_owned(),
    ];
    for head in heads {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{head}\r\nhi");
        let server = Server::start(move |_| Reply::Raw(answer.clone().into_bytes()));
        let client = client(&server.url());
        let start: String = head.chars().take(20).collect();
        let answered = client.send(&below("/"));
        assert!(answered.is_err(), "{start:?}: {answered:?}");
    }
}

/// F05, F06, S12.
#[test]
fn an_answer_is_bounded_before_and_after_decompression() {
    // A gzip of a million zeroes: twenty-three bytes and a few hundred.
    let bomb = gzip_of_zeroes();
    let server = Server::start(move |seen| match &*seen.path {
        "/bomb" => Reply::new(200, bomb.clone()).with("Content-Encoding", "gzip"),
        _ => Reply::new(200, vec![b'x'; 1000]),
    });
    let client = client(&server.url());
    let mut plain = below("/plain");
    plain.bytes_max = 1000;
    assert_eq!(client.send(&plain).unwrap().body.len(), 1000);
    plain.bytes_max = 999;
    assert!(matches!(
        client.send(&plain),
        Err(Error::TooLarge { bytes_max: 999, .. })
    ));
    let mut bomb = below("/bomb");
    bomb.bytes_max = 999_999;
    assert!(matches!(client.send(&bomb), Err(Error::TooLarge { .. })));
    bomb.bytes_max = 1_000_000;
    assert_eq!(client.send(&bomb).unwrap().body, vec![0; 1_000_000]);
}

/// A million zeroes as gzip, made by hand: stored blocks would be no bomb, so it is one block of
/// fixed Huffman codes: a zero, and then matches of 258 at distance 1.
fn gzip_of_zeroes() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(0b011, 3);
    bits.push_code(0x30, 8);
    // 999,999 more: 3,875 matches of 258, and one of 249.
    for _ in 0..3875 {
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    // Length code 284 with five extra bits: 227 + 22.
    bits.push_code(0b1100_0100, 8);
    bits.push(22, 5);
    bits.push_code(0, 5);
    bits.push_code(0, 7);
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend(bits.finish());
    gzip.extend(crc32_of_zeroes(1_000_000).to_le_bytes());
    gzip.extend(1_000_000u32.to_le_bytes());
    gzip
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for at in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = u8::try_from(value >> at & 1).unwrap();
            *self.bytes.last_mut().unwrap() |= bit << (self.used % 8);
            self.used += 1;
        }
    }

    /// Huffman codes come with their first bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn crc32_of_zeroes(count: usize) -> u32 {
    let step = |crc: u32| {
        (0..8).fold(crc, |crc, _| {
            crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !(0..count).fold(!0, |crc, _| step(crc & 0xff) ^ crc >> 8)
}

#[test]
fn redirects_are_followed_with_the_method_that_the_status_asks_for() {
    let server = Server::start(|seen| match &*seen.path {
        "/end" => Reply::new(200, format!("{} {:?}", seen.method, seen.body)),
        status => Reply::new(status[1..].parse().unwrap(), "").with("Location", "end"),
    });
    let client = client(&server.url());
    for (status, method, body) in [
        (301, "GET", "[]"),
        (302, "GET", "[]"),
        (303, "GET", "[]"),
        (307, "POST", "[120]"),
        (308, "POST", "[120]"),
    ] {
        let mut request = Request::new(Method::POST, Target::Below(format!("/{status}")));
        request.body = Some(b"x".to_vec());
        let said = client.send(&request).unwrap().body;
        assert_eq!(String::from_utf8(said).unwrap(), format!("{method} {body}"));
    }
}

/// F04.
#[test]
fn redirects_are_counted() {
    let server = Server::start(|_| Reply::new(302, "").with("Location", "/"));
    let refused = client(&server.url()).send(&below("/")).unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("more than 5 redirects")));
    assert_eq!(server.seen().len(), 6);
    let none = client(&format!("{}?redirects=0", server.url()));
    assert!(none.send(&below("/")).is_err());
    assert_eq!(server.seen().len(), 7);
}

/// F04, S11, K07.
#[test]
fn a_redirect_to_another_host_of_ours_is_refused_and_nothing_reaches_it() {
    let inside = Server::start(|_| Reply::new(200, "secret"));
    for place in [
        inside.url(),
        format!("http://localhost:{}", inside.address().port()),
        format!("http://[::ffff:127.0.0.1]:{}", inside.address().port()),
        // The same address as one number, which only resolvers understand.
        format!("http://2130706433:{}", inside.address().port()),
    ] {
        let location = place.clone();
        let server = Server::start(move |_| Reply::new(302, "").with("Location", &location));
        let error = client(&server.url()).send(&below("/")).unwrap_err();
        assert!(
            matches!(&error, Error::Refused(why) if why.contains("not public")),
            "{place}: {error}"
        );
    }
    assert!(inside.seen().is_empty());
}

/// S11, K07: however this machine, its network or its cloud is written, nobody connects to it for a payload.
#[test]
fn no_url_out_of_a_payload_leads_inside_however_it_is_written() {
    use std::net::{Ipv6Addr, TcpListener};
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = inside.local_addr().unwrap().port();
    let sixth = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok();
    let client = client("http://connection.example:1?timeout=5s");
    let hosts = [
        // This machine, as text, as numbers, in other bases, with parts left out.
        "127.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "0.0.0.0",
        "0",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.01",
        "0x7f.1",
        "00000177.0.0.1",
        "0.1.2.3",
        "127.0.0.1.",
        // In the clothes of IPv6.
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:a00:1::1]",
        "[2001:0:7f00:1::]",
        // Its network, its cloud, and nobody's.
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.0.1",
        "192.168.255.255",
        "169.254.169.254",
        "169.254.170.2",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[100::1]",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        // What another reader would take for the host.
        "example.com@127.0.0.1",
        "127.0.0.1:80@example.com",
        "127.0.0.1\\@example.com",
        "127.0.0.1%00.example.com",
        "127.0.0.1%23.example.com",
        "[::1%25lo]",
        "[::1%lo]",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "ⓛocalhost",
        "127.0.0.1 ",
        " 127.0.0.1",
        "127.0.0.1\t",
        "",
    ];
    for host in hosts {
        for url in [
            format!("http://{host}:{port}/"),
            format!("https://{host}:{port}/"),
            format!("HTTP://{host}:{port}?x=http://example.com/"),
        ] {
            let refused = client.send(&get(Target::Foreign(url.clone())));
            let error = refused.map(|answer| answer.status).unwrap_err();
            // A name that nobody knows leads nowhere.
            let nowhere = matches!(error, Error::Refused(_) | Error::Unreachable { .. });
            assert!(nowhere, "{url}: {error}");
        }
    }
    for scheme in [
        "file",
        "ftp",
        "gopher",
        "unix",
        "ldap",
        "dict",
        "data",
        "javascript",
        "jar",
    ] {
        let url = format!("{scheme}://127.0.0.1:{port}/etc/passwd");
        let refused = client.send(&get(Target::Foreign(url)));
        assert!(matches!(refused, Err(Error::Refused(_))), "{scheme}");
    }
    for listener in [Some(&inside), sixth.as_ref()].into_iter().flatten() {
        listener.set_nonblocking(true).unwrap();
        let came = listener.accept().map(|(_, from)| from);
        assert_eq!(
            came.unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "nobody has connected"
        );
    }
}

#[test]
fn a_url_out_of_a_payload_reaches_the_connections_host_and_else_only_public_ones() {
    let own = Server::start(|_| Reply::new(200, ""));
    let other = Server::start(|_| Reply::new(200, ""));
    let client = client(&format!("{}?token=geheim", own.url()));
    let foreign = |url: &str| client.send(&get(Target::Foreign(format!("{url}/x"))));
    assert!(foreign(&own.url()).is_ok());
    assert!(matches!(foreign(&other.url()), Err(Error::Refused(_))));
    assert!(matches!(
        foreign("http://169.254.169.254"),
        Err(Error::Refused(_))
    ));
    assert!(matches!(
        foreign("http://localhost:1"),
        Err(Error::Refused(_))
    ));
    assert!(other.seen().is_empty());
    // Written by the author: allowed, but what belongs to the connection stays there.
    client.send(&get(Target::Written(other.url()))).unwrap();
    assert_eq!(other.seen()[0].header("authorization"), None);
}

/// F04.
#[test]
fn what_was_meant_for_one_place_is_told_to_no_other() {
    let other = Server::start(|_| Reply::new(200, ""));
    let location = other.url();
    let first = Server::start(move |_| Reply::new(307, "").with("Location", &location));
    // Both places are named by us, so the second one is reached.
    let client = client(&format!("{}?token=geheim", other.url()));
    let mut request = get(Target::Written(first.url()));
    request.headers = vec![
        ("X-Key".to_owned(), "geheim".to_owned()),
        ("Accept".to_owned(), "text/plain".to_owned()),
    ];
    client.send(&request).unwrap();
    let seen = &other.seen()[0];
    assert_eq!(
        (seen.header("x-key"), seen.header("authorization")),
        (None, None)
    );
    assert_eq!(seen.header("accept"), Some("text/plain"));
}

/// F01.
#[test]
fn silence_ends_in_a_timeout() {
    let server = Server::start(|_| Reply::Silence);
    let client = client(&format!("{}?timeout=100ms", server.url()));
    let error = client.send(&below("/")).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(error.may_pass());
}

/// F01, F05.
#[test]
fn half_an_answer_is_none() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let server = Server::start(|_| Reply::Raw(half.to_vec()));
    let error = client(&server.url()).send(&below("/")).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let server = Server::start(|_| Reply::Raw(b"nonsense\r\n\r\n".to_vec()));
    let error = client(&server.url()).send(&below("/")).unwrap_err();
    assert!(error.may_pass(), "{error}");
}

/// F08.
#[test]
fn nobody_there_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = client(&address)
        .send(&below("/x?token=geheim"))
        .unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("geheim"), "{error}");
}

#[test]
fn a_cancelled_client_lets_go_at_once() {
    let server = Server::start(|_| Reply::Silence);
    let client = client(&format!("{}?timeout=1m", server.url()));
    let asking = client.clone();
    let begun = Instant::now();
    let asked = std::thread::spawn(move || asking.send(&below("/")));
    assert_eq!(server.wait_for(1).len(), 1);
    client.cancel();
    assert!(asked.join().unwrap().is_err());
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_proxy_carries_requests_to_hosts_that_it_resolves() {
    let proxy = Server::start(|seen| match &*seen.method {
        "CONNECT" => Reply::new(200, ""),
        _ => Reply::new(200, "by proxy"),
    });
    let client = client(&format!("http://service.example/?proxy={}", proxy.url()));
    let said = client.send(&below("/a")).unwrap();
    assert_eq!(said.body, b"by proxy");
    assert_eq!(proxy.seen()[0].path, "service.example:80");
    let refused = client.send(&get(Target::Foreign("http://127.0.0.1:1/".to_owned())));
    assert!(matches!(refused, Err(Error::Refused(_))));
}
