//! What a source remembers over restarts: the last observation, committed with the events it caused.

use bytes::Bytes;
use evermill_contract::source::SourceError;
use serde::{Deserialize, Serialize};

/// The shape of a memo that this build writes.
const FORMAT: u32 = 1;

/// The last observation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) format: u32,
    /// Of which question.
    pub(super) question: String,
    /// What the last answer that said something said; `None` before the first.
    pub(super) holds: Option<bool>,
    /// SHA-256 of what was selected, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) selected: Option<String>,
    /// The id of the last item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_item: Option<String>,
}

impl Memory {
    /// Nothing has been seen of this question.
    pub(super) fn new(question: &str) -> Self {
        Self {
            format: FORMAT,
            question: question.to_owned(),
            ..Self::default()
        }
    }

    /// What a memo says of this question: nothing, when it is of another one.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when another build wrote it.
    pub(super) fn read(memo: Option<&[u8]>, question: &str) -> Result<Self, SourceError> {
        let Some(memo) = memo else {
            return Ok(Self::new(question));
        };
        let found: Self = serde_json::from_slice(memo).map_err(|cause| {
            SourceError::Refused(format!(
                "what was remembered of the last observation cannot be read ({cause}); \
                 give the source another name to begin anew"
            ))
        })?;
        if found.format != FORMAT {
            return Err(SourceError::Refused(format!(
                "what was remembered of the last observation has format {}, and this build reads \
                 {FORMAT}; use the newer build again",
                found.format
            )));
        }
        Ok(if found.question == question {
            found
        } else {
            Self::new(question)
        })
    }

    pub(super) fn write(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("a memory is plain JSON")
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_comes_back_and_one_of_another_question_says_nothing() {
        let mut memory = Memory::new("q");
        memory.holds = Some(true);
        memory.last_item = Some("7".to_owned());
        let memo = memory.write();
        assert_eq!(Memory::read(Some(&memo), "q").unwrap(), memory);
        assert_eq!(Memory::read(Some(&memo), "r").unwrap(), Memory::new("r"));
        assert_eq!(Memory::read(None, "q").unwrap(), Memory::new("q"));
    }

    #[test]
    fn a_memo_of_another_shape_is_refused_with_a_cure() {
        for memo in [
            &b"nonsense"[..],
            br#"{"format": 2, "question": "q", "holds": null}"#,
        ] {
            let refused = Memory::read(Some(memo), "q").unwrap_err().to_string();
            assert!(refused.contains("remembered"), "{refused}");
        }
    }
}
