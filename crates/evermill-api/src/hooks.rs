//! What is answered over TCP: `/hooks/{dag}/{source}`, `/healthz`, and `/api/v1` as on the socket.
//!
//! There is no access control, so nobody but this machine may be listened to, and of this machine no
//! page that a browser has from elsewhere: such a page can send requests here, but not without saying
//! so (`Origin`), and not under our name (`Host`).

use std::net::IpAddr;

use bytes::Bytes;
use evermill_engine::{Handle, Operations, PushError, PushRequest};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::problem::Problem;
use crate::routes::{self, Response};
use crate::serve::{Head, Site};

/// Where the path of a source that takes requests begins.
const HOOKS: &str = "/hooks/";

/// DAG and source of a path below `/hooks`.
pub(crate) fn place(target: &str) -> Option<(String, String)> {
    let path = target.split('?').next()?.strip_prefix(HOOKS)?;
    let (dag, source) = path.split_once('/')?;
    let decoded = |part: &str| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned());
    Some((decoded(dag)?, decoded(source)?))
}

/// Brings a request to a source.
pub(crate) fn push(
    handle: &Handle,
    dag: &str,
    source: &str,
    head: &Head,
    body: &Bytes,
) -> Result<Response, Problem> {
    let request = PushRequest {
        method: &head.method,
        query: routes::split(&head.target).1,
        headers: &head.headers,
        body,
    };
    match handle.push(dag, source, &request) {
        Ok(pushed) => {
            let body = json!({"kept": pushed.kept, "repeated": pushed.repeated});
            Ok(answered(&body))
        }
        Err(PushError::NotFound) if is_ending(handle, dag, source) => {
            let detail = format!("DAG '{dag}' takes nothing more for now; send it again later");
            Err(Problem::new(503, "closed", "The source is closed", detail))
        }
        Err(PushError::NotFound) => {
            let detail = format!("no source '{source}' of a DAG '{dag}' takes requests now");
            Err(Problem::new(
                404,
                "unknown_source",
                "No such source",
                detail,
            ))
        }
        Err(PushError::Rejected(reject)) => {
            let title = "The source does not take it";
            Err(Problem::new(
                reject.status,
                "rejected",
                title,
                reject.detail,
            ))
        }
        Err(PushError::Unavailable(why)) => {
            let title = "It cannot be judged for now";
            Err(Problem::new(503, "unavailable", title, why))
        }
        Err(PushError::Engine(error)) => Err(error.into()),
    }
}

/// Whether there is such a source that will take requests again: its run is ending, or not quite there.
fn is_ending(handle: &Handle, dag: &str, source: &str) -> bool {
    let view = handle.view();
    let runs = view
        .runs
        .iter()
        .filter(|run| run.dag == dag && run.state != "running");
    runs.flat_map(|run| &run.sources)
        .any(|found| found.id == source)
}

/// An answer of JSON.
pub(crate) fn answered(body: &serde_json::Value) -> Response {
    Response {
        status: 200,
        media_type: "application/json",
        body: body.to_string().into_bytes(),
        etag: None,
        allow: None,
    }
}

/// Refuses what a page from elsewhere asks, and what is asked under another name.
pub(crate) fn refuse_strangers(received: &Head, site: &Site) -> Result<(), Problem> {
    // Where everybody shows a token, a page that only pretends to be ours has none.
    if site.access.is_required() {
        return match received.header("origin") {
            Some(origin) if !is_own_page(received, site) => Err(foreign_origin(origin)),
            _ => Ok(()),
        };
    }
    refuse_other_places(received)
}

/// Refuses what does not come from this machine, by its own word.
fn refuse_other_places(received: &Head) -> Result<(), Problem> {
    let host = received.header("host").unwrap_or_default();
    if !is_here(host) {
        let detail = format!("this is not {host:?}; ask under 127.0.0.1 or localhost");
        return Err(Problem::new(
            421,
            "wrong_host",
            "The host is another one",
            detail,
        ));
    }
    let origin = received.header("origin");
    let foreign = origin.filter(|origin| {
        let place = origin.split_once("://").map(|(_, place)| place);
        !place.is_some_and(is_here)
    });
    if let Some(origin) = foreign {
        return Err(foreign_origin(origin));
    }
    Ok(())
}

/// A page from elsewhere.
pub(crate) fn foreign_origin(origin: &str) -> Problem {
    let detail = format!("a page from {origin} may not ask here");
    Problem::new(403, "foreign_origin", "The page is a stranger", detail)
}

/// Whether it is a page of ours that asks: from the place that it asks, or from where a proxy serves us.
pub(crate) fn is_own_page(received: &Head, site: &Site) -> bool {
    let origin = received
        .header("origin")
        .and_then(|origin| origin.split_once("://"));
    let Some((_, place)) = origin else {
        return false;
    };
    let own = [received.header("host"), site.face.host.as_deref()];
    own.iter()
        .flatten()
        .any(|own| own.eq_ignore_ascii_case(place))
}

/// Whether the engine takes orders and can commit.
pub(crate) fn ready(engine: &dyn Operations) -> Response {
    let ready = engine.overview().is_ok_and(|view| view.stalled.is_none());
    let word = if ready { "ready" } else { "not ready" };
    Response {
        status: if ready { 200 } else { 503 },
        ..answered(&json!({"status": word}))
    }
}

/// Whether a host, with or without a port, is this machine's loopback.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address: Option<IpAddr> = name.parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(&str, &str)]) -> u16 {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()));
        let received = Head {
            method: "POST".to_owned(),
            target: "/hooks/a/b".to_owned(),
            headers: headers.collect(),
        };
        refuse_other_places(&received).map_or_else(|problem| problem.status, |()| 200)
    }

    /// S05, K05.
    #[test]
    fn pages_from_elsewhere_and_other_names_are_refused() {
        for (headers, expected) in [
            (&[("host", "127.0.0.1:4700")][..], 200),
            (&[("host", "localhost")], 200),
            (&[("host", "[::1]:4700")], 200),
            (&[("host", "LOCALHOST:1")], 200),
            (&[("host", "evil.example:4700")], 421),
            (&[("host", "127.0.0.1.evil.example")], 421),
            (&[], 421),
            (
                &[("host", "localhost"), ("origin", "http://localhost:4700")],
                200,
            ),
            (
                &[("host", "localhost"), ("origin", "https://evil.example")],
                403,
            ),
            (&[("host", "localhost"), ("origin", "null")], 403),
        ] {
            assert_eq!(status(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_place_is_a_dag_and_a_source() {
        let found = |target| place(target).map(|(dag, source)| format!("{dag} {source}"));
        assert_eq!(found("/hooks/orders/in?x=/y"), Some("orders in".to_owned()));
        assert_eq!(found("/hooks/a%20b/c%2Fd"), Some("a b c/d".to_owned()));
        assert_eq!(found("/hooks/orders"), None);
        assert_eq!(found("/api/v1/runs"), None);
    }
}
