//! A schema registry over HTTP (Confluent's API, which others speak too): schemas by the id that a message
//! carries. An id stands for one schema for ever, so what was read once is asked for once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermill_contract::source::Unavailable;
use evermill_http::{Client, Method, Request, Target};
use serde::Deserialize;

use super::decoding::Language;
use crate::limits;

/// What a registry says of an id.
pub(super) enum Entry<L> {
    Schema(Arc<L>),
    /// Not that it is of use here: why.
    Useless(String),
}

impl<L> Clone for Entry<L> {
    fn clone(&self) -> Self {
        match self {
            Self::Schema(schema) => Self::Schema(Arc::clone(schema)),
            Self::Useless(why) => Self::Useless(why.clone()),
        }
    }
}

/// A registry, and what it has said so far.
pub(super) struct Registry<L> {
    client: Client,
    known: Mutex<BTreeMap<u32, Known<L>>>,
    uses: AtomicU64,
}

/// A schema that another refers to.
pub(super) struct Referred {
    /// How the other names it.
    pub(super) name: String,
    pub(super) subject: String,
    version: u32,
    /// As the registry has it.
    pub(super) schema: String,
}

struct Known<L> {
    entry: Entry<L>,
    /// An id that the registry does not know may be registered yet.
    until: Option<Instant>,
    used: u64,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    sort: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    name: String,
    subject: String,
    version: u32,
}

impl<L: Language> Registry<L> {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
            uses: AtomicU64::new(0),
        }
    }

    /// What is known without asking.
    pub(super) fn known(&self, id: u32) -> Option<Entry<L>> {
        let mut known = self.lock();
        let found = known.get_mut(&id)?;
        if found.until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        found.used = self.uses.fetch_add(1, Ordering::Relaxed);
        Some(found.entry.clone())
    }

    /// What is known, or what the registry says.
    ///
    /// # Errors
    /// It did not answer, or answers with a fault of its own.
    pub(super) fn find(&self, id: u32) -> Result<Entry<L>, Unavailable> {
        if let Some(entry) = self.known(id) {
            return Ok(entry);
        }
        let entry = self.ask(id)?;
        let lasts = matches!(entry, Entry::Schema(_));
        let until = (!lasts).then(|| Instant::now() + limits::REGISTRY_ASKED_AGAIN);
        let mut known = self.lock();
        if known.len() >= limits::REGISTRY_SCHEMAS_MAX && !known.contains_key(&id) {
            let oldest = known.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                known.remove(&oldest);
            }
        }
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let entry_known = Known {
            entry: entry.clone(),
            until,
            used,
        };
        known.insert(id, entry_known);
        Ok(entry)
    }

    fn ask(&self, id: u32) -> Result<Entry<L>, Unavailable> {
        let deadline = Instant::now() + limits::REGISTRY_WAIT;
        let Some(answer) = self.get(&format!("schemas/ids/{id}"), deadline)? else {
            return Ok(Entry::Useless(format!(
                "the schema registry {} has no schema {id}",
                self.client.connection().place()
            )));
        };
        // A registry that knows no other sort does not name it.
        let sort = answer.sort.as_deref().unwrap_or("AVRO");
        if sort != L::REGISTERED {
            let wanted = L::REGISTERED;
            return Ok(Entry::Useless(format!(
                "schema {id} is of type {sort}, not {wanted}"
            )));
        }
        let mut references = Vec::new();
        if let Err(why) = self.gather(&answer.references, deadline, &mut references)? {
            return Ok(Entry::Useless(format!("schema {id}: {why}")));
        }
        Ok(match L::read(&answer.schema, &references) {
            Ok(schema) => Entry::Schema(Arc::new(schema)),
            Err(why) => Entry::Useless(format!("schema {id}: {why}")),
        })
    }

    /// Schemas that a schema refers to, those they refer to before them.
    fn gather(
        &self,
        wanted: &[Reference],
        deadline: Instant,
        found: &mut Vec<Referred>,
    ) -> Result<Result<(), String>, Unavailable> {
        for reference in wanted {
            let same = |known: &Referred| {
                (&known.subject, known.version) == (&reference.subject, reference.version)
            };
            if found.iter().any(same) {
                continue;
            }
            if found.len() >= limits::REGISTRY_REFERENCES_MAX {
                return Ok(Err(format!("more than {} references", found.len())));
            }
            let subject: String =
                form_urlencoded::byte_serialize(reference.subject.as_bytes()).collect();
            let path = format!("subjects/{subject}/versions/{}", reference.version);
            let Some(answer) = self.get(&path, deadline)? else {
                return Ok(Err(format!(
                    "its reference to {} version {} leads nowhere",
                    reference.subject, reference.version
                )));
            };
            if let Err(why) = self.gather(&answer.references, deadline, found)? {
                return Ok(Err(why));
            }
            found.push(Referred {
                name: reference.name.clone(),
                subject: reference.subject.clone(),
                version: reference.version,
                schema: answer.schema,
            });
        }
        Ok(Ok(()))
    }

    /// `None`: there is no such thing.
    fn get(&self, path: &str, deadline: Instant) -> Result<Option<Answer>, Unavailable> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new(Method::GET, Target::Below(path.to_owned()));
        let accept = "application/vnd.schemaregistry.v1+json, application/json";
        request.headers = vec![("Accept".to_owned(), accept.to_owned())];
        request.timeout = Some(left.max(Duration::from_millis(1)));
        request.bytes_max = limits::REGISTRY_BODY_BYTES_MAX;
        let away = |why: String| {
            Unavailable(format!(
                "the schema registry does not say what messages hold: {why}; they wait until it does"
            ))
        };
        let response = self
            .client
            .send(&request)
            .map_err(|error| away(error.to_string()))?;
        match response.status {
            200 => serde_json::from_slice(&response.body)
                .map(Some)
                .map_err(|cause| away(format!("{}: {cause}", response.place))),
            404 => Ok(None),
            status => Err(away(format!("{} answered {status}", response.place))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Known<L>>> {
        // Each statement leaves the map whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
