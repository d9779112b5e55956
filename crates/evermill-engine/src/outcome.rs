//! What workers report, in the core's words.

use bytes::{BufMut, Bytes};
use evermill_contract::worker::{self, Death, TaskErrorKind};
use evermill_core::command::{Outcome, OutcomeRun, StateOp, Success};
use evermill_core::dag::{Dag, Node};
use evermill_core::limits::ERROR_BYTES_MAX;

use crate::limits;
use crate::manifest::Outline;

/// Translates runs of outcomes of one task. Members that were held back are left out: they count
/// as not started.
pub(crate) fn runs(
    reported: Vec<worker::OutcomeRun>,
    dag: &Dag,
    outline: &Outline,
    task: u16,
) -> Vec<OutcomeRun> {
    let translate = |run: worker::OutcomeRun| {
        Some(OutcomeRun {
            first: run.first,
            count: run.count,
            outcome: outcome(run.outcome, dag, outline, task)?,
        })
    };
    reported.into_iter().filter_map(translate).collect()
}

fn outcome(reported: worker::Outcome, dag: &Dag, outline: &Outline, task: u16) -> Option<Outcome> {
    Some(match reported {
        worker::Outcome::Success(None) => Outcome::Success,
        worker::Outcome::Success(Some(brought)) => match success(*brought, dag, outline, task) {
            Ok(success) => Outcome::SuccessWith(Box::new(success)),
            Err(refusal) => failed(false, None, &refusal),
        },
        worker::Outcome::Skipped => Outcome::Skipped,
        worker::Outcome::Held => return None,
        worker::Outcome::Waiting(until) => Outcome::Waiting { until },
        worker::Outcome::Failed(error) => {
            failed(error.retryable, error.retry_after_ms, &text_of(&error))
        }
    })
}

fn failed(retryable: bool, after_ms: Option<u64>, text: &str) -> Outcome {
    Outcome::Failed {
        retryable,
        after_ms: after_ms.unwrap_or(0),
        error: error_bytes(text),
    }
}

/// An error's text, cut where the core would cut it, but between characters.
pub(crate) fn error_bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(cut(text, ERROR_BYTES_MAX).as_bytes())
}

/// What of a text is no longer than so many bytes, cut between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// First what happened, then where.
pub(crate) fn text_of(error: &worker::TaskError) -> String {
    let kind = match error.kind {
        TaskErrorKind::Timeout => "timed out: ",
        TaskErrorKind::Load => "cannot be loaded: ",
        TaskErrorKind::Exited => "exited: ",
        TaskErrorKind::Raised | TaskErrorKind::Unserialisable | TaskErrorKind::TooLarge => "",
    };
    let (class, message) = (&error.class, &error.message);
    let colon = if class.is_empty() || message.is_empty() {
        ""
    } else {
        ": "
    };
    format!("{kind}{class}{colon}{message}\n{}", error.traceback)
        .trim_end()
        .to_owned()
}

fn success(
    brought: worker::Success,
    dag: &Dag,
    outline: &Outline,
    task: u16,
) -> Result<Success, String> {
    let chosen = brought
        .branch
        .map(|ids| choose(&ids, dag, outline, task))
        .transpose()?;
    let mut state = Vec::with_capacity(brought.state_ops.len());
    for op in brought.state_ops {
        state_op(op, &mut state)?;
    }
    Ok(Success {
        result: pack_result(brought.result, &brought.xcoms),
        chosen,
        proceed: brought.proceed,
        map_length: brought.map_len,
        state,
        failed_items: Vec::new(),
        says: said(brought.says)?,
    })
}

/// What a task says to other DAGs, as the core carries it.
fn said(says: Vec<worker::Emit>) -> Result<Vec<Bytes>, String> {
    let bytes: usize = says.iter().map(|one| one.value.len()).sum();
    if says.len() > limits::EMITS_PER_ATTEMPT || bytes > limits::EMIT_BYTES_PER_ATTEMPT {
        return Err(format!(
            "it emits {} messages of {bytes} bytes in all; one attempt may emit {} of {} bytes",
            says.len(),
            limits::EMITS_PER_ATTEMPT,
            limits::EMIT_BYTES_PER_ATTEMPT
        ));
    }
    let one = |emit: worker::Emit| Said {
        topic: emit.topic,
        key: emit.key.map(Bytes::from),
        value: Bytes::from(emit.value),
    };
    Ok(says.into_iter().map(|emit| one(emit).write()).collect())
}

/// A message to a topic, on its way through the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) topic: String,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Bytes,
}

impl Said {
    fn write(&self) -> Bytes {
        let mut out = Vec::new();
        push(&mut out, self.topic.as_bytes());
        match &self.key {
            None => out.put_u32_le(u32::MAX),
            Some(key) => push(&mut out, key),
        }
        push(&mut out, &self.value);
        Bytes::from(out)
    }

    pub(crate) fn read(bytes: &Bytes) -> Option<Self> {
        let mut fields = Fields(bytes.clone());
        let topic = fields.next()??;
        let key = fields.next()?;
        let value = fields.next()??;
        let topic = String::from_utf8(topic.to_vec()).ok()?;
        Some(Self { topic, key, value })
    }
}

fn choose(ids: &[String], dag: &Dag, outline: &Outline, task: u16) -> Result<Vec<u16>, String> {
    let index = |id: &String| {
        let below = |&found: &u16| {
            dag.spec.tasks[usize::from(found)]
                .upstream
                .contains(&Node::Task(task))
        };
        outline.task(id).filter(below).ok_or_else(|| {
            let branch = &outline.tasks[usize::from(task)].id;
            format!("'{branch}' chose '{id}', which is not a task right after it")
        })
    };
    ids.iter().map(index).collect()
}

fn state_op(op: worker::StateOp, out: &mut Vec<StateOp>) -> Result<(), String> {
    let name_of = |name: String| Bytes::from(name.into_bytes());
    let whole = |name: &str, number: &serde_json::Number| {
        let refusal = || format!("ctx.state '{name}': {number} is not a whole number of 64 bits");
        number.as_i64().ok_or_else(refusal)
    };
    match op {
        worker::StateOp::Put { name, value } => {
            out.push(StateOp::Set(name_of(name), json_bytes(&value)));
        }
        worker::StateOp::Delete { name } => out.push(StateOp::Delete(name_of(name))),
        worker::StateOp::Incr { name, by } => {
            let by = whole(&name, &by)?;
            out.push(StateOp::Incr(name_of(name), by));
        }
        worker::StateOp::Max { name, value } => {
            let value = whole(&name, &value)?;
            out.push(StateOp::Max(name_of(name), value));
        }
        worker::StateOp::SetAdd { name, values } => {
            let name = name_of(name);
            let add = |value| StateOp::SetAdd(name.clone(), json_bytes(value));
            out.extend(values.iter().map(add));
        }
    }
    Ok(())
}

fn json_bytes(value: &serde_json::Value) -> Bytes {
    Bytes::from(value.to_string().into_bytes())
}

/// A task's result and further named values, as the core keeps them: the JSON of the result as it
/// is, or, when there are named values, a zero byte (no JSON begins with one) and fields: length
/// (`u32`, little endian) and bytes of the result, then of each name and value. Without a result
/// its length is `u32::MAX`. Durable.
fn pack_result(result: Option<Bytes>, named: &[worker::Xcom]) -> Option<Bytes> {
    if named.is_empty() {
        return result;
    }
    let mut out = vec![0];
    match result {
        None => out.put_u32_le(u32::MAX),
        Some(result) => push(&mut out, &result),
    }
    for xcom in named {
        push(&mut out, xcom.key.as_bytes());
        push(&mut out, &xcom.value);
    }
    Some(Bytes::from(out))
}

fn push(out: &mut Vec<u8>, field: &[u8]) {
    out.put_u32_le(u32::try_from(field.len()).expect("a frame is smaller than 4 GiB"));
    out.extend_from_slice(field);
}

/// The name under which a returned value is asked for.
const RETURN_VALUE: &str = "return_value";

/// One named value of a kept result; a slice of it.
pub(crate) fn named_value(kept: &Bytes, name: &str) -> Option<Bytes> {
    if kept.first() != Some(&0) {
        return (name == RETURN_VALUE).then(|| kept.clone());
    }
    let mut fields = Fields(kept.slice(1..));
    let result = fields.next()?;
    if name == RETURN_VALUE {
        return result;
    }
    while let (Some(Some(key)), Some(Some(value))) = (fields.next(), fields.next()) {
        if key == name.as_bytes() {
            return Some(value);
        }
    }
    None
}

/// What a callable returned.
pub(crate) fn returned(kept: &Bytes) -> Option<Bytes> {
    named_value(kept, RETURN_VALUE)
}

/// Fields of a packed result; `Some(None)` is an absent one.
struct Fields(Bytes);

impl Iterator for Fields {
    type Item = Option<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*head);
        drop(self.0.split_to(4));
        if len == u32::MAX {
            return Some(None);
        }
        let len = (len as usize).min(self.0.len());
        Some(Some(self.0.split_to(len)))
    }
}

/// Why a worker died, in a sentence for whoever looks at the parked activation.
pub(crate) fn death(cause: &Death) -> String {
    match cause {
        Death::Exited(status) => format!("the worker process ended by itself with status {status}"),
        Death::Signalled(9) => {
            "the worker process was killed by signal 9, often for want of memory".to_owned()
        }
        Death::Signalled(signal) => format!("the worker process was killed by signal {signal}"),
        Death::Timeout => "the worker process was killed because the task ran too long".to_owned(),
        Death::Killed => "the worker process was ended by the engine".to_owned(),
        Death::Protocol(what) => format!("the worker process broke the protocol: {what}"),
        Death::ServerLost => "the fork server died, and its workers with it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evermill_contract::worker::Xcom;

    #[test]
    fn results_and_named_values_come_back() {
        let plain = pack_result(Some(Bytes::from_static(b"[1]")), &[]).unwrap();
        assert_eq!(named_value(&plain, "return_value").unwrap(), "[1]");
        assert_eq!(named_value(&plain, "other"), None);
        let xcoms = [("a", "1"), ("b", "{}")].map(|(key, value)| Xcom {
            key: key.to_owned(),
            value: Bytes::from_static(value.as_bytes()),
        });
        let both = pack_result(Some(Bytes::from_static(b"7")), &xcoms).unwrap();
        assert_eq!(returned(&both).unwrap(), "7");
        assert_eq!(named_value(&both, "b").unwrap(), "{}");
        assert_eq!(named_value(&both, "c"), None);
        let named_only = pack_result(None, &xcoms).unwrap();
        assert_eq!(returned(&named_only), None);
        assert_eq!(named_value(&named_only, "a").unwrap(), "1");
        assert_eq!(pack_result(None, &[]), None);
    }

    #[test]
    fn what_is_said_comes_back_and_too_much_of_it_is_refused() {
        let emit = |topic: &str, key: Option<&str>, value: &str| worker::Emit {
            topic: topic.to_owned(),
            value: value.to_owned(),
            key: key.map(str::to_owned),
        };
        let both = said(vec![emit("a", None, "1"), emit("b", Some(""), "{}")]).unwrap();
        let read: Vec<Said> = both.iter().map(|one| Said::read(one).unwrap()).collect();
        assert_eq!((read[0].topic.as_str(), &read[0].key), ("a", &None));
        assert_eq!(
            (read[1].key.as_deref(), &read[1].value[..]),
            (Some(&b""[..]), &b"{}"[..])
        );
        let many = vec![emit("a", None, "1"); limits::EMITS_PER_ATTEMPT + 1];
        assert!(said(many).unwrap_err().contains("may emit"));
        let long = "x".repeat(limits::EMIT_BYTES_PER_ATTEMPT + 1);
        assert!(said(vec![emit("a", None, &long)]).is_err());
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let text = "ü".repeat(ERROR_BYTES_MAX);
        let cut = error_bytes(&text);
        assert!(cut.len() <= ERROR_BYTES_MAX);
        assert!(std::str::from_utf8(&cut).is_ok());
    }
}
