//! Signs a request, sends it, and reads the answer.

use std::sync::Arc;
use std::time::Duration;

use evermill_contract::source::SourceError;
use evermill_http::{Connection, Method, Request, Response, Target};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::credentials::{Credentials, Variables};
use super::fault::{Fault, Kind};
use super::profile::Profiles;
use super::settings::{Settings, is_region};
use super::sign::{Scope, Unsigned};
use crate::limits;

/// A service, as its signatures and hosts name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Sqs,
    S3,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Sqs => "sqs",
            Self::S3 => "s3",
        }
    }

    /// The variable with an endpoint for this service alone.
    const fn variable(self) -> &'static str {
        match self {
            Self::Sqs => "AWS_ENDPOINT_URL_SQS",
            Self::S3 => "AWS_ENDPOINT_URL_S3",
        }
    }
}

/// Asks one service of one region.
#[derive(Clone)]
pub(crate) struct Client {
    service: Service,
    region: String,
    endpoint: String,
    http: evermill_http::Client,
    credentials: Arc<Credentials>,
}

/// Where a service is in a region.
pub(super) fn endpoint(service: &str, region: &str) -> String {
    let domain = match region {
        china if china.starts_with("cn-") => "amazonaws.com.cn",
        _ => "amazonaws.com",
    };
    format!("https://{service}.{region}.{domain}")
}

/// A client for an endpoint, with what the connection says of HTTP.
pub(super) fn http(settings: &Settings, endpoint: &str) -> Result<evermill_http::Client, Fault> {
    let more = if settings.http.is_empty() { "" } else { "&" };
    let text = format!("{endpoint}?redirects=0{more}{}", settings.http);
    let connection = Connection::parse(&settings.id, &text);
    connection
        .and_then(evermill_http::Client::new)
        .map_err(|error| Fault::of_transport(&error))
}

/// Host and port of an endpoint.
pub(super) fn host(endpoint: &str) -> &str {
    let rest = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

impl Client {
    /// Prepares to ask; nothing is connected yet. `place` is what the thing that is asked for says of
    /// region and endpoint by its name.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when nobody says which region, or a setting is wrong.
    pub(crate) fn new(
        service: Service,
        settings: Settings,
        place: Place,
    ) -> Result<Self, SourceError> {
        let variables: Variables = Arc::new(|name| std::env::var(name).ok());
        Self::with_variables(service, settings, place, variables)
    }

    pub(super) fn with_variables(
        service: Service,
        settings: Settings,
        place: Place,
        variables: Variables,
    ) -> Result<Self, SourceError> {
        let variable = |name: &str| variables(name).filter(|value| !value.is_empty());
        let given = settings
            .endpoint
            .clone()
            .or(place.endpoint)
            .or_else(|| variable(service.variable()))
            .or_else(|| variable("AWS_ENDPOINT_URL"));
        let region = place
            .region
            .or_else(|| settings.region.clone())
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .or_else(|| region_of_profile(&settings, &variables))
            // An emulator takes any.
            .or_else(|| given.as_ref().map(|_| "us-east-1".to_owned()));
        let id = &settings.id;
        let region = region.ok_or_else(|| {
            SourceError::Refused(format!(
                "connection {id:?}: nobody says which region; pass --connection {id}=REGION (such as eu-central-1), or set AWS_REGION"
            ))
        })?;
        let endpoint = given.unwrap_or_else(|| endpoint(service.name(), &region));
        let http = http(&settings, &endpoint).map_err(refused)?;
        let credentials = Credentials::new(settings, region.clone(), variables);
        Ok(Self {
            service,
            region,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            http,
            credentials: Arc::new(credentials),
        })
    }

    /// The same with sockets of its own, so that one can be cancelled without the other.
    pub(crate) fn beside(&self) -> Result<Self, SourceError> {
        let connection = self.http.connection().clone();
        let http = evermill_http::Client::new(connection);
        let http = http.map_err(|error| refused(Fault::of_transport(&error)))?;
        Ok(Self {
            http,
            ..self.clone()
        })
    }

    /// Ends what is under way, at once. The client is of no use afterwards.
    pub(crate) fn cancel(&self) {
        self.http.cancel();
    }

    /// The place for people.
    pub(crate) fn place(&self) -> &str {
        &self.endpoint
    }

    /// One call of a service that speaks JSON, such as `AmazonSQS.ReceiveMessage`.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn call<A: DeserializeOwned>(
        &self,
        target: &str,
        asked: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<A, Fault> {
        let doing = target.rsplit('.').next().unwrap_or(target);
        let body = serde_json::to_vec(asked).expect("a request is JSON");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", target),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut request = Request::new(Method::POST, Target::Below("/".to_owned()));
        request.headers = headers.to_vec();
        request.body = Some(body);
        request.timeout = timeout;
        request.bytes_max = limits::AWS_ANSWER_BYTES_MAX;
        let response = self.send(doing, request)?;
        serde_json::from_slice(&response.body).map_err(|error| {
            let place = &response.place;
            Fault::new(
                Kind::Away,
                format!("{place} {doing}: the answer is not understood: {error}"),
            )
        })
    }

    /// Asks for what is at a path, whose characters need no encoding.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn get(
        &self,
        doing: &str,
        path: &str,
        query: Vec<(String, String)>,
    ) -> Result<Response, Fault> {
        let mut request = Request::new(Method::GET, Target::Below(path.to_owned()));
        request.query = query;
        request.bytes_max = limits::AWS_ANSWER_BYTES_MAX;
        self.send(doing, request)
    }

    /// Puts a body to a path, whose characters need no encoding.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn put(
        &self,
        doing: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<(), Fault> {
        let mut request = Request::new(Method::PUT, Target::Below(path.to_owned()));
        request.headers = headers.to_vec();
        request.body = Some(body.to_vec());
        request.timeout = Some(timeout);
        request.bytes_max = limits::AWS_ANSWER_BYTES_MAX;
        self.send(doing, request).map(drop)
    }

    /// Signs and sends; an answer of success.
    fn send(&self, doing: &str, mut request: Request) -> Result<Response, Fault> {
        let keys = self.credentials.keys()?;
        let Target::Below(path) = &request.target else {
            unreachable!("a service is asked below its endpoint");
        };
        let base = self.endpoint.split_once("://").map_or("", |(_, rest)| rest);
        let base = base.find('/').map_or("", |at| &base[at..]);
        let path = format!("{base}{path}");
        let unsigned = Unsigned {
            method: request.method.as_str(),
            host: host(&self.endpoint),
            path: &path,
            query: &request.query,
            headers: &request.headers,
            body: request.body.as_deref().unwrap_or_default(),
        };
        let scope = Scope {
            region: &self.region,
            service: self.service.name(),
            now: Timestamp::now(),
        };
        request.headers = unsigned.sign(scope, &keys);
        let response = self.http.send(&request);
        let response = response.map_err(|error| Fault::of_transport(&error))?;
        if response.status == 200 {
            return Ok(response);
        }
        let fault = Fault::of_answer(doing, &response);
        if fault.kind == Kind::Credentials {
            self.credentials.forget();
        }
        Err(fault)
    }
}

/// What a name says of where its thing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

impl Place {
    /// What a URL says: its origin, and the region if its host has one.
    pub(crate) fn of_url(url: &str) -> Self {
        let mut parts = url.splitn(4, '/');
        let origin = format!(
            "{}//{}",
            parts.next().unwrap_or_default(),
            parts.nth(1).unwrap_or_default()
        );
        let region = host(&origin).split('.').find(|part| is_region(part));
        Self {
            region: region.map(str::to_owned),
            endpoint: Some(origin),
        }
    }
}

fn region_of_profile(settings: &Settings, variables: &Variables) -> Option<String> {
    let named = settings
        .profile
        .clone()
        .or_else(|| variables("AWS_PROFILE"));
    let name = named.unwrap_or_else(|| "default".to_owned());
    let profiles = Profiles::read(&**variables);
    profiles.get(&name)?.get("region").cloned()
}

fn refused(fault: Fault) -> SourceError {
    SourceError::Refused(fault.said)
}
