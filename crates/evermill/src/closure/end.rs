//! From what a closure returned to what the engine is told.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use bytes::Bytes;
use evermill_contract::worker::{Outcome, StateOp, Success, TaskError, TaskErrorKind, limits};
use serde::Serialize;
use serde_json::Value;

use super::Failure;
use super::failure::Kind;

/// The end of a task that returns a value.
pub(super) fn called<R: Serialize>(returned: Result<R, Failure>, state: Vec<StateOp>) -> Outcome {
    let value = match returned.map(|value| serde_json::to_value(value)) {
        Ok(Ok(value)) => value,
        Ok(Err(why)) => {
            let why = format!("the returned value is no JSON: {why}");
            return failed(Failure::for_good(why));
        }
        Err(failure) => return failed(failure),
    };
    let result = match value {
        Value::Null if state.is_empty() => return Outcome::Success(None),
        Value::Null => Ok(Success::default()),
        value => result(&value),
    };
    match result {
        Ok(success) => succeeded(success, state),
        Err(bytes) => failed(Failure::for_good(format!(
            "the returned value takes {bytes} bytes as JSON and at most {} are kept",
            limits::RESULT_BYTES_MAX
        ))),
    }
}

/// The end of a task that says who goes on.
pub(super) fn chose(chosen: Result<Vec<String>, Failure>, state: Vec<StateOp>) -> Outcome {
    let branch = |branch| Success {
        branch: Some(branch),
        ..Success::default()
    };
    match chosen {
        Ok(chosen) => succeeded(branch(chosen), state),
        Err(failure) => failed(failure),
    }
}

/// The end of a task that says whether anything goes on.
pub(super) fn judged(goes_on: Result<bool, Failure>, state: Vec<StateOp>) -> Outcome {
    let proceed = |proceed| Success {
        proceed: Some(proceed),
        ..Success::default()
    };
    match goes_on {
        Ok(goes_on) => succeeded(proceed(goes_on), state),
        Err(failure) => failed(failure),
    }
}

fn succeeded(success: Success, state_ops: Vec<StateOp>) -> Outcome {
    Outcome::Success(Some(Box::new(Success {
        state_ops,
        ..success
    })))
}

fn failed(failure: Failure) -> Outcome {
    if failure.kind == Kind::Skip {
        return Outcome::Skipped;
    }
    Outcome::Failed(Box::new(TaskError {
        kind: TaskErrorKind::Raised,
        class: String::new(),
        retryable: failure.kind != Kind::ForGood,
        retry_after_ms: None,
        message: failure.message,
        traceback: String::new(),
    }))
}

fn result(value: &Value) -> Result<Success, usize> {
    let json = value.to_string();
    if json.len() > limits::RESULT_BYTES_MAX {
        return Err(json.len());
    }
    let length = match value {
        Value::Array(items) => Some(items.len()),
        Value::Object(pairs) => Some(pairs.len()),
        _ => None,
    };
    Ok(Success {
        result: Some(Bytes::from(json)),
        map_len: length.and_then(|length| u32::try_from(length).ok()),
        ..Success::default()
    })
}

/// Runs a future on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    // Most closures never wait: they need no waker of their own.
    if let Poll::Ready(value) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return value;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
