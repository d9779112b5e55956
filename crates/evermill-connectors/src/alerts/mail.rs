//! Mail: one message per delivery, by SMTP.

use lettre::message::header::{ContentDisposition, ContentType};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Message, SmtpTransport, Transport as _};

use super::config::MailTo;
use super::deliver::Failed;
use super::parcel::Parcel;
use crate::limits;

/// A mail server, and who writes to whom.
pub(super) struct Mailer {
    server: SmtpTransport,
    /// For people: nothing secret.
    place: String,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// Makes it ready; nothing is connected yet.
    pub(super) fn open(mail: &MailTo) -> Result<Self, String> {
        // What the library says may quote the password.
        let builder = SmtpTransport::from_url(&mail.server).map_err(|_| {
            "smtp: this is no address of a mail server; want smtps://USER:PASSWORD@HOST, or \
             smtp://HOST:PORT with ?tls=required for STARTTLS"
                .to_owned()
        })?;
        let after = mail.server.split("://").nth(1).unwrap_or_default();
        let host = after.rsplit('@').next().unwrap_or_default();
        let host = host.split(['/', '?']).next().unwrap_or_default();
        let mailbox = |field: &str, text: &str| {
            text.parse::<Mailbox>()
                .map_err(|why| format!("{field} = \"{text}\": {why}; want NAME@HOST"))
        };
        let from = mailbox("from", &mail.from)?;
        let to = mail.to.iter().map(|to| mailbox("to", to));
        Ok(Self {
            server: builder
                .timeout(Some(limits::ALERT_TIMEOUT))
                .hello_name(ClientId::Domain(from.email.domain().to_owned()))
                .build(),
            place: host.to_owned(),
            to: to.collect::<Result<_, _>>()?,
            from,
        })
    }

    pub(super) fn send(&self, parcel: &Parcel<'_>) -> Result<(), Failed> {
        let message = self.message(parcel);
        let message = message.map_err(|why| Failed::ForGood(format!("this is no mail: {why}")))?;
        match self.server.send(&message) {
            Ok(_) => Ok(()),
            Err(error) => {
                let said = format!("{}: {error}", self.place);
                Err(if error.is_permanent() {
                    Failed::ForGood(said)
                } else {
                    Failed::ForNow(said)
                })
            }
        }
    }

    fn message(&self, parcel: &Parcel<'_>) -> Result<Message, lettre::error::Error> {
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(subject(parcel))
            // Who gets the same parcel twice can see that.
            .message_id(Some(format!("<{}@{domain}>", parcel.key())));
        for to in &self.to {
            message = message.to(to.clone());
        }
        let json = serde_json::to_string_pretty(parcel).expect("alerts have string keys only");
        let attached = SinglePart::builder()
            .header(ContentType::parse("application/json").expect("it is one"))
            .header(ContentDisposition::attachment("alerts.json"));
        let parts = MultiPart::mixed().singlepart(SinglePart::plain(parcel.text.clone()));
        message.multipart(parts.singlepart(attached.body(json)))
    }
}

fn subject(parcel: &Parcel<'_>) -> String {
    let Some(first) = parcel.alerts.first() else {
        return "evermill".to_owned();
    };
    let more = match parcel.count() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("[evermill] {} of {}{more}", first.kind, first.dag)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::{self, Receiver};
    use std::time::{Duration, Instant};

    use evermill_contract::alert::{Alert, AlertKind, Receipt};

    use super::super::parcel::Pending;
    use super::*;

    /// A mail server for one connection: what clients say, and each mail as one entry. It answers
    /// `RCPT` with `verdict`.
    fn server(verdict: &'static str) -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (heard, said) = mpsc::sync_channel(1_000);
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut answer = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines();
            let mut say = |text: &str| write!(answer, "{text}\r\n").unwrap();
            say("220 test");
            while let Some(Ok(line)) = lines.next() {
                let word = line.split([' ', ':']).next().unwrap_or_default();
                match word {
                    "EHLO" => say("250-test\r\n250 AUTH PLAIN"),
                    "AUTH" => say("235 welcome"),
                    "RCPT" => say(verdict),
                    "DATA" => {
                        say("354 go on");
                        let mail = lines.by_ref().map_while(Result::ok);
                        let mail: Vec<String> = mail.take_while(|line| line != ".").collect();
                        heard.send(mail.join("\n")).unwrap();
                        say("250 taken");
                    }
                    "QUIT" => {
                        say("221 bye");
                        return;
                    }
                    _ => say("250 well"),
                }
                heard.send(line).unwrap();
            }
        });
        (place, said)
    }

    fn sent(server: &str, alerts: u64) -> Result<(), Failed> {
        let mail = MailTo {
            server: format!("smtp://ops:p%40ss@{server}"),
            from: "evermill@example.org".into(),
            to: vec!["Ops <ops@example.org>".into(), "b@example.org".into()],
        };
        let mailer = Mailer::open(&mail).unwrap();
        let mut pending = Pending::new(Duration::ZERO);
        for number in 1..=alerts {
            let alert = Alert {
                id: format!("7-{number}"),
                kind: AlertKind::DeadlineMissed,
                at_ms: number,
                dag: "orders".into(),
                run: "orders-1".into(),
                source: None,
                lane: None,
                position: Some(number),
                task: None,
                count: 1,
                text: "1 activation missed its deadline: früher".into(),
            };
            pending.add(alert, Receipt::new(|| {}), Instant::now());
        }
        mailer.send(&pending.all().unwrap())
    }

    #[test]
    fn a_mail_arrives_with_its_subject_its_text_and_the_json() {
        let (place, said) = server("250 well");
        sent(&place, 3).unwrap();
        let said: Vec<String> = said.iter().collect();
        let has = |part: &str| {
            let said_so = said.iter().any(|line| line.contains(part));
            assert!(said_so, "{part}: {said:#?}");
        };
        has("EHLO example.org");
        has("AUTH PLAIN");
        has("RCPT TO:<ops@example.org>");
        has("RCPT TO:<b@example.org>");
        has("Subject: [evermill] deadline_missed of orders and 2 more");
        has("Message-ID: <7-1.7-3.3@example.org>");
        has("alerts.json");
        has("application/json");
        has("fr=C3=BCher");
    }

    #[test]
    fn a_mail_that_is_refused_for_good_is_told_from_one_for_now() {
        let (place, _said) = server("550 no such user");
        let refused = sent(&place, 1).unwrap_err();
        assert!(
            matches!(&refused, Failed::ForGood(why) if why.contains("no such user")),
            "{refused:?}"
        );
        let (place, _said) = server("451 later");
        let refused = sent(&place, 1).unwrap_err();
        assert!(matches!(refused, Failed::ForNow(_)), "{refused:?}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let refused = sent(&place, 1).unwrap_err();
        assert!(
            matches!(&refused, Failed::ForNow(why) if why.contains(&place) && !why.contains("p%40ss")),
            "{refused:?}"
        );
    }

    #[test]
    fn what_is_no_server_or_no_address_is_refused_with_its_cure() {
        let open = |server: &str, to: &str| {
            let mail = MailTo {
                server: server.into(),
                from: "a@b".into(),
                to: vec![to.into()],
            };
            Mailer::open(&mail).err().unwrap_or_default()
        };
        assert!(open("mail.example.org", "a@b").contains("smtps://"));
        let wrong = open("smtp://u:secret@h?tls=x", "a@b");
        assert!(
            wrong.contains("smtps://") && !wrong.contains("secret"),
            "{wrong}"
        );
        assert!(open("smtp://h", "nobody").contains("to = \"nobody\""));
    }
}
