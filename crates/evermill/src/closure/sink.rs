//! Places outside that take what a DAG makes.

use serde_json::{Value, json};

/// A place that a task of the engine's own gives a value to; see [`crate::Dag::send`].
#[derive(Debug, Clone)]
pub struct Sink {
    pub(super) config: Value,
}

/// A Kafka topic, over the connection `kafka_default`: the effect key is in the header
/// `evermill-effect-key`.
#[must_use]
pub fn to_kafka(topic: &str) -> Sink {
    Sink {
        config: json!({"kind": "kafka", "topic": topic}),
    }
}

/// A queue of Amazon SQS, over the connection `aws_default`: the effect key is in the attribute
/// `evermill-effect-key`, and in a FIFO queue it is the deduplication id.
#[must_use]
pub fn to_sqs(queue: &str) -> Sink {
    Sink {
        config: json!({"kind": "sqs", "queue": queue}),
    }
}

/// A file in a folder, or with `s3://BUCKET/KEY` an object of a bucket, over the connection `aws_default`:
/// written whole or not at all. `{effect_key}` in the path is the effect key, `{/id}` what stands there in the
/// value. A relative path counts from where the program runs.
#[must_use]
pub fn to_file(path: &str) -> Sink {
    let whole = match path.contains("://") {
        true => path.into(),
        false => std::path::absolute(path).unwrap_or_else(|_| path.into()),
    };
    Sink {
        config: json!({"kind": "file", "path": whole}),
    }
}

/// A service over HTTP: a path below the address of the connection `http_default`, or a whole URL.
/// `{/id}` in it is what stands there in the value, `{key}` and `{effect_key}` are the keys. The effect key
/// is in the header `Idempotency-Key`.
#[must_use]
pub fn to_http(endpoint: &str) -> ToHttp {
    ToHttp(Sink {
        config: json!({"kind": "http", "endpoint": endpoint}),
    })
}

impl Sink {
    /// The connection that [`crate::Local::connection`] gives an address to.
    #[must_use]
    pub fn connection(mut self, id: &str) -> Self {
        self.config["connection"] = json!(id);
        self
    }

    /// The key of what is sent: a JSON pointer into the value, such as `/customer/id`, in place of the
    /// event's own key; `none` for none.
    #[must_use]
    pub fn key(mut self, pointer: &str) -> Self {
        self.config["key"] = json!(pointer);
        self
    }
}

/// A service over HTTP.
#[derive(Debug, Clone)]
pub struct ToHttp(Sink);

impl ToHttp {
    /// `POST` (unless said), `PUT`, `PATCH` or `DELETE`, which sends no body.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.with("method", json!(method))
    }

    /// A header beside those of the connection.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0.config["headers"][name] = json!(value);
        self
    }

    /// The statuses that mean that it has arrived; 200 to 299 unless said.
    #[must_use]
    pub fn expect(self, statuses: &[u16]) -> Self {
        self.with("expect", json!(statuses))
    }

    /// As [`Sink::connection`].
    #[must_use]
    pub fn connection(self, id: &str) -> Self {
        self.with("connection", json!(id))
    }

    /// As [`Sink::key`].
    #[must_use]
    pub fn key(self, pointer: &str) -> Self {
        self.with("key", json!(pointer))
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.0.config[name] = value;
        self
    }
}

impl From<ToHttp> for Sink {
    fn from(to: ToHttp) -> Self {
        to.0
    }
}
