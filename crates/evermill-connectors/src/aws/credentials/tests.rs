//! Where credentials are found, against servers that play the machine's own.

use std::collections::BTreeMap;

use evermill_http::testing::{Reply, Server};

use super::*;

fn credentials(text: &str, variables: &[(&str, &str)]) -> Credentials {
    let nowhere = ("AWS_EC2_METADATA_DISABLED", "true");
    let known: BTreeMap<String, String> = [nowhere]
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let settings = Settings::parse("aws_default", text).unwrap();
    let variables: Variables = Arc::new(move |name| known.get(name).cloned());
    Credentials::new(settings, "eu-west-1".to_owned(), variables)
}

fn id(text: &str, variables: &[(&str, &str)]) -> String {
    credentials(text, variables).keys().unwrap().id
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
    let fault = credentials(text, variables).keys().unwrap_err();
    assert_eq!(fault.kind, Kind::Credentials);
    fault.said
}

/// A home with these files of the AWS tools.
fn home(config: &str, keys: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    std::fs::write(folder.path().join(".aws/config"), config).unwrap();
    std::fs::write(folder.path().join(".aws/credentials"), keys).unwrap();
    let path = folder.path().display().to_string();
    (folder, path)
}

const ENVIRONMENT: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "of-environment"),
    ("AWS_SECRET_ACCESS_KEY", "s"),
];

#[test]
fn the_first_place_that_has_some_wins() {
    let keys = "[default]\naws_access_key_id = of-default\naws_secret_access_key = s\n[dev]\naws_access_key_id = of-dev\naws_secret_access_key = s";
    let (_folder, home) = home("", keys);
    let home = ("HOME", home.as_str());
    let own = "?access_key_id=own&secret_access_key=s";
    let all = [ENVIRONMENT[0], ENVIRONMENT[1], home];
    assert_eq!(id(own, &all), "own");
    assert_eq!(
        id("?profile=dev", &all),
        "of-dev",
        "what is asked for by name"
    );
    assert_eq!(id("", &all), "of-environment");
    assert_eq!(id("", &[home]), "of-default");
    assert_eq!(id("", &[home, ("AWS_PROFILE", "dev")]), "of-dev");
}

#[test]
fn without_any_it_is_said_where_they_were_looked_for() {
    let said = refusal("", &[]);
    assert!(
        said.contains("AWS_ACCESS_KEY_ID") && said.contains("aws_default"),
        "{said}"
    );
    let (_folder, home) = home(
        "[profile staging]\nregion = eu-west-1\n[profile sso]\nsso_session = x",
        "",
    );
    let home = ("HOME", home.as_str());
    let said = refusal("?profile=stagin", &[home]);
    assert!(said.contains("did you mean \"staging\"?"), "{said}");
    let said = refusal("?profile=staging", &[home]);
    assert!(said.contains("has none"), "{said}");
    let said = refusal("?profile=sso", &[home]);
    assert!(said.contains("export-credentials"), "{said}");
}

#[test]
fn a_program_may_print_them() {
    let config = "[profile p]\ncredential_process = printf '{\"Version\": 1, \"AccessKeyId\": \"of-%s\", \"SecretAccessKey\": \"s\"}' program\n[profile q]\ncredential_process = echo geheim";
    let (_folder, home) = home(config, "");
    let home = ("HOME", home.as_str());
    assert_eq!(id("?profile=p", &[home]), "of-program");
    let said = refusal("?profile=q", &[home]);
    assert!(!said.contains("geheim"), "{said}");
}

fn role(id: &str) -> String {
    format!(
        "<AssumeRoleResponse xmlns=\"x\"><AssumeRoleResult><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
         <SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}

#[test]
fn a_role_is_taken_on_with_what_was_found_and_kept_until_it_is_forgotten() {
    let server = Server::start(|_| Reply::new(200, role("of-role")));
    let text = format!("{}?role_arn=arn:r&external_id=e", server.url());
    let credentials = credentials(&text, &ENVIRONMENT);
    for _ in 0..3 {
        let keys = credentials.keys().unwrap();
        assert_eq!(
            (keys.id.as_str(), keys.token.as_deref()),
            ("of-role", Some("t"))
        );
    }
    assert_eq!(server.seen().len(), 1);
    credentials.forget();
    credentials.keys().unwrap();
    let seen = &server.seen()[1];
    let body = String::from_utf8_lossy(&seen.body).into_owned();
    for part in ["Action=AssumeRole&", "RoleArn=arn%3Ar", "ExternalId=e"] {
        assert!(body.contains(part), "{body}");
    }
    let signed = seen.header("authorization").unwrap();
    assert!(
        signed.contains("Credential=of-environment/") && signed.contains("/eu-west-1/sts/"),
        "{signed}"
    );
}

#[test]
fn profiles_take_roles_on_from_each_other_but_not_in_a_circle() {
    let server = Server::start(|_| Reply::new(200, role("of-role")));
    let url = server.url();
    let config = "[profile base]\naws_access_key_id = b\naws_secret_access_key = s\n[profile r]\nrole_arn = arn:r\nsource_profile = base\n\
                  [profile a]\nrole_arn = arn:a\nsource_profile = b\n[profile b]\nrole_arn = arn:b\nsource_profile = a";
    let (_folder, home) = home(config, "");
    let variables = [
        ("HOME", home.as_str()),
        ("AWS_ENDPOINT_URL_STS", url.as_str()),
    ];
    assert_eq!(id("?profile=r", &variables), "of-role");
    let said = refusal("?profile=a", &variables);
    assert!(said.contains("round and round"), "{said}");
}

#[test]
fn a_web_identity_is_not_signed() {
    let server = Server::start(|_| Reply::new(200, role("of-web")));
    let url = server.url();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "token\n").unwrap();
    let path = file.path().display().to_string();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()),
        ("AWS_ROLE_ARN", "arn:r"),
        ("AWS_ENDPOINT_URL", url.as_str()),
    ];
    assert_eq!(id("", &variables), "of-web");
    let seen = &server.seen()[0];
    assert_eq!(seen.header("authorization"), None);
    assert!(String::from_utf8_lossy(&seen.body).contains("WebIdentityToken=token"));
}

#[test]
fn containers_and_instances_are_asked_as_they_want_to_be() {
    let told = r#"{"AccessKeyId": "of-place", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}"#;
    let server = Server::start(
        move |seen| match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/creds") if seen.header("authorization") == Some("secret") => {
                Reply::new(200, told)
            }
            ("PUT", "/latest/api/token") => Reply::new(200, "session"),
            ("GET", path) if seen.header("x-aws-ec2-metadata-token") == Some("session") => {
                match path {
                    "/latest/meta-data/iam/security-credentials/" => Reply::new(200, "role-a"),
                    "/latest/meta-data/iam/security-credentials/role-a" => Reply::new(200, told),
                    _ => Reply::new(404, ""),
                }
            }
            _ => Reply::new(401, ""),
        },
    );
    let url = server.url();
    let place = format!("{url}/creds");
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", place.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret"),
    ];
    assert_eq!(id("", &container), "of-place");
    let said = refusal("", &container[..1]);
    assert!(said.contains("answered 401"), "{said}");
    let instance = [
        ("AWS_EC2_METADATA_DISABLED", ""),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
    ];
    assert_eq!(id("", &instance), "of-place");
}
