//! POST, mail and command.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use evermill_contract::alert::Receipt;
use evermill_contract::source::SourceError;
use evermill_http::{Client, Connection, Method, Request, Target};

use super::config::HookTo;
use super::mail::Mailer;
use super::parcel::Parcel;
use crate::limits;

/// Where a hook's deliveries go.
pub struct Delivery(Way);

enum Way {
    Post(Box<Client>),
    Mail(Box<Mailer>),
    Command(String),
}

/// Why a delivery was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It may be taken later.
    ForNow(String),
    /// It will not.
    ForGood(String),
}

impl Failed {
    pub(super) fn why(&self) -> &str {
        let (Self::ForNow(why) | Self::ForGood(why)) = self;
        why
    }
}

impl Delivery {
    /// Makes it ready; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for a URL or an address that is none.
    pub fn open(to: &HookTo) -> Result<Self, SourceError> {
        let refused = |cause: evermill_http::Error| SourceError::Refused(cause.to_string());
        Ok(Self(match to {
            HookTo::Command(command) => Way::Command(command.clone()),
            HookTo::Mail(mail) => {
                Way::Mail(Box::new(Mailer::open(mail).map_err(SourceError::Refused)?))
            }
            HookTo::Post(url) => {
                let connection = Connection::parse("alerts", url).map_err(refused)?;
                Way::Post(Box::new(Client::new(connection).map_err(refused)?))
            }
        }))
    }

    /// Delivers one alert at once, to see whether that works.
    ///
    /// # Errors
    /// What came of it, in a sentence.
    pub fn test(&self, alert: &evermill_contract::alert::Alert) -> Result<(), String> {
        let mut pending = super::parcel::Pending::new(std::time::Duration::ZERO);
        pending.add(alert.clone(), Receipt::new(|| {}), Instant::now());
        let parcel = pending.all().expect("it was just added");
        self.send(&parcel).map_err(|failed| failed.why().to_owned())
    }

    pub(super) fn send(&self, parcel: &Parcel<'_>) -> Result<(), Failed> {
        let body = || serde_json::to_vec(parcel).expect("alerts have string keys only");
        match &self.0 {
            Way::Post(client) => post(client, body(), parcel.key()),
            Way::Mail(mailer) => mailer.send(parcel),
            Way::Command(command) => run(command, &body(), &parcel.key()),
        }
    }
}

fn post(client: &Client, body: Vec<u8>, key: String) -> Result<(), Failed> {
    let mut request = Request::new(Method::POST, Target::Below(String::new()));
    request.headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("idempotency-key".to_owned(), key),
    ];
    request.body = Some(body);
    request.timeout = Some(limits::ALERT_TIMEOUT);
    request.bytes_max = limits::ALERT_ANSWER_BYTES_MAX;
    let answer = client.send(&request).map_err(|error| {
        if error.may_pass() {
            Failed::ForNow(error.to_string())
        } else {
            Failed::ForGood(error.to_string())
        }
    })?;
    let said = format!("{} answered with status {}", answer.place, answer.status);
    match answer.status {
        200..=299 => Ok(()),
        408 | 429 | 500.. => Err(Failed::ForNow(said)),
        _ => Err(Failed::ForGood(said)),
    }
}

/// Runs it in a process group of its own, so that what it started ends with it.
fn run(command: &str, body: &[u8], key: &str) -> Result<(), Failed> {
    let not_now = |doing: &str, cause: std::io::Error| {
        Failed::ForNow(format!("`{command}`: {doing}: {cause}"))
    };
    let child = Command::new("sh")
        .args(["-c", command])
        .env("EVERMILL_ALERT_KEY", key)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|cause| not_now("starting it", cause))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let body = body.to_vec();
    // One that does not read would hold us up.
    let writer = std::thread::spawn(move || {
        // It may well do without.
        drop(stdin.write_all(&body));
    });
    let ended = wait(&mut child).map_err(|cause| not_now("waiting for it", cause));
    // Its pipe is gone with it.
    drop(writer.join());
    match ended? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failed::ForNow(format!("`{command}` ended with {status}"))),
        None => {
            let seconds = limits::ALERT_TIMEOUT.as_secs();
            Err(Failed::ForNow(format!(
                "`{command}` was ended: it took longer than {seconds} s"
            )))
        }
    }
}

/// `None`: it took too long, and was ended with all it had started.
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limits::ALERT_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let group = rustix::process::Pid::from_child(child);
            // What has ended meanwhile cannot be ended again.
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(limits::ALERT_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_the_json_and_its_failure_is_said() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("got");
        let command = format!("(echo $EVERMILL_ALERT_KEY; cat) > {}", file.display());
        run(&command, b"{\"text\":\"hello\"}", "1-1.1-1.1").unwrap();
        let got = std::fs::read_to_string(&file).unwrap();
        assert_eq!(got, "1-1.1-1.1\n{\"text\":\"hello\"}");
        let large = vec![b'x'; 300_000];
        let why = run("exit 3", &large, "").unwrap_err();
        assert!(
            matches!(&why, Failed::ForNow(_)) && why.why().contains('3'),
            "{why:?}"
        );
    }

    #[test]
    fn a_url_that_is_none_is_refused_with_its_cure() {
        let Err(error) = Delivery::open(&HookTo::Post("ftp://x".into())) else {
            panic!("opened")
        };
        assert!(error.to_string().contains("http"), "{error}");
    }
}
