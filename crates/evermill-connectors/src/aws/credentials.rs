//! Who asks: credentials from the first place that has some, renewed before they expire.
//!
//! 1. the connection's own keys; with `profile`, that profile and nothing else;
//! 2. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`;
//! 3. the profile that `AWS_PROFILE` names, else `default`: keys, a role, a web identity, a program;
//! 4. a web identity: `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN` (EKS);
//! 5. the container's: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` or `..._FULL_URI` (ECS, EKS);
//! 6. the machine's: the instance metadata service, version 2 (EC2).
//!
//! With a connection's `role_arn`, whatever was found is used to take that role on.

use std::fmt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermill_http::{Client, Connection, Method, Request, Response, Target};
use jiff::Timestamp;
use serde::Deserialize;

use super::fault::{Fault, Kind};
use super::profile::Profiles;
use super::settings::Settings;
use super::sign::{Scope, Unsigned};
use super::xml;
use crate::limits;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    /// `None`: they last.
    pub(crate) expires: Option<Timestamp>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// The variables of the environment, or a test's.
pub(crate) type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Finds credentials and keeps them until they are about to expire.
pub(super) struct Credentials {
    settings: Settings,
    /// Where roles are taken on.
    region: String,
    variables: Variables,
    known: Mutex<Option<Keys>>,
}

/// What container, program and instance answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

impl From<Told> for Keys {
    fn from(told: Told) -> Self {
        Self {
            id: told.access_key_id,
            secret: told.secret_access_key,
            token: told.token,
            expires: told.expiration.and_then(|text| text.parse().ok()),
        }
    }
}

impl Credentials {
    pub(super) fn new(settings: Settings, region: String, variables: Variables) -> Self {
        Self {
            settings,
            region,
            variables,
            known: Mutex::default(),
        }
    }

    /// Credentials that hold for a while.
    ///
    /// # Errors
    /// When there are none anywhere, or the place that has them refuses.
    pub(super) fn keys(&self) -> Result<Keys, Fault> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |keys: &Keys| {
            let left = keys.expires?.duration_since(Timestamp::now());
            Some(Duration::try_from(left).unwrap_or_default())
        };
        let is_fresh = |keys: &&Keys| left(keys).is_none_or(|left| left > limits::AWS_RENEW_BEFORE);
        if let Some(keys) = known.as_ref().filter(is_fresh) {
            return Ok(keys.clone());
        }
        match (self.find(), known.as_ref()) {
            (Ok(keys), _) => {
                *known = Some(keys.clone());
                Ok(keys)
            }
            // They hold a little longer, and then it is tried again.
            (Err(_), Some(keys)) if left(keys).is_none_or(|left| !left.is_zero()) => {
                Ok(keys.clone())
            }
            (Err(fault), _) => Err(fault),
        }
    }

    /// They were refused: what is known of them is out of date.
    pub(super) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn find(&self) -> Result<Keys, Fault> {
        let keys = self.base()?;
        match &self.settings.role {
            Some(role) => self.assume(role, self.settings.external_id.as_deref(), &keys),
            None => Ok(keys),
        }
    }

    fn base(&self) -> Result<Keys, Fault> {
        if let Some(keys) = &self.settings.keys {
            return Ok(keys.clone());
        }
        let profiles = Profiles::read(&*self.variables);
        if let Some(name) = &self.settings.profile {
            return self
                .of_profile(&profiles, name, 0)?
                .ok_or_else(|| self.without(&format!("profile {name:?} has none")));
        }
        if let Some(keys) = self.of_environment() {
            return Ok(keys);
        }
        let named = self.variable("AWS_PROFILE");
        let name = named.as_deref().unwrap_or("default");
        if (named.is_some() || profiles.get(name).is_some())
            && let Some(keys) = self.of_profile(&profiles, name, 0)?
        {
            return Ok(keys);
        }
        let web = self
            .variable("AWS_WEB_IDENTITY_TOKEN_FILE")
            .zip(self.variable("AWS_ROLE_ARN"));
        if let Some((file, role)) = web {
            return self.of_web_identity(&file, &role);
        }
        if let Some(url) = self.container() {
            return self.of_container(&url);
        }
        self.of_instance()
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    fn of_environment(&self) -> Option<Keys> {
        Some(Keys {
            id: self.variable("AWS_ACCESS_KEY_ID")?,
            secret: self.variable("AWS_SECRET_ACCESS_KEY")?,
            token: self.variable("AWS_SESSION_TOKEN"),
            expires: None,
        })
    }

    /// What a profile has; `None` when it says nothing of credentials.
    fn of_profile(
        &self,
        profiles: &Profiles,
        name: &str,
        depth: usize,
    ) -> Result<Option<Keys>, Fault> {
        let Some(profile) = profiles.get(name) else {
            let cure = match crate::near::nearest(name, profiles.names()) {
                Some(meant) => format!("; did you mean {meant:?}?"),
                None => "; `aws configure list-profiles` lists those there are".to_owned(),
            };
            return Err(self.without(&format!("there is no profile {name:?}{cure}")));
        };
        let get = |field: &str| profile.get(field).map(String::as_str);
        let own = get("aws_access_key_id").zip(get("aws_secret_access_key"));
        let own = own.map(|(id, secret)| Keys {
            id: id.to_owned(),
            secret: secret.to_owned(),
            token: get("aws_session_token").map(str::to_owned),
            expires: None,
        });
        if let Some(role) = get("role_arn") {
            if let Some(file) = get("web_identity_token_file") {
                return self.of_web_identity(file, role).map(Some);
            }
            if depth >= limits::AWS_PROFILES_IN_A_ROW {
                return Err(self.without(&format!(
                    "profile {name:?}: its source_profile leads round and round"
                )));
            }
            let base = match (get("source_profile"), get("credential_source")) {
                (Some(source), _) if source == name => own,
                (Some(source), _) => self.of_profile(profiles, source, depth + 1)?,
                (None, Some("Environment")) => self.of_environment(),
                (None, Some("EcsContainer")) => match self.container() {
                    Some(url) => Some(self.of_container(&url)?),
                    None => None,
                },
                (None, Some("Ec2InstanceMetadata")) => Some(self.of_instance()?),
                _ => own,
            };
            let base = base.ok_or_else(|| {
                self.without(&format!(
                    "profile {name:?} takes a role on, and its source_profile has no credentials"
                ))
            })?;
            return self.assume(role, get("external_id"), &base).map(Some);
        }
        if own.is_some() {
            return Ok(own);
        }
        if let Some(command) = get("credential_process") {
            return self.of_program(name, command).map(Some);
        }
        if get("sso_session")
            .or_else(|| get("sso_start_url"))
            .is_some()
        {
            return Err(self.without(&format!(
                "profile {name:?} signs in by IAM Identity Center, which evermill does not do; \
                 write credential_process = aws configure export-credentials --profile {name} into another profile, and name that"
            )));
        }
        Ok(None)
    }

    /// Runs the program that a profile names, which prints credentials.
    fn of_program(&self, profile: &str, command: &str) -> Result<Keys, Fault> {
        let wrong =
            |why: &str| self.without(&format!("credential_process of profile {profile:?}: {why}"));
        let ended = Command::new("sh").args(["-c", command]).output();
        let ended = ended.map_err(|error| wrong(&error.to_string()))?;
        if !ended.status.success() {
            return Err(wrong(&format!("it ended with {}", ended.status)));
        }
        let told: Told = serde_json::from_slice(&ended.stdout)
            .map_err(|_| wrong("what it printed is not what credentials look like"))?;
        Ok(told.into())
    }

    fn of_web_identity(&self, file: &str, role: &str) -> Result<Keys, Fault> {
        let token = std::fs::read_to_string(file)
            .map_err(|error| self.without(&format!("the web identity's token {file}: {error}")))?;
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", SESSION),
            ("WebIdentityToken", token.trim()),
        ];
        self.of_sts(&form, None)
    }

    fn assume(&self, role: &str, external_id: Option<&str>, keys: &Keys) -> Result<Keys, Fault> {
        let mut form = vec![
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", SESSION),
        ];
        form.extend(external_id.map(|id| ("ExternalId", id)));
        self.of_sts(&form, Some(keys))
    }

    /// Asks the service that gives out roles.
    fn of_sts(&self, form: &[(&str, &str)], keys: Option<&Keys>) -> Result<Keys, Fault> {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let endpoint = self
            .settings
            .endpoint
            .clone()
            .or_else(|| self.variable("AWS_ENDPOINT_URL_STS"))
            .or_else(|| self.variable("AWS_ENDPOINT_URL"))
            .unwrap_or_else(|| super::client::endpoint("sts", &self.region));
        let client = super::client::http(&self.settings, &endpoint)?;
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
        if let Some(keys) = keys {
            let unsigned = Unsigned {
                method: "POST",
                host: super::client::host(&endpoint),
                path: "/",
                query: &[],
                headers: &headers,
                body: body.as_bytes(),
            };
            let scope = Scope {
                region: &self.region,
                service: "sts",
                now: Timestamp::now(),
            };
            headers = unsigned.sign(scope, keys);
        }
        let mut request = Request::new(Method::POST, Target::Below("/".to_owned()));
        request.headers = headers;
        request.body = Some(body.into_bytes());
        let response = client
            .send(&request)
            .map_err(|error| Fault::of_transport(&error))?;
        let doing = form[0].1;
        if response.status != 200 {
            return Err(Fault::of_answer(doing, &response));
        }
        let text = String::from_utf8_lossy(&response.body);
        let field = |name| xml::text(&text, name);
        let keys = field("AccessKeyId").zip(field("SecretAccessKey"));
        let (id, secret) = keys.ok_or_else(|| {
            self.without(&format!("{} {doing}: the answer has none", response.place))
        })?;
        Ok(Keys {
            id,
            secret,
            token: field("SessionToken"),
            expires: field("Expiration").and_then(|text| text.parse().ok()),
        })
    }

    fn container(&self) -> Option<String> {
        let relative = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let relative = relative.map(|path| format!("http://169.254.170.2{path}"));
        relative.or_else(|| self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    }

    fn of_container(&self, url: &str) -> Result<Keys, Fault> {
        let file = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let token = match file {
            Some(file) => Some(std::fs::read_to_string(&file).map_err(|error| {
                self.without(&format!("the container's token {file}: {error}"))
            })?),
            None => self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        let token = token.map(|token| token.trim().to_owned());
        let headers = token.map(|token| ("authorization".to_owned(), token));
        let response = self.ask(Method::GET, url, headers.into_iter().collect())?;
        self.told("the container's credentials", &response)
    }

    fn of_instance(&self) -> Result<Keys, Fault> {
        let nowhere = || {
            self.without(
                "neither the connection nor the environment nor ~/.aws has any, and this machine is none of AWS; \
                 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `profile` or `access_key_id` of the connection",
            )
        };
        let off = self.variable("AWS_EC2_METADATA_DISABLED");
        if off.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
            return Err(nowhere());
        }
        let base = self
            .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let base = base.trim_end_matches('/');
        let lasting = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        let lasting = vec![(lasting.0.to_owned(), lasting.1.to_owned())];
        let session = self.ask(Method::PUT, &format!("{base}/latest/api/token"), lasting);
        let session = session.ok().filter(|session| session.status == 200);
        let session = session.ok_or_else(nowhere)?;
        let token = String::from_utf8_lossy(&session.body).into_owned();
        let headers = vec![("x-aws-ec2-metadata-token".to_owned(), token)];
        let place = format!("{base}/latest/meta-data/iam/security-credentials/");
        let roles = self.ask(Method::GET, &place, headers.clone())?;
        let names = String::from_utf8_lossy(&roles.body).into_owned();
        let role = names.lines().next().unwrap_or_default();
        if roles.status != 200 || role.is_empty() {
            return Err(
                self.without("this machine has no instance profile; give it one, or set keys")
            );
        }
        let response = self.ask(Method::GET, &format!("{place}{role}"), headers)?;
        self.told("the instance's credentials", &response)
    }

    /// Asks an address of the machine's own.
    fn ask(
        &self,
        method: Method,
        url: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Response, Fault> {
        let client = Client::new(Connection::default()).map_err(|e| Fault::of_transport(&e))?;
        let mut request = Request::new(method, Target::Written(url.to_owned()));
        request.headers = headers;
        request.timeout = Some(limits::AWS_METADATA_WAIT);
        client
            .send(&request)
            .map_err(|error| Fault::of_transport(&error))
    }

    fn told(&self, what: &str, response: &Response) -> Result<Keys, Fault> {
        if response.status != 200 {
            let status = response.status;
            return Err(self.without(&format!("{what}: {} answered {status}", response.place)));
        }
        let told = serde_json::from_slice::<Told>(&response.body);
        told.map(Keys::from).map_err(|_| {
            self.without(&format!(
                "{what}: the answer of {} has none",
                response.place
            ))
        })
    }

    fn without(&self, why: &str) -> Fault {
        let said = format!(
            "connection {:?}: no AWS credentials: {why}",
            self.settings.id
        );
        Fault::new(Kind::Credentials, said)
    }
}

/// What a role's use is called in AWS' own records.
const SESSION: &str = "evermill";

#[cfg(test)]
mod tests;
