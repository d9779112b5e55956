//! Signature version 4: what is asked is hashed, and the hash is signed with a key that holds for one
//! day, region and service.
//!
//! The steps and their names are those of the AWS General Reference, "Create a signed AWS API request".

use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::credentials::Keys;

/// What stands for itself.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request before it is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Host, with the port if it is not the usual one.
    pub(super) host: &'a str,
    /// Percent-encoded as it is sent, beginning with a slash.
    pub(super) path: &'a str,
    /// Names and values, not encoded yet.
    pub(super) query: &'a [(String, String)],
    /// Names in lower case.
    pub(super) headers: &'a [(String, String)],
    pub(super) body: &'a [u8],
}

/// For whom and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) now: Timestamp,
}

impl Unsigned<'_> {
    /// The headers to send: those of the request, and what signs them.
    pub(super) fn sign(&self, scope: Scope<'_>, keys: &Keys) -> Vec<(String, String)> {
        let (date, day) = (
            scope.now.strftime("%Y%m%dT%H%M%SZ").to_string(),
            scope.now.strftime("%Y%m%d").to_string(),
        );
        let mut headers = self.headers.to_vec();
        headers.push(("x-amz-date".to_owned(), date.clone()));
        if let Some(token) = &keys.token {
            headers.push(("x-amz-security-token".to_owned(), token.clone()));
        }
        let hashed = hex(&Sha256::digest(self.body));
        if scope.service == "s3" {
            headers.push(("x-amz-content-sha256".to_owned(), hashed.clone()));
        }
        let mut signed = headers.clone();
        signed.push(("host".to_owned(), self.host.to_owned()));
        signed.sort();
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let request = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{hashed}",
            self.method,
            self.path,
            canonical_query(self.query)
        );
        let Scope {
            region, service, ..
        } = scope;
        let place = format!("{day}/{region}/{service}/aws4_request");
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{place}\n{}",
            hex(&Sha256::digest(request))
        );
        let mut key = hmac(format!("AWS4{}", keys.secret).as_bytes(), &day);
        for part in [region, service, "aws4_request"] {
            key = hmac(&key, part);
        }
        let signature = hex(&hmac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{place}, SignedHeaders={names}, Signature={signature}",
            keys.id
        );
        headers.push(("authorization".to_owned(), authorization));
        headers
    }
}

fn canonical_query(query: &[(String, String)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let mut pairs: Vec<_> = query
        .iter()
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(unsigned: Unsigned<'_>, service: &str, now: &str, secret: &str) -> String {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: secret.to_owned(),
            token: None,
            expires: None,
        };
        let scope = Scope {
            region: "us-east-1",
            service,
            now: now.parse().unwrap(),
        };
        let headers = unsigned.sign(scope, &keys);
        let (_, value) = headers.last().unwrap();
        value.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn the_published_examples_have_the_published_signatures() {
        // "get-vanilla" of the test suite that AWS publishes.
        let vanilla = Unsigned {
            method: "GET",
            host: "example.amazonaws.com",
            path: "/",
            query: &[],
            headers: &[],
            body: b"",
        };
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            signature(vanilla, "service", "2015-08-30T12:36:00Z", secret),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        // "GET Bucket (List Objects)" of the S3 API Reference.
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let list = Unsigned {
            host: "examplebucket.s3.amazonaws.com",
            query: &[pair("prefix", "J"), pair("max-keys", "2")],
            ..vanilla
        };
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            signature(list, "s3", "2013-05-24T00:00:00Z", secret),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn a_token_is_signed_and_sent() {
        let keys = Keys {
            id: "a".to_owned(),
            secret: "b".to_owned(),
            token: Some("t".to_owned()),
            expires: None,
        };
        let scope = Scope {
            region: "eu-west-1",
            service: "sqs",
            now: Timestamp::UNIX_EPOCH,
        };
        let unsigned = Unsigned {
            method: "POST",
            host: "h:1",
            path: "/",
            query: &[],
            headers: &[("x-amz-target".to_owned(), "AmazonSQS.ListQueues".to_owned())],
            body: b"{}",
        };
        let headers = unsigned.sign(scope, &keys);
        assert!(headers.contains(&("x-amz-security-token".to_owned(), "t".to_owned())));
        let (_, signed) = headers.last().unwrap();
        assert!(
            signed.contains("SignedHeaders=host;x-amz-date;x-amz-security-token;x-amz-target,"),
            "{signed}"
        );
    }
}
