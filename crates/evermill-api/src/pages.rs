//! The web page, embedded: the files that `cargo xtask web` made, or a page that says how to make them.
//!
//! The page speaks to `/api/v1` like any other program; nothing of an engine is in these files.

use hyper::header::{self, HeaderName, HeaderValue};

use crate::routes::{self, etag};
use crate::serve::Head;

/// A file of the page, as it is and compressed.
#[allow(
    dead_code,
    reason = "made by the build script's list, which is empty without a built page"
)]
pub(crate) struct Page {
    /// Below the root, such as `assets/index.js`.
    name: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
    brotli: Option<&'static [u8]>,
}

const PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// What is shown at the root.
const INDEX: &str = "index.html";
/// Files below have their content's hash in their names: who has one never has to ask again.
const HASHED: &str = "assets/";

/// Nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

const NO_PAGE: &[u8] = b"<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>evermill</title>
<h1>evermill runs; its web page was not built in</h1>
<p>In the source tree, build the page and then the program:</p>
<pre>cargo xtask web
cargo build</pre>
<p>Everything the page shows is told by <code>evermill top</code>, <code>evermill ps</code> and
<a href=\"api/v1/runs\">the API</a> as well.</p>
</html>
";

/// What is sent of a page.
pub(crate) struct Served {
    pub(crate) status: u16,
    pub(crate) media_type: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// The file that is asked for, if it is one of the page.
pub(crate) fn asked(head: &Head) -> Option<Served> {
    if !matches!(head.method.as_str(), "GET" | "HEAD") {
        return None;
    }
    let (path, _) = routes::split(&head.target);
    let known = head.header("if-none-match");
    find_in(PAGES, path, head.header("accept-encoding"), known)
}

/// `accepts` is the header `Accept-Encoding`, `known` the header `If-None-Match`.
fn find_in(
    pages: &[Page],
    path: &str,
    accepts: Option<&str>,
    known: Option<&str>,
) -> Option<Served> {
    let name = match path.strip_prefix('/')? {
        "" => INDEX,
        name => name,
    };
    let Some(page) = pages.iter().find(|page| page.name == name) else {
        return (name == INDEX).then(|| Served {
            headers: vec![
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (
                    header::CONTENT_SECURITY_POLICY,
                    HeaderValue::from_static(POLICY),
                ),
            ],
            status: 200,
            media_type: media_type(INDEX),
            body: NO_PAGE,
        });
    };
    let (encoding, body) = page.packed(accepts.unwrap_or_default());
    let keep = match name.starts_with(HASHED) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let tag = etag(body);
    let mut headers = vec![
        (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    headers.extend(
        HeaderValue::try_from(&tag)
            .ok()
            .map(|tag| (header::ETAG, tag)),
    );
    let is_known = known.is_some_and(|known| {
        let mut tags = known
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|known| known == tag)
    });
    if !is_known && let Some(encoding) = encoding {
        let encoding = HeaderValue::from_static(encoding);
        headers.push((header::CONTENT_ENCODING, encoding));
    }
    Some(Served {
        status: if is_known { 304 } else { 200 },
        media_type: media_type(name),
        body: if is_known { &[] } else { body },
        headers,
    })
}

impl Page {
    /// The smallest form that whoever asks can read, and its name.
    fn packed(&self, accepts: &str) -> (Option<&'static str>, &'static [u8]) {
        let forms = [("br", self.brotli), ("gzip", self.gzip)];
        let found = forms.into_iter().find_map(|(encoding, bytes)| {
            let bytes = bytes.filter(|_| does_accept(accepts, encoding))?;
            Some((Some(encoding), bytes))
        });
        found.unwrap_or((None, self.plain))
    }
}

fn does_accept(accepts: &str, encoding: &str) -> bool {
    accepts.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .and_then(|q| q.parse().ok())
            == Some(0.0);
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: &[Page] = &[
        Page {
            name: "assets/index-1a2b.js",
            plain: b"plain",
            gzip: Some(b"gzip"),
            brotli: Some(b"brotli"),
        },
        Page {
            name: INDEX,
            plain: b"<!doctype html>",
            gzip: None,
            brotli: None,
        },
    ];

    fn header(served: &Served, name: &HeaderName) -> Option<String> {
        let found = served.headers.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn without_a_build_the_root_says_how_to_make_one_and_nothing_else_is_there() {
        let page = find_in(&[], "/", None, None).unwrap();
        assert!(String::from_utf8_lossy(page.body).contains("cargo xtask web"));
        assert_eq!(header(&page, &header::CACHE_CONTROL).unwrap(), "no-store");
        assert!(find_in(&[], "/assets/index.js", None, None).is_none());
    }

    #[test]
    fn who_can_read_it_gets_the_smallest_form() {
        let get = |accepts| find_in(BUILT, "/assets/index-1a2b.js", accepts, None).unwrap();
        assert_eq!(get(Some("gzip, br")).body, b"brotli");
        assert_eq!(get(Some("gzip, br;q=0")).body, b"gzip");
        assert_eq!(get(Some("identity")).body, b"plain");
        assert_eq!(get(None).body, b"plain");
        let encoding = |accepts| header(&get(accepts), &header::CONTENT_ENCODING);
        assert_eq!(encoding(Some("br")).as_deref(), Some("br"));
        assert_eq!(encoding(None), None);
    }

    #[test]
    fn hashed_files_are_kept_for_ever_and_the_page_is_asked_for_again() {
        let script = find_in(BUILT, "/assets/index-1a2b.js", None, None).unwrap();
        assert!(
            header(&script, &header::CACHE_CONTROL)
                .unwrap()
                .contains("immutable")
        );
        let page = find_in(BUILT, "/", None, None).unwrap();
        assert_eq!(header(&page, &header::CACHE_CONTROL).unwrap(), "no-cache");
        let tag = header(&page, &header::ETAG).unwrap();
        let again = find_in(BUILT, "/", None, Some(&format!("\"other\", {tag}"))).unwrap();
        assert_eq!((again.status, again.body), (304, &[][..]));
        let policy = header(&page, &header::CONTENT_SECURITY_POLICY).unwrap();
        assert!(!policy.contains("unsafe"));
    }
}
