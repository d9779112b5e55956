//! Reading outcomes.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use serde::Deserialize;

use super::super::frame::{Frame, FrameError};
use super::super::limits::{MEMBERS_MAX, RESULT_BYTES_MAX};
use super::super::{Emit, Outcome, OutcomeRun, StateOp, Success, TaskError, Xcom};

/// `u32 first | u32 count | u64 started | u64 ended | u8 kind | 3 x 0 | i32 map length |
/// u32 result length | u32 detail length`.
const RECORD_BYTES: usize = 40;

#[derive(Deserialize)]
struct Control {
    runs: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SuccessDetail {
    xcoms: BTreeMap<String, String>,
    branch: Option<Vec<String>>,
    proceed: Option<bool>,
    state: Vec<StateOp>,
    says: Vec<Emit>,
}

#[derive(Deserialize)]
struct WaitingDetail {
    until_ms: u64,
}

/// The runs of an outcomes frame. They follow one another; whether they follow what was reported
/// before is for the caller to check.
///
/// # Errors
/// [`FrameError::Content`] if anything in the frame does not add up.
pub fn decode_outcomes(frame: &Frame) -> Result<Vec<OutcomeRun>, FrameError> {
    let malformed = |reason: String| FrameError::Content {
        kind: frame.kind,
        reason,
    };
    let Control { runs } = super::control(frame)?;
    if runs > MEMBERS_MAX || runs * RECORD_BYTES > frame.raw.len() {
        return Err(malformed(format!("{runs} runs do not fit")));
    }
    let mut records = frame.raw.slice(..runs * RECORD_BYTES);
    let mut rest = frame.raw.slice(runs * RECORD_BYTES..);
    let mut decoded: Vec<OutcomeRun> = Vec::with_capacity(runs);
    for _ in 0..runs {
        let run = decode_run(&mut records, &mut rest).map_err(malformed)?;
        if decoded
            .last()
            .is_some_and(|last| last.first.checked_add(last.count) != Some(run.first))
        {
            return Err(malformed(format!(
                "the run at member {} does not follow",
                run.first
            )));
        }
        decoded.push(run);
    }
    if rest.is_empty() {
        Ok(decoded)
    } else {
        Err(malformed("bytes are left over".into()))
    }
}

fn decode_run(record: &mut Bytes, rest: &mut Bytes) -> Result<OutcomeRun, String> {
    let (first, count) = (record.get_u32_le(), record.get_u32_le());
    let (started_ns, ended_ns) = (record.get_u64_le(), record.get_u64_le());
    let kind = record.get_u32_le();
    let map_len = u32::try_from(record.get_i32_le()).ok();
    let (result_len, detail_len) = (record.get_u32_le() as usize, record.get_u32_le() as usize);
    if result_len > RESULT_BYTES_MAX || result_len + detail_len > rest.len() {
        return Err(format!("the values of member {first} do not fit"));
    }
    let result = rest.split_to(result_len);
    let detail = rest.split_to(detail_len);
    if (result_len > 0 && kind != 1) || (detail_len > 0 && !matches!(kind, 1 | 3 | 5)) {
        return Err(format!("outcome {kind} of member {first} takes no values"));
    }
    let alone = count == 1 || matches!(kind, 0 | 4 | 5);
    if count == 0 || !alone || count as usize > MEMBERS_MAX {
        return Err(format!("{count} members from {first} with outcome {kind}"));
    }
    let outcome = match kind {
        0 => Outcome::Success(None),
        1 => Outcome::Success(Some(Box::new(success(result, map_len, &detail)?))),
        2 => Outcome::Skipped,
        3 => Outcome::Waiting(waiting(&detail)?),
        4 => Outcome::Held,
        5 => Outcome::Failed(Box::new(error(&detail)?)),
        _ => return Err(format!("outcome {kind} of member {first} is not known")),
    };
    Ok(OutcomeRun {
        first,
        count,
        started_ns,
        ended_ns,
        outcome,
    })
}

fn success(result: Bytes, map_len: Option<u32>, detail: &[u8]) -> Result<Success, String> {
    let detail: SuccessDetail = if detail.is_empty() {
        SuccessDetail::default()
    } else {
        serde_json::from_slice(detail).map_err(|error| error.to_string())?
    };
    let xcom = |(key, value): (String, String)| Xcom {
        key,
        value: value.into(),
    };
    Ok(Success {
        result: (!result.is_empty()).then_some(result),
        map_len,
        xcoms: detail.xcoms.into_iter().map(xcom).collect(),
        branch: detail.branch,
        proceed: detail.proceed,
        state_ops: detail.state,
        says: detail.says,
    })
}

fn waiting(detail: &[u8]) -> Result<Option<u64>, String> {
    if detail.is_empty() {
        return Ok(None);
    }
    let detail: WaitingDetail =
        serde_json::from_slice(detail).map_err(|error| error.to_string())?;
    Ok(Some(detail.until_ms))
}

fn error(detail: &[u8]) -> Result<TaskError, String> {
    serde_json::from_slice(detail).map_err(|error| error.to_string())
}
