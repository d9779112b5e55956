//! The same question inside an activation: asked once for each attempt, without a memory.

use bytes::Bytes;
use evermill_contract::manifest::HttpSource as HttpConfig;
use evermill_contract::sensor::{Found as Said, Place};
use evermill_contract::source::SourceError;
use evermill_http::Response;

use super::ask;
use super::config::Question;
use super::judge::{Verdict, judge};
use crate::Environment;

/// A place that a sensor asks.
pub struct HttpPlace(Question);

impl HttpPlace {
    /// Prepares to ask; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub fn open(config: &HttpConfig, environment: &Environment<'_>) -> Result<Self, SourceError> {
        Question::new(config, environment).map(Self)
    }

    fn heard(&self, response: Response) -> Said {
        let select = self.0.select.clone();
        let verdict = judge(&self.0.check, &response, select.is_some());
        match verdict {
            Verdict::True(found) if self.0.check.function.is_some() => Said::Judge {
                function: ask::RESPONSE_CHECK,
                about: Box::new(ask::about(&response)),
                then: Box::new(move |reply| {
                    let verdict = ask::verdict(reply, found, &response.place);
                    said(verdict, select.as_deref())
                }),
            },
            verdict => said(verdict, select.as_deref()),
        }
    }
}

impl Place for HttpPlace {
    fn ask(&self) -> Said {
        match self.0.client.send(&self.0.request(None)) {
            Ok(response) => self.heard(response),
            Err(error) => Said::Unknown(error.to_string()),
        }
    }

    fn cancel(&self) {
        self.0.client.cancel();
    }
}

/// What an answer means to whoever waits; with `select` there has to be something.
fn said(verdict: Verdict, select: Option<&str>) -> Said {
    let found = match verdict {
        Verdict::Unknown(why) => return Said::Unknown(why),
        Verdict::False => return Said::NotYet,
        Verdict::True(found) => found,
    };
    let pointed = select.map(|pointer| found.document.as_ref()?.pointer(pointer).cloned());
    match (found.chosen, pointed) {
        (Some(chosen), _) => Said::There(Some(Bytes::from(chosen.to_string()))),
        (None, Some(Some(value))) => Said::There(Some(Bytes::from(value.to_string()))),
        (None, Some(None)) => Said::NotYet,
        (None, None) => Said::There(None),
    }
}
