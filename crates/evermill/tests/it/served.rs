//! A server with one DAG, asked over TCP byte by byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Place, Running};

pub(crate) const FLOW: &str = "dag: flow\nsources: { go: { signal: go } }\ntasks:\n  first: { after: [go], run: \"grep -qv bad\" }\n  second: { after: [first], run: \"cat > /dev/null\" }\n";

/// How long the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one DAG, and where it answers.
pub(crate) struct Served {
    pub(crate) place: Place,
    running: Running,
    pub(crate) address: String,
}

/// What came back: status, headers in lower case, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }
}

fn head(reader: &mut impl std::io::BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => return (status, headers),
        }
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(Place::new(), &[])
    }

    /// In a folder that may hold tokens already, with more options.
    pub(crate) fn with(place: Place, more: &[&str]) -> Self {
        let usual = ["serve", "--listen", "127.0.0.1:0", "--workers", "1"];
        let mut command = place.evermill(usual.iter().chain(more));
        Self::by(place, &mut command)
    }

    /// With this many files and connections open at the most, unless it helps itself.
    pub(crate) fn with_few_files(most: usize) -> Self {
        let place = Place::new();
        let usual = ["serve", "--listen", "127.0.0.1:0", "--workers", "1"];
        let plain = place.evermill(usual);
        let mut command = Command::new("sh");
        let script = format!("ulimit -Sn {most} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(plain.get_program());
        command.args(plain.get_args()).current_dir(place.folder());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::by(place, &mut command)
    }

    fn by(place: Place, command: &mut Command) -> Self {
        std::fs::create_dir_all(place.folder().join("dags")).unwrap();
        std::fs::write(place.folder().join("dags/flow.yaml"), FLOW).unwrap();
        let running = Running::start(command);
        const SAID: &str = "serving dags on http";
        running.wait_for_lines(SAID, 1);
        let lines = running.said();
        let line = lines.iter().find_map(|line| line.split_once(SAID)).unwrap();
        let url = line.1.split(';').next().unwrap();
        let place_of = |url: &str| url.split_once("://").unwrap().1.to_owned();
        let address = place_of(url).split('/').next().unwrap().to_owned();
        let served = Self {
            place,
            running,
            address,
        };
        served.place.wait_until_ready();
        served
    }

    /// What it has said on standard error.
    pub(crate) fn said(&self) -> Vec<String> {
        self.running.said()
    }

    /// Waits until standard error has a line with this.
    pub(crate) fn wait_until_said(&self, text: &str) {
        self.running.wait_for_lines(text, 1);
    }

    /// Kills it; what it leaves behind.
    pub(crate) fn end(self) -> Place {
        self.running.kill();
        self.place
    }

    pub(crate) fn open(&self, request: &str) -> BufReader<TcpStream> {
        self.open_from(Ipv4Addr::LOCALHOST, request)
    }

    /// From another address of loopback, all of which are this machine's: who is counted by his address is
    /// somebody else then.
    fn open_from(&self, from: Ipv4Addr, request: &str) -> BufReader<TcpStream> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let to: SocketAddr = self.address.parse().unwrap();
        // Other tests start processes meanwhile, which are not to have it.
        let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::INET, kind, flags, None).unwrap();
        bind(&socket, &SocketAddr::new(IpAddr::V4(from), 0)).unwrap();
        connect(&socket, &to).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    pub(crate) fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask_from(Ipv4Addr::LOCALHOST, line, headers, body)
    }

    /// The same from another address of loopback.
    pub(crate) fn ask_from(
        &self,
        from: Ipv4Addr,
        line: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let request = format!("{text}content-length: {}\r\n\r\n{body}", body.len());
        let mut reader = self.open_from(from, &request);
        let (status, headers) = head(&mut reader);
        let mut body = Vec::new();
        reader.read_to_end(&mut body).unwrap();
        Answer {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("GET {path}"), &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        answer.json()
    }

    /// Asks until it is so.
    pub(crate) fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&format!("GET {path}"), &[], "").json();
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
        }
    }

    pub(crate) fn send(&self, message: &str) {
        self.send_to("flow", message);
    }

    pub(crate) fn send_to(&self, dag: &str, message: &str) {
        let body = format!("\"{message}\"");
        let answer = self.ask(&format!("POST /api/v1/runs/{dag}/signals/go"), &[], &body);
        assert_eq!(answer.status, 200, "{}", answer.json());
    }

    pub(crate) fn listen(&self, query: &str, last: Option<&str>) -> Stream {
        self.listen_to(&format!("/api/v1/stream{query}"), last)
    }

    pub(crate) fn listen_to(&self, target: &str, last: Option<&str>) -> Stream {
        let last = last.map(|id| ("last-event-id", id));
        self.listen_with(target, last.as_slice())
    }

    pub(crate) fn listen_with(&self, target: &str, headers: &[(&str, &str)]) -> Stream {
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        let text = format!(
            "GET {target} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n",
            self.address
        );
        let mut reader = self.open(&text);
        let (status, headers) = head(&mut reader);
        assert_eq!(status, 200);
        let kind = headers.iter().find(|(name, _)| name == "content-type");
        assert_eq!(kind.unwrap().1, "text/event-stream");
        Stream { reader }
    }
}

/// Events as they come.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
}

pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Stream {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event; sizes of chunks stand between.
    pub(crate) fn next(&mut self) -> Event {
        let (mut id, mut name) = (None, String::new());
        loop {
            let line = self.line();
            if let Some(found) = line.strip_prefix("id: ") {
                id = Some(found.to_owned());
            } else if let Some(found) = line.strip_prefix("event: ") {
                found.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).unwrap();
                return Event { id, name, data };
            }
        }
    }

    /// Takes what comes until the other end hangs up.
    pub(crate) fn end(mut self) {
        let mut rest = Vec::new();
        // That a chunk is cut off is an end as well.
        if let Err(error) = self.reader.read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it goes on");
        }
    }

    pub(crate) fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next();
            if wanted(&event) {
                return event;
            }
        }
    }
}
