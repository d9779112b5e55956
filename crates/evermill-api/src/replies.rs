//! Answers to requests that came with an `Idempotency-Key`, for those who send them again: what was done is
//! not done twice, and the answer is the first one. Kept in memory, for an hour.
//!
//! Triggers and signals are not here: the engine knows their keys durably.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits;
use crate::problem::Problem;
use crate::routes::Response;

/// Who sends, where to, and his key.
pub(crate) type Key = (String, String, String);

/// See the module.
#[derive(Default)]
pub(crate) struct Replies(Mutex<Known>);

#[derive(Default)]
struct Known {
    replies: BTreeMap<Key, Reply>,
    bytes: usize,
}

struct Reply {
    /// Of the body that was sent.
    tag: String,
    /// `None`: it is being done.
    response: Option<Response>,
    at: Instant,
}

impl Reply {
    fn bytes(&self) -> usize {
        self.response
            .as_ref()
            .map_or(0, |response| response.body.len())
    }
}

impl Replies {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that was given before; `None` when it is to be done now, and [`Replies::end`] follows.
    pub(crate) fn begin(&self, key: &Key, tag: String) -> Result<Option<Response>, Problem> {
        let mut known = self.known();
        known.forget();
        let Some(reply) = known.replies.get(key) else {
            let reply = Reply {
                tag,
                response: None,
                at: Instant::now(),
            };
            known.replies.insert(key.clone(), reply);
            return Ok(None);
        };
        if reply.tag != tag {
            let detail = "this key came with another body before; take a new key";
            return Err(Problem::new(
                422,
                "other_request",
                "The key is taken",
                detail,
            ));
        }
        match &reply.response {
            Some(response) => Ok(Some(response.clone())),
            None => {
                let detail = "the first request with this key is still being done";
                Err(Problem::new(409, "under_way", "It is being done", detail))
            }
        }
    }

    /// Remembers what was answered; what may go well the next time is forgotten.
    pub(crate) fn end(&self, key: &Key, response: Option<&Response>) {
        let mut known = self.known();
        let kept = response.filter(|response| response.status < 500 && response.status != 429);
        match kept {
            None => drop(known.replies.remove(key)),
            Some(response) => {
                known.bytes += response.body.len();
                if let Some(reply) = known.replies.get_mut(key) {
                    reply.response = Some(response.clone());
                }
            }
        }
        known.forget();
    }
}

impl Known {
    /// Makes room: what is old goes, and what is oldest when there is too much. What is being done stays.
    fn forget(&mut self) {
        loop {
            let done = self.replies.iter().filter(|(_, reply)| {
                // What has been under way for so long has broken.
                reply.response.is_some() || reply.at.elapsed() >= limits::REPLIES_TIME
            });
            let Some((key, reply)) = done.min_by_key(|(_, reply)| reply.at) else {
                return;
            };
            let old = reply.at.elapsed() >= limits::REPLIES_TIME;
            let much =
                self.replies.len() > limits::REPLIES_MAX || self.bytes > limits::REPLIES_BYTES_MAX;
            if !old && !much {
                return;
            }
            self.bytes -= reply.bytes();
            let key = key.clone();
            self.replies.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ci".to_owned(), "POST /x".to_owned(), name.to_owned())
    }

    fn response(status: u16) -> Response {
        Response {
            status,
            media_type: "application/json",
            body: b"{}".to_vec(),
            etag: None,
            allow: None,
        }
    }

    #[test]
    fn what_was_done_is_not_done_again_and_what_failed_is() {
        let replies = Replies::default();
        let tag = || "a".to_owned();
        assert_eq!(replies.begin(&key("1"), tag()).unwrap(), None);
        assert_eq!(replies.begin(&key("1"), tag()).unwrap_err().status, 409);
        replies.end(&key("1"), Some(&response(200)));
        assert_eq!(
            replies.begin(&key("1"), tag()).unwrap(),
            Some(response(200))
        );
        assert_eq!(
            replies.begin(&key("1"), "b".to_owned()).unwrap_err().status,
            422
        );
        assert_eq!(replies.begin(&key("2"), tag()).unwrap(), None);
        replies.end(&key("2"), Some(&response(503)));
        assert_eq!(
            replies.begin(&key("2"), tag()).unwrap(),
            None,
            "it is tried again"
        );
        replies.end(&key("2"), None);
    }

    #[test]
    fn there_are_never_more_than_there_may_be() {
        let replies = Replies::default();
        for number in 0..=limits::REPLIES_MAX {
            let key = key(&number.to_string());
            replies.begin(&key, String::new()).unwrap();
            replies.end(&key, Some(&response(200)));
        }
        assert_eq!(replies.known().replies.len(), limits::REPLIES_MAX);
        assert_eq!(
            replies.begin(&key("0"), String::new()).unwrap(),
            None,
            "the oldest went"
        );
    }
}
