//! A bucket of Amazon S3, or of what speaks as it does: an object is a file that is whole as soon as it can
//! be seen.

use evermill_contract::source::SourceError;
use glob::Pattern;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::folder::OPTIONS;
use super::place::{Entry, Listing, Place};
use crate::aws::{self, Client, Fault, Kind, Service, Settings};

/// The scheme of its URLs.
pub(super) const SCHEME: &str = "s3";

/// What stands below a prefix of a bucket.
pub(super) struct Bucket {
    client: Client,
    bucket: String,
    /// Empty, or a folder with its slash.
    prefix: String,
    /// Which objects below it; without one, those right in it.
    pattern: Option<Pattern>,
    /// The one object that is named as the folder would be.
    alone: Option<String>,
}

/// Bucket and prefix of a path behind `s3://`.
///
/// # Errors
/// What cannot be a bucket, and the cure.
pub(super) fn split(path: &str) -> Result<(&str, &str), (String, &'static str)> {
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if (3..=63).contains(&bucket.len()) && bucket.bytes().all(legal) {
        return Ok((bucket, prefix));
    }
    let cure = "write s3://BUCKET/PREFIX; a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-'";
    Err((format!("no bucket can be called {bucket:?}"), cure))
}

/// What a bucket's answer means, with its name.
pub(super) fn explain(bucket: &str, client: &Client, fault: Fault) -> Fault {
    let said = match fault.kind {
        Kind::Missing => format!(
            "bucket {bucket:?} does not exist at {}; create it, or correct its name",
            client.place()
        ),
        _ => format!("bucket {bucket:?}: {}", fault.said),
    };
    Fault::new(fault.kind, said)
}

impl Bucket {
    /// Prepares to ask; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub(super) fn open(
        path: &str,
        pattern: Option<Pattern>,
        connection: &str,
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        let (bucket, prefix) =
            split(path).map_err(|(what, cure)| SourceError::Refused(format!("{what}; {cure}")))?;
        let settings = Settings::find(connection, find)?;
        let is_folder = prefix.is_empty() || prefix.ends_with('/');
        let slash = if is_folder { "" } else { "/" };
        Ok(Self {
            client: Client::new(Service::S3, settings, aws::Place::default())?,
            bucket: bucket.to_owned(),
            alone: (!is_folder && pattern.is_none()).then(|| prefix.to_owned()),
            prefix: format!("{prefix}{slash}"),
            pattern,
        })
    }

    fn url(&self, key: &str) -> String {
        format!("{SCHEME}://{}/{key}", self.bucket)
    }

    /// Whether an object is asked for, by its key.
    fn wants(&self, key: &str) -> bool {
        let below = key.strip_prefix(&self.prefix);
        let matches = match (&self.pattern, below) {
            (_, None) => self.alone.as_deref() == Some(key),
            (Some(pattern), Some(below)) => pattern.matches_with(below, OPTIONS),
            (None, Some(below)) => !below.contains('/') && !below.starts_with('.'),
        };
        // What ends with a slash stands for a folder.
        matches && !key.ends_with('/')
    }

    /// One page of what is there, from behind the one before.
    fn page(&self, prefix: &str, token: Option<&str>) -> Result<String, Fault> {
        let mut query = vec![
            ("list-type".to_owned(), "2".to_owned()),
            ("prefix".to_owned(), prefix.to_owned()),
        ];
        let pattern = self.pattern.as_ref().map_or("", Pattern::as_str);
        if !pattern.contains('/') {
            query.push(("delimiter".to_owned(), "/".to_owned()));
        }
        query.extend(token.map(|token| ("continuation-token".to_owned(), token.to_owned())));
        let path = format!("/{}", self.bucket);
        let answer = self.client.get("ListObjectsV2", &path, query);
        let answer = answer.map_err(|fault| explain(&self.bucket, &self.client, fault))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The object of this key; it is the first of those whose keys begin so.
    fn one(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let page = self.page(key, None)?;
        let mut entries = aws::xml::each(&page, "Contents").filter_map(|one| self.entry(one));
        Ok(entries.find(|entry| entry.path == self.url(key)))
    }

    fn entry(&self, object: &str) -> Option<Entry> {
        let key = aws::xml::text(object, "Key")?;
        if !self.wants(&key) {
            return None;
        }
        let modified = aws::xml::text(object, "LastModified")?;
        let modified: Timestamp = modified.parse().ok()?;
        let tag = aws::xml::text(object, "ETag").unwrap_or_default();
        Some(Entry {
            path: self.url(&key),
            size: aws::xml::text(object, "Size")?.parse().ok()?,
            modified_ns: i64::try_from(modified.as_nanosecond()).ok()?,
            version: tag.trim_matches('"').to_owned(),
        })
    }
}

impl Place for Bucket {
    fn list(&self, most: usize) -> Listing {
        let mut listing = Listing::default();
        if let Some(key) = &self.alone {
            match self.one(key) {
                Ok(entry) => listing.entries.extend(entry),
                Err(fault) => listing.trouble = Some(fault.said),
            }
        }
        let mut token = None;
        loop {
            let page = match self.page(&self.prefix, token.as_deref()) {
                Ok(page) => page,
                Err(fault) => {
                    listing.trouble = Some(fault.said);
                    return listing;
                }
            };
            let found = aws::xml::each(&page, "Contents");
            listing
                .entries
                .extend(found.filter_map(|object| self.entry(object)));
            if listing.entries.len() > most {
                listing.entries.clear();
                listing.trouble = Some(format!(
                    "more than {most} objects of {} match, and nothing fires: move away what is done, or name a \
                     longer prefix",
                    self.url(&self.prefix)
                ));
                return listing;
            }
            token =
                aws::xml::text(&page, "NextContinuationToken").filter(|token| !token.is_empty());
            if token.is_none() {
                return listing;
            }
        }
    }

    fn look(&self, paths: &[String]) -> Vec<Option<Entry>> {
        let look = |path: &String| {
            let key = path.strip_prefix(&self.url(""))?;
            self.one(key).ok()?
        };
        paths.iter().map(look).collect()
    }

    fn shows_unfinished(&self) -> bool {
        false
    }

    fn location(&self, entry: &Entry) -> Map<String, Value> {
        let key = entry.path.strip_prefix(&self.url("")).unwrap_or_default();
        let fields = [
            ("path".to_owned(), json!(entry.path)),
            ("url".to_owned(), json!(entry.path)),
            ("bucket".to_owned(), json!(self.bucket)),
            ("key".to_owned(), json!(key)),
        ];
        fields.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use evermill_http::testing::{Reply, Server};

    use super::*;

    fn bucket(server: &Server, path: &str, pattern: Option<&str>) -> Bucket {
        let address = format!("{}?access_key_id=a&secret_access_key=geheim", server.url());
        let pattern = pattern.map(|pattern| Pattern::new(pattern).unwrap());
        Bucket::open(path, pattern, "aws_default", &|_| Some(address.clone())).unwrap()
    }

    fn object(key: &str, tag: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
             <ETag>&quot;{tag}&quot;</ETag><Size>7</Size></Contents>"
        )
    }

    fn listed(more: &str) -> String {
        format!("<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\">{more}</ListBucketResult>")
    }

    #[test]
    fn every_page_is_read_and_what_matches_is_an_entry() {
        let pages = Mutex::new(0);
        let server = Server::start(move |_| {
            let mut page = pages.lock().unwrap();
            *page += 1;
            Reply::new(
                200,
                listed(&match *page {
                    1 => format!(
                        "{}<NextContinuationToken>t/1=</NextContinuationToken>",
                        object("in/a.csv", "1")
                    ),
                    _ => {
                        object("in/b &amp; c.csv", "2")
                            + &object("in/d.txt", "3")
                            + &object("in/", "4")
                    }
                }),
            )
        });
        let listing = bucket(&server, "data-1/in", Some("*.csv")).list(100);
        assert_eq!(listing.trouble, None);
        let found: Vec<_> = listing
            .entries
            .iter()
            .map(|one| (one.path.as_str(), one.version.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("s3://data-1/in/a.csv", "1"),
                ("s3://data-1/in/b & c.csv", "2")
            ]
        );
        assert_eq!(
            (listing.entries[0].size, listing.entries[0].modified_ns),
            (7, 1_767_323_045_000_000_000)
        );
        let seen = server.seen();
        assert_eq!(
            seen[0].path,
            "/data-1?list-type=2&prefix=in%2F&delimiter=%2F"
        );
        assert!(
            seen[1].path.ends_with("&continuation-token=t%2F1%3D"),
            "{}",
            seen[1].path
        );
        let signed = seen[0].header("authorization").unwrap();
        assert!(signed.contains("/us-east-1/s3/aws4_request"), "{signed}");
    }

    #[test]
    fn a_prefix_is_a_folder_or_one_object() {
        let keys = ["in/a", "in/b/c", "in/.hidden", "in", "inn", "in/b/"];
        let server = Server::start(move |seen| {
            // All that begins so: what matches is for us to say.
            let (_, prefix) = seen.path.split_once("prefix=").unwrap();
            let prefix = prefix.split('&').next().unwrap().replace("%2F", "/");
            let found = keys.iter().filter(|key| key.starts_with(&prefix));
            let found: String = found.map(|key| object(key, "1")).collect();
            Reply::new(200, listed(&found))
        });
        let found = |path: &str, pattern| {
            let listing = bucket(&server, path, pattern).list(100);
            let keys = listing.entries.into_iter();
            let keys = keys.map(|one| one.path["s3://data-1/".len()..].to_owned());
            keys.collect::<Vec<_>>()
        };
        assert_eq!(found("data-1/in/", None), ["in/a"]);
        assert_eq!(found("data-1/in", None), ["in", "in/a"]);
        assert_eq!(found("data-1/in", Some("**/*")), ["in/a", "in/b/c"]);
        assert_eq!(found("data-1", None), ["in", "inn"]);
    }

    #[test]
    fn too_many_objects_and_trouble_are_said_without_an_entry() {
        let all: String = (0..4).map(|n| object(&n.to_string(), "1")).collect();
        let server = Server::start(move |_| Reply::new(200, listed(&all)));
        let listing = bucket(&server, "data-1", None).list(3);
        assert!(
            listing.entries.is_empty() && listing.trouble.unwrap().contains("more than 3 objects")
        );
        for (status, code, said) in [
            (404, "NoSuchBucket", "does not exist"),
            (403, "AccessDenied", "allow it in the policy"),
            (503, "SlowDown", "more slowly"),
        ] {
            let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
            let server = Server::start(move |_| Reply::new(status, body.clone()));
            let trouble = bucket(&server, "data-1", None).list(3).trouble.unwrap();
            assert!(
                trouble.contains(said) && trouble.contains("data-1") && !trouble.contains("geheim"),
                "{trouble}"
            );
        }
    }

    #[test]
    fn a_bucket_in_another_region_is_said_with_its_region() {
        let body = "<Error><Code>PermanentRedirect</Code><Message>m</Message></Error>";
        let server =
            Server::start(move |_| Reply::new(301, body).with("x-amz-bucket-region", "eu-north-1"));
        let trouble = bucket(&server, "data-1", None).list(3).trouble.unwrap();
        assert!(trouble.contains("region eu-north-1"), "{trouble}");
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for (path, fine) in [
            ("data-1/in", true),
            ("a.b.c", true),
            ("", false),
            ("Data/in", false),
            ("ab", false),
        ] {
            assert_eq!(split(path).is_ok(), fine, "{path}");
        }
    }
}
