//! `[traces]`: which collector hears of spans, by OpenTelemetry's own variables where the file and the flag say nothing.
//!
//! ```toml
//! [traces]
//! endpoint = "http://127.0.0.1:4318"  # the collector; /v1/traces is added
//! service = "evermill"
//! headers = { "x-token" = "env:TRACES_TOKEN" }
//! ```

use std::collections::BTreeMap;

use evermill_connectors::traces::Config;
use evermill_secrets::Reference;
use serde::Deserialize;

use super::{FILE, Origin, Setting};
use crate::failure::Failure;
use crate::vault::Vault;

/// The flag's name.
pub(crate) const FLAG: &str = "--otlp-endpoint";
/// Where a collector is, for all that it takes.
pub(super) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Where it takes traces; as it is.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_HEADERS",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const SERVICE: &str = "OTEL_SERVICE_NAME";
const DISABLED: &str = "OTEL_SDK_DISABLED";
/// What a variable of ours begins with.
pub(super) const PREFIX: &str = "OTEL_";

/// What stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFile {
    endpoint: Option<String>,
    service: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Where traces go, as it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Traces {
    /// The whole URL.
    url: String,
    service: String,
    headers: BTreeMap<String, String>,
    /// Who named the place.
    pub(crate) from: Origin,
}

/// What is set; nothing unless somebody names a collector.
///
/// # Errors
/// A collector that speaks something else than HTTP.
pub(super) fn settle(
    flag: Option<&str>,
    file: InFile,
    variables: &BTreeMap<String, String>,
) -> Result<Option<Setting<Traces>>, Failure> {
    let said = |name: &str| {
        variables
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let layers = [
        (flag.map(whole), Origin::Flag(FLAG)),
        (
            said(TRACES_ENDPOINT).map(str::to_owned),
            Origin::Variable(TRACES_ENDPOINT.to_owned()),
        ),
        (
            said(ENDPOINT).map(whole),
            Origin::Variable(ENDPOINT.to_owned()),
        ),
        (file.endpoint.as_deref().map(whole), Origin::File),
    ];
    let found = layers
        .into_iter()
        .find_map(|(url, origin)| Some((url?, origin)));
    let Some((url, origin)) = found else {
        return Ok(None);
    };
    let of_environment = matches!(origin, Origin::Variable(_));
    if of_environment && said(DISABLED).is_some_and(|word| word.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let protocol = PROTOCOLS.iter().find_map(|name| Some((name, said(name)?)));
    if let Some((name, "grpc")) = protocol.filter(|_| of_environment) {
        return Err(Failure::usage(format!(
            "{name}=grpc: evermill speaks OTLP over HTTP; take it away and name the collector's port for HTTP, as a rule 4318, \
             or trace nothing with {DISABLED}=true"
        )));
    }
    let mut headers = file.headers;
    if let Some((name, text)) = HEADERS.iter().find_map(|name| Some((name, said(name)?))) {
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = parse(pair).ok_or_else(|| {
                Failure::usage(format!(
                    "{name}: {:?} is no KEY=VALUE",
                    pair.split('=').next().unwrap_or_default()
                ))
            })?;
            headers.insert(key, value);
        }
    }
    let service = said(SERVICE).map(str::to_owned).or(file.service);
    let value = Traces {
        url,
        service: service.unwrap_or_else(|| "evermill".to_owned()),
        headers,
        from: origin.clone(),
    };
    Ok(Some(Setting { value, origin }))
}

/// A collector's address with the path for traces.
fn whole(endpoint: &str) -> String {
    format!("{}/v1/traces", endpoint.trim_end_matches('/'))
}

/// As in `baggage`: what has no letter of its own is in percents.
fn parse(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let value = percent_encoding::percent_decode_str(value.trim())
        .decode_utf8()
        .ok()?;
    Some((key.trim().to_owned(), value.into_owned())).filter(|(key, _)| !key.is_empty())
}

impl Traces {
    /// Where it leads, for people: nothing secret.
    pub(crate) fn place(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}/{path}")
    }

    /// With what its headers refer to.
    ///
    /// # Errors
    /// A secret that is not there.
    pub(crate) fn read(&self, vault: &Vault) -> Result<Config, Failure> {
        let headers = self.headers.iter().map(|(name, value)| {
            let value = match Reference::of(value) {
                None => value.clone(),
                Some(_) => vault.resolved(value).map_err(|why| {
                    Failure::usage(format!("{FILE}: [traces], headers, {name}: {why}"))
                })?,
            };
            Ok((name.clone(), value))
        });
        Ok(Config {
            url: self.url.clone(),
            headers: headers.collect::<Result<_, Failure>>()?,
            service: self.service.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(
        flag: Option<&str>,
        file: &str,
        variables: &[(&str, &str)],
    ) -> Option<Setting<Traces>> {
        tried(flag, file, variables).unwrap()
    }

    fn tried(
        flag: Option<&str>,
        file: &str,
        variables: &[(&str, &str)],
    ) -> Result<Option<Setting<Traces>>, Failure> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settle(flag, toml::from_str(file).unwrap(), &variables.collect())
    }

    #[test]
    fn nobody_hears_of_anything_unless_a_collector_is_named() {
        assert_eq!(
            settled(None, "service = 'x'", &[("OTEL_SERVICE_NAME", "y")]),
            None
        );
    }

    #[test]
    fn the_flag_wins_over_the_standards_variables_over_the_file() {
        let file = "endpoint = 'http://f:4318/'\nservice = 'x'";
        let all = [
            (TRACES_ENDPOINT, "http://t:1/x"),
            (ENDPOINT, "http://e:4318"),
        ];
        let found = settled(Some("http://g:4318"), file, &all).unwrap();
        assert_eq!(found.value.url, "http://g:4318/v1/traces");
        let found = settled(None, file, &all).unwrap();
        assert_eq!(found.value.url, "http://t:1/x", "as it is");
        let found = settled(None, file, &all[1..]).unwrap();
        assert_eq!(found.value.url, "http://e:4318/v1/traces");
        assert_eq!(found.origin.to_string(), "$OTEL_EXPORTER_OTLP_ENDPOINT");
        let found = settled(None, file, &[]).unwrap();
        assert_eq!(found.value.url, "http://f:4318/v1/traces");
        assert_eq!(found.value.service, "x");
        let found = settled(Some("http://a:b@g:4318"), "", &[]).unwrap();
        assert_eq!(found.value.place(), "http://g:4318/v1/traces");
    }

    #[test]
    fn headers_are_read_as_the_standard_writes_them() {
        let found = settled(
            None,
            "headers = { b = '3' }",
            &[
                (ENDPOINT, "http://e"),
                (HEADERS[1], "authorization=Bearer%20x, a=1"),
            ],
        );
        let headers: Vec<_> = found.unwrap().value.headers.into_iter().collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            headers,
            [
                pair("a", "1"),
                pair("authorization", "Bearer x"),
                pair("b", "3")
            ]
        );
        let error = tried(None, "", &[(ENDPOINT, "http://e"), (HEADERS[1], "secret")]).unwrap_err();
        assert!(error.to_string().contains("KEY=VALUE"), "{error}");
    }

    #[test]
    fn a_collector_that_speaks_something_else_is_refused_with_the_cure() {
        let grpc = [(ENDPOINT, "http://e:4317"), (PROTOCOLS[1], "grpc")];
        let error = tried(None, "", &grpc).unwrap_err().to_string();
        assert!(error.contains("4318"), "{error}");
        let off = [grpc[0], grpc[1], (DISABLED, "true")];
        assert_eq!(settled(None, "", &off), None);
    }
}
