//! What a source remembers over restarts: the last observation, committed with the events it caused.

use bytes::Bytes;
use evermill_contract::source::SourceError;
use serde::{Deserialize, Serialize};

/// The shape of a memo that this build writes.
const FORMAT: u32 = 1;

/// The last observation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) format: u32,
    /// Of which question.
    pub(crate) question: String,
    /// What the last answer that said something said; `None` before the first.
    pub(crate) holds: Option<bool>,
    /// SHA-256 of what was selected, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selected: Option<String>,
    /// The id of the last item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_item: Option<String>,
}

impl Memory {
    /// Nothing has been seen of this question.
    pub(crate) fn new(question: &str) -> Self {
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
    pub(crate) fn read(memo: Option<&[u8]>, question: &str) -> Result<Self, SourceError> {
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

    /// Whether an answer that is true is an edge: it was not so before, or what is selected has changed.
    pub(crate) fn fires(&self, selected: Option<&str>, fire_on_start: bool) -> bool {
        match self.holds {
            None => fire_on_start,
            Some(false) => true,
            Some(true) => self.selected.as_deref() != selected,
        }
    }

    pub(crate) fn write(&self) -> Bytes {
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
