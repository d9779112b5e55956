//! A queue: what people call it, and the URL by which SQS knows it.

use evermill_contract::manifest::is_fifo;
use evermill_contract::source::SourceError;

use super::api;
use crate::aws::{Client, Fault, Kind, Place, Service, Settings};

/// A queue that can be asked.
#[derive(Clone)]
pub(super) struct Queue {
    pub(super) client: Client,
    /// As the DAG file names it.
    named: String,
    /// Its name alone.
    pub(super) name: String,
    account: Option<String>,
    /// Known from the start when it was named by its URL.
    url: Option<String>,
}

impl Queue {
    /// Prepares to ask; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when a setting or the connection is missing or wrong.
    pub(super) fn open(
        named: &str,
        connection: &str,
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SourceError> {
        let settings = Settings::find(connection, find)?;
        let name = named.rsplit(['/', ':']).next().unwrap_or_default();
        let is_url = named.contains("://");
        let (place, account) = match named.split(':').collect::<Vec<_>>()[..] {
            _ if is_url => (Place::of_url(named), None),
            ["arn", _, _, region, account, _] => {
                let place = Place {
                    region: Some(region.to_owned()),
                    endpoint: None,
                };
                (place, Some(account.to_owned()))
            }
            _ => (Place::default(), None),
        };
        Ok(Self {
            client: Client::new(Service::Sqs, settings, place)?,
            named: named.to_owned(),
            name: name.to_owned(),
            account,
            url: is_url.then(|| named.to_owned()),
        })
    }

    /// Whether it keeps the messages of a group in line.
    pub(super) fn is_fifo(&self) -> bool {
        is_fifo(&self.name)
    }

    /// Finds its URL.
    ///
    /// # Errors
    /// [`Fault`]; of one that is not there, with the name that was probably meant.
    pub(super) fn find(&self) -> Result<String, Fault> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        api::url_of(&self.client, &self.name, self.account.as_deref())
            .map_err(|fault| self.explain(fault))
    }

    /// A fault in words that name the queue.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        if fault.kind != Kind::Missing {
            return Fault::new(
                fault.kind,
                format!("queue {:?}: {}", self.named, fault.said),
            );
        }
        // Whether we may ask for the others is another matter.
        let others = api::names(&self.client).unwrap_or_default();
        let others = others.iter().map(String::as_str);
        let others = others.filter(|other| *other != self.name);
        let cure = match crate::near::nearest(&self.name, others) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "create it, or correct its name, the region or the account".to_owned(),
        };
        let place = self.client.place();
        Fault::new(
            Kind::Missing,
            format!("queue {:?} does not exist at {place}; {cure}", self.named),
        )
    }
}
