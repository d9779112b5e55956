//! HTTP/1.1 over TCP and over the control socket: one server, one set of resources.
//!
//! Connections live on one thread of a runtime; what is asked for is worked on by threads beside it, since
//! the engine's answers wait for commits. Whoever is slow or gone holds up nobody but himself.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evermill_engine::{Handle, Operations};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::access::{self, Access, Who};
use crate::audit::{Audit, Entry};
use crate::beside::{Beside, Connections};
use crate::feed::{Events, Feed, Wants};
use crate::guests::{Admission, Guest, Guests, Spoken};
use crate::hooks;
use crate::limits;
use crate::metrics;
use crate::pages::{self, Served};
use crate::patient::Patient;
use crate::problem::Problem;
use crate::replies::Replies;
use crate::routes::{self, Method, Request, Response, respond_with};
use crate::table::{Content, LogIn, Role, Route, Session};
use crate::tail::{self, Tail, Tails};
use crate::tls::Tls;

/// Who answers; shared by all connections.
pub type Service = Arc<dyn Operations>;

/// How a site looks from outside.
pub struct Face {
    /// Where tokens are kept, and who changed what.
    pub data_dir: PathBuf,
    /// It can be reached from elsewhere: everybody needs a token.
    pub exposed: bool,
    /// The name, with a port if it has one, under which a proxy serves it.
    pub host: Option<String>,
    /// What a proxy leaves in front of every path: `/evermill`, or nothing.
    pub base: String,
    /// With TLS.
    pub tls: Option<Tls>,
    /// The proxy, or we, speak TLS: cookies are for that alone.
    pub secure: bool,
}

impl Face {
    /// For this machine alone.
    #[must_use]
    pub const fn local(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            exposed: false,
            host: None,
            base: String::new(),
            tls: None,
            secure: false,
        }
    }
}

/// What is served: the resources of an engine, and what changes of them.
pub struct Site {
    pub(crate) service: Service,
    /// Takes what is brought to sources.
    pub(crate) handle: Option<Handle>,
    connections: Option<Arc<dyn Connections>>,
    feed: Arc<Feed>,
    tails: Tails,
    pub(crate) face: Face,
    pub(crate) access: Arc<Access>,
    audit: Audit,
    replies: Replies,
    /// Bytes of bodies that may be read at the same time, in KiB.
    bodies: Semaphore,
}

impl Site {
    /// What `service` answers, with `handle` what is brought to sources over TCP, and with `connections`
    /// where those lead.
    #[must_use]
    pub fn new(
        service: Service,
        handle: Option<Handle>,
        connections: Option<Arc<dyn Connections>>,
        face: Face,
    ) -> Arc<Self> {
        Arc::new(Self {
            access: Arc::new(Access::new(&face.data_dir, face.exposed)),
            audit: Audit::at(&face.data_dir),
            replies: Replies::default(),
            face,
            feed: Feed::new(Arc::clone(&service)),
            tails: Tails::default(),
            service,
            handle,
            connections,
            bodies: Semaphore::new(limits::BODIES_KIB_MAX),
        })
    }
}

/// Where somebody asks from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The control socket, which belongs to the owner of the data directory alone; the user's number.
    Control(u32),
    /// TCP.
    Tcp(IpAddr),
}

/// Answers over the control socket until the process ends, on the calling thread.
///
/// # Errors
/// When there is no runtime.
pub fn serve(listener: UnixListener, site: &Arc<Site>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let guests = Guests::new(limits::CONTROL_CONNECTIONS_MAX);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let user = stream.peer_cred().map_or(0, |peer| peer.uid());
                    if let Some(admission) = guests.admit() {
                        let site = Arc::clone(site);
                        tokio::spawn(receive(admission, site, Door::Control(user), None, stream));
                    }
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    })
}

/// Answers over TCP until the process ends, on the calling thread: what is brought to a source goes to the
/// engine, everything else to the site's service.
///
/// # Errors
/// When there is no runtime.
pub fn listen(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let guests = Guests::new(limits::CONNECTIONS_MAX);
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    // Slower without, not wrong.
                    stream.set_nodelay(true).ok();
                    if let Some(admission) = guests.admit() {
                        let (site, door) = (Arc::clone(site), Door::Tcp(from.ip()));
                        let tls = site.face.tls.as_ref().map(Tls::acceptor);
                        tokio::spawn(receive(admission, site, door, tls, stream));
                    }
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            }
        }
    })
}

/// How soon a connection is taken again after one could not be, such as for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::AT_WORK_MAX)
        .thread_name("api")
        .build()
}

/// Answers one who has come, in TLS if that is spoken here, or tells him to come again.
async fn receive<S>(
    admission: Admission,
    site: Arc<Site>,
    door: Door,
    tls: Option<TlsAcceptor>,
    stream: S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (guest, _told) = match admission {
        Admission::Welcome(guest) => (Some(guest), None),
        Admission::Later(permit) => (None, Some(permit)),
    };
    let asks = guest.clone().map(|guest| (site, door, guest));
    let served = async {
        let Some(tls) = tls else {
            return connection(stream, asks).await;
        };
        let greeted = timeout(limits::PATIENCE, tls.accept(stream)).await;
        // Who speaks something else, or does not trust us, has gone already.
        if let Ok(Ok(stream)) = greeted {
            connection(stream, asks).await;
        }
    };
    match &guest {
        Some(guest) => guest.stays(served).await,
        None => served.await,
    }
}

/// Answers one connection; without a guest whoever asks is told to come again.
async fn connection<S>(stream: S, asks: Option<(Arc<Site>, Door, Arc<Guest>)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stays = asks.is_some();
    let respond = move |request| {
        let asks = asks.clone();
        async move {
            let (answered, speaking) = match asks {
                Some((site, door, guest)) => {
                    let speaking = guest.speaks();
                    (answer(site, door, request).await, Some(speaking))
                }
                None => {
                    let detail = "too many connections at the same time; ask again";
                    (Err(busy(detail)), None)
                }
            };
            let answered = answered.unwrap_or_else(|problem| Response::from(problem).into_http());
            Ok::<_, Infallible>(answered.map(|body| Spoken {
                body,
                _speaking: speaking,
            }))
        }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::PATIENCE)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .keep_alive(stays)
        .serve_connection(TokioIo::new(Patient::new(stream)), service_fn(respond));
    // Whoever asked may have gone.
    drop(served.await);
}

fn busy(detail: &str) -> Problem {
    Problem::new(503, "busy", "Too many requests", detail)
}

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Bytes)>,
}

impl Head {
    fn of(parts: &hyper::http::request::Parts) -> Self {
        let headers = parts.headers.iter().map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (name.as_str().to_owned(), value)
        });
        Self {
            method: parts.method.as_str().to_owned(),
            target: parts.uri.path_and_query().map_or_else(
                || parts.uri.path().to_owned(),
                |target| target.as_str().to_owned(),
            ),
            headers: headers.collect(),
        }
    }

    /// About as many bytes as it took.
    fn bytes(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.target.len() + headers.sum::<usize>()
    }

    /// The first header of this lower-case name, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find_map(|(found, value)| (found == name).then_some(value));
        found.and_then(|value| std::str::from_utf8(value).ok())
    }

    fn method(&self) -> Result<Method, Problem> {
        // The server leaves the body of the answer away by itself.
        let name = match self.method.as_str() {
            "HEAD" => "GET",
            name => name,
        };
        Method::of(name).ok_or_else(|| Problem::wrong_method("GET, POST, PUT, DELETE"))
    }
}

async fn answer(
    site: Arc<Site>,
    door: Door,
    request: hyper::Request<Incoming>,
) -> Result<Answered, Problem> {
    let (parts, body) = request.into_parts();
    let mut head = Head::of(&parts);
    if head.bytes() > limits::HEAD_BYTES_MAX {
        return Err(head_too_large());
    }
    let mut who = match door {
        Door::Control(user) => Who::owner(format!("uid {user}")),
        Door::Tcp(_) => Who::owner(""),
    };
    if let Door::Tcp(from) = door {
        hooks::refuse_strangers(&head, &site)?;
        if let Some(place) = root(&site.face.base, &head) {
            return Ok(moved(&place));
        }
        head.target = below(&site.face.base, head.target)?;
        if let Some((dag, source)) = hooks::place(&head.target)
            && let Some(handle) = site.handle.clone()
        {
            site.access.may_push(from)?;
            let most = handle.push_body_max(&dag, &source);
            // Somebody who has the wrong place is told so, and not that he brings too much.
            let most = most.unwrap_or(limits::PAYLOAD_BYTES_MAX);
            let body = site.read(&head, body, most).await?;
            let push = move || hooks::push(&handle, &dag, &source, &head, &body);
            return work(push).await?.map(Response::into_http);
        }
        if head.target == "/healthz" && head.method == "GET" {
            return Ok(hooks::answered(&serde_json::json!({"status": "ok"})).into_http());
        }
        if let Some(served) = pages::asked(&head) {
            return Ok(page(served));
        }
        if head.target == "/readyz" && head.method == "GET" {
            let ready = work(move || hooks::ready(&*site.service)).await?;
            return Ok(ready.into_http());
        }
        who = site.access.who(&head, from)?;
        if head.target == "/metrics" && head.method == "GET" {
            if who.role < Role::Viewer {
                return Err(Problem::not_known());
            }
            let text = work(move || metrics::text(&*site.service, &who)).await??;
            return Ok(dressed(200, metrics::MEDIA_TYPE, Sent::Whole(text.into())));
        }
    }
    let method = head.method()?;
    if method != Method::Get && access::is_by_cookie(&head) && !hooks::is_own_page(&head, &site) {
        return Err(hooks::foreign_origin(
            head.header("origin").unwrap_or("nowhere"),
        ));
    }
    let (path, query) = routes::split(&head.target);
    let (route, parts) = routes::find(method, path)?;
    if who.role == Role::Guest {
        // Before anything is read. What somebody known may not do is put on record below.
        route.check(&*site.service, &who, &parts)?;
    }
    if matches!(route.answer, Content::Events(..)) {
        return site.stream(route, parts, &head, query, door, who).await;
    }
    let body = site.read(&head, body, bytes_max(route)).await?;
    if route.path == "/session" {
        return site.session(method, &head, &body, door, who);
    }
    let from = match door {
        Door::Control(_) => "control.sock".to_owned(),
        Door::Tcp(from) => from.to_string(),
    };
    // The engine knows these keys durably.
    let durable = route.id.starts_with("trigger") || route.id == "sendSignal";
    // A token is nowhere but with whom it was shown; a name is taken once.
    let durable = durable || route.id == "createToken";
    let request = Request {
        who,
        method,
        if_match: head.header("if-match").map(str::to_owned),
        idempotency_key: head
            .header("idempotency-key")
            .map(|key| Bytes::copy_from_slice(key.as_bytes())),
        target: head.target,
        body,
    };
    let respond = move || site.answered(&request, from, durable);
    work(respond).await?.map(Response::into_http)
}

/// A path without what a proxy leaves in front of it.
fn below(base: &str, target: String) -> Result<String, Problem> {
    if base.is_empty() || target == "/healthz" || target == "/readyz" {
        return Ok(target);
    }
    let rest = target.strip_prefix(base);
    match rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?'])) {
        Some(rest) => Ok(rest.to_owned()),
        None => Err(Problem::no_such_resource(&target)),
    }
}

/// Where somebody finds our page who left out the slash at the end of what a proxy leaves in front.
fn root(base: &str, head: &Head) -> Option<String> {
    let (path, query) = routes::split(&head.target);
    let is_root = !base.is_empty() && path == base && matches!(&*head.method, "GET" | "HEAD");
    let more = if query.is_empty() { "" } else { "?" };
    is_root.then(|| format!("{base}/{more}{query}"))
}

const fn bytes_max(route: &Route) -> usize {
    match route.body {
        Content::Bytes => limits::PAYLOAD_BYTES_MAX,
        _ => limits::BODY_BYTES_MAX,
    }
}

/// Does what may wait, on a thread of its own.
pub(crate) async fn work<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(what).await;
    done.map_err(|_| {
        Problem::new(
            500,
            "broken",
            "Something broke here",
            "see the engine's log",
        )
    })
}

fn wants(head: &Head, query: &str) -> Result<Wants, Problem> {
    let mut wants = Wants {
        last: head.header("last-event-id").map(str::to_owned),
        ..Wants::default()
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "run" => drop(wants.runs.insert(value.into_owned())),
            "pools" => wants.pools = value == "true",
            _ => return Err(crate::reading::unknown_parameter(&name)),
        }
    }
    Ok(wants)
}

impl Site {
    /// Answers a request; one that comes again with its key is answered as before. What changes something
    /// is put on record.
    fn answered(
        &self,
        request: &Request,
        from: String,
        durable: bool,
    ) -> Result<Response, Problem> {
        if request.method == Method::Get {
            return Ok(self.respond(request));
        }
        let key = match &request.idempotency_key {
            Some(key) if !durable && request.method == Method::Post => Some((
                request.who.name.clone(),
                request.target.clone(),
                String::from_utf8_lossy(key).into_owned(),
            )),
            _ => None,
        };
        if let Some(key) = &key {
            if key.2.len() > limits::KEY_BYTES_MAX {
                let most = limits::KEY_BYTES_MAX;
                let detail = format!("an Idempotency-Key has at most {most} bytes");
                return Err(Problem::bad_request(detail));
            }
            if let Some(response) = self.replies.begin(key, routes::etag(&request.body))? {
                return Ok(response);
            }
        }
        let response = self.respond(request);
        if let Some(key) = &key {
            self.replies.end(key, Some(&response));
        }
        self.record(
            &request.who,
            from,
            request.method,
            &request.target,
            response.status,
        );
        Ok(response)
    }

    fn respond(&self, request: &Request) -> Response {
        let beside = Beside {
            connections: self.connections.as_deref(),
            access: &self.access,
            audit: &self.audit,
        };
        respond_with(&*self.service, Some(&beside), request)
    }

    /// Events that go on until somebody leaves, or may not hear them any more.
    async fn stream(
        self: &Arc<Self>,
        route: &'static Route,
        parts: Vec<String>,
        head: &Head,
        query: &str,
        door: Door,
        who: Who,
    ) -> Result<Answered, Problem> {
        let (access, listener) = (Arc::clone(&self.access), who.clone());
        let may_listen: Box<dyn Fn() -> bool + Send> = match door {
            Door::Control(_) => Box::new(|| true),
            Door::Tcp(_) => Box::new(move || access.still(&listener)),
        };
        if route.id == "tailLogs" {
            let wanted = tail::wanted(query, head.header("last-event-id"))?;
            let site = Arc::clone(self);
            let find = move || {
                route.check(&*site.service, &who, &parts)?;
                Ok::<_, Problem>(site.service.logs(&parts[0])?)
            };
            let logs = work(find).await??;
            let tail = Tail::start(logs, wanted, self.tails.admit()?, may_listen);
            return Ok(dressed(200, EVENTS, Sent::Lines(tail)));
        }
        let mut wants = wants(head, query)?;
        if wants.pools && who.dags.is_some() {
            let detail = "pools are about all DAGs; leave pools= out";
            return Err(Problem::new(
                403,
                "not_allowed",
                "This is not for you",
                detail,
            ));
        }
        wants.dags = who.dags.clone();
        let feed = Arc::clone(&self.feed);
        let events = work(move || feed.listen(wants, may_listen)).await??;
        Ok(dressed(200, EVENTS, Sent::Events(events)))
    }

    /// Puts on record what somebody did, or wanted to.
    fn record(&self, who: &Who, from: String, method: Method, target: &str, status: u16) {
        let entry = Entry {
            at_ms: 0,
            who: who.name.clone(),
            from,
            method: method.name().to_owned(),
            target: target.to_owned(),
            status,
            before: String::new(),
        };
        // It is done already; a disk that is full is told by the engine.
        drop(self.audit.add(entry));
    }

    /// Who asks; begins and ends sessions of browsers.
    fn session(
        &self,
        method: Method,
        head: &Head,
        body: &Bytes,
        door: Door,
        who: Who,
    ) -> Result<Answered, Problem> {
        let (mut who, mut cookie) = (who, None);
        match (method, door) {
            (Method::Post, Door::Tcp(from)) => {
                if head.header("origin").is_some() && !hooks::is_own_page(head, self) {
                    let origin = head.header("origin").unwrap_or_default();
                    return Err(hooks::foreign_origin(origin));
                }
                let LogIn { token } = crate::reading::read_wanted(body)?;
                let (secret, known) = self.access.log_in(&token, from)?;
                self.record(&known, from.to_string(), method, "/api/v1/session", 200);
                (who, cookie) = (known, Some(secret));
            }
            (Method::Delete, _) => {
                self.access.log_out(head);
                if let (Door::Tcp(from), Some(_)) = (door, &who.token) {
                    self.record(&who, from.to_string(), method, "/api/v1/session", 200);
                }
                cookie = Some(String::new());
                if self.access.is_required() {
                    who = Who::guest();
                }
            }
            _ => {}
        }
        let session = Session {
            dags: who.dags.map(|dags| dags.iter().cloned().collect()),
            name: who.name,
            role: who.role,
            required: matches!(door, Door::Tcp(_)) && self.access.is_required(),
        };
        let mut answer = hooks::answered(&serde_json::json!(session)).into_http();
        if let Some(secret) = cookie {
            let ends = if secret.is_empty() { "; Max-Age=0" } else { "" };
            let secure = if self.face.secure { "; Secure" } else { "" };
            let text = format!(
                "{}={secret}; Path={}/; HttpOnly; SameSite=Strict{secure}{ends}",
                access::COOKIE,
                self.face.base,
            );
            if let Ok(value) = HeaderValue::try_from(text) {
                answer.headers_mut().insert(header::SET_COOKIE, value);
            }
        }
        Ok(answer)
    }

    /// Reads the body of a request whole.
    async fn read(&self, head: &Head, mut body: Incoming, most: usize) -> Result<Bytes, Problem> {
        let length = head.header("content-length");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        let length = match length {
            None if body.is_end_stream() => return Ok(Bytes::new()),
            Some(0) => return Ok(Bytes::new()),
            Some(length) if length > most => {
                // Who waits for a word before the body gets this one.
                if head.header("expect").is_none() {
                    let_finish(&mut body).await;
                }
                return Err(too_large(most));
            }
            length => length.unwrap_or(most),
        };
        let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = timeout(limits::PATIENCE, self.bodies.acquire_many(kib)).await;
        let Ok(Ok(_room)) = room else {
            return Err(busy(
                "too much is being sent at the same time; send it again",
            ));
        };
        gather(body, most, limits::PATIENCE, limits::REQUEST_TIME).await
    }
}

/// The whole of a body that comes within `time`, without a pause longer than `pause`.
async fn gather<B>(
    mut body: B,
    most: usize,
    pause: Duration,
    time: Duration,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let (mut all, end) = (BytesMut::new(), Instant::now() + time);
    loop {
        let next = Instant::now() + pause;
        let frame = timeout_at(next.min(end), body.frame()).await;
        let frame = frame.map_err(|_| too_slow())?;
        let Some(frame) = frame else {
            return Ok(all.freeze());
        };
        let frame = frame.map_err(|cause| cut_short(&cause.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > most - all.len() {
            let_finish(&mut body).await;
            return Err(too_large(most));
        }
        all.extend_from_slice(&data);
    }
}

/// Takes what is still being sent, for a while: a connection that ends before is reset, and whoever sends
/// hears of that and not of our answer.
async fn let_finish<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let (mut taken, end) = (0, Instant::now() + limits::REFUSED_TIME);
    while taken < limits::REFUSED_BYTES_MAX {
        match timeout_at(end, body.frame()).await {
            Ok(Some(Ok(frame))) => taken += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

fn cut_short(cause: &str) -> Problem {
    Problem::bad_request(format!("it ended before it was complete: {cause}"))
}

fn too_slow() -> Problem {
    let seconds = limits::REQUEST_TIME.as_secs();
    let detail = format!("it has to be here within {seconds} seconds, without long pauses");
    Problem::new(408, "too_slow", "The request did not come in time", detail)
}

fn too_large(most: usize) -> Problem {
    let detail = format!("it is larger than {most} bytes");
    Problem::new(413, "too_large", "The request is too large", detail)
}

/// The server's own buffer may take a head of twice the size, depending on how it arrives.
fn head_too_large() -> Problem {
    let most = limits::HEAD_BYTES_MAX;
    let detail = format!("its first line and headers are larger than {most} bytes");
    Problem::new(431, "head_too_large", "The request is too large", detail)
}

/// An answer on its way.
type Answered = hyper::Response<Sent>;

/// The body of an answer.
pub(crate) enum Sent {
    Whole(Bytes),
    Events(Events),
    Lines(Tail),
}

/// The media type of events that go on.
const EVENTS: &str = "text/event-stream";

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(std::mem::take(bytes)),
            Self::Events(events) => ready!(events.poll_next(context)),
            Self::Lines(tail) => ready!(tail.poll_next(context)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) | Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// What every answer says to browsers: nothing of it is a page, nobody keeps it.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    ),
];

fn dressed(status: u16, media_type: &'static str, body: Sent) -> Answered {
    let mut response = hyper::Response::new(body);
    *response.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// It is elsewhere, for good.
fn moved(place: &str) -> Answered {
    let mut response = dressed(308, "text/plain; charset=utf-8", Sent::Whole(Bytes::new()));
    if let Ok(place) = HeaderValue::try_from(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// A file of the web page, whose own headers take the place of the usual ones.
fn page(served: Served) -> Answered {
    let body = Sent::Whole(Bytes::from_static(served.body));
    let mut response = dressed(served.status, served.media_type, body);
    for (name, value) in served.headers {
        response.headers_mut().insert(name, value);
    }
    response
}

impl Response {
    fn into_http(self) -> Answered {
        let Response {
            status,
            media_type,
            body,
            etag,
            allow,
        } = self;
        let mut response = dressed(status, media_type, Sent::Whole(body.into()));
        let headers = response.headers_mut();
        // Whoever is told to come again hears when.
        let again = matches!(status, 429 | 503).then(|| "1".to_owned());
        for (name, value) in [
            (header::ETAG, etag),
            (header::ALLOW, allow),
            (header::RETRY_AFTER, again),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(30);

    /// A body of single bytes that never ends; after `bytes` of them it says nothing more.
    struct Drip {
        bytes: usize,
        next: Pin<Box<tokio::time::Sleep>>,
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.bytes == 0 {
                return Poll::Pending;
            }
            ready!(self.next.as_mut().poll(context));
            self.bytes -= 1;
            self.next.as_mut().reset(Instant::now() + PAUSE / 30);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    /// S12.
    #[test]
    fn e08_a_body_that_drips_or_pauses_is_cut_off() {
        for (bytes, pause, time) in [
            // It never pauses, and takes too long.
            (usize::MAX, Duration::from_secs(600), PAUSE),
            (3, PAUSE, Duration::from_secs(600)),
        ] {
            let refused = runtime().unwrap().block_on(async {
                let next = Box::pin(sleep(Duration::ZERO));
                gather(Drip { bytes, next }, 1 << 20, pause, time).await
            });
            let problem = refused.unwrap_err();
            assert_eq!((problem.status, &*problem.code), (408, "too_slow"));
        }
    }
}
