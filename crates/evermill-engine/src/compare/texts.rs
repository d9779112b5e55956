//! What is different between two files, line by line.

use similar::{Algorithm, ChangeTag, TextDiff};

use super::Content;
use crate::limits;

/// Lines around a change that are told with it.
const CONTEXT_LINES: usize = 3;

/// See [`compare`].
#[derive(Default)]
pub(super) struct Compared {
    /// That came in, and that are gone.
    pub(super) lines: Option<(u64, u64)>,
    pub(super) text: Option<String>,
    pub(super) note: Option<String>,
}

/// Compares what two versions have under a path; `None` for one that has no such file. `room` is for all
/// texts together, in bytes.
pub(super) fn compare(
    before: Option<Option<&Content>>,
    after: Option<Option<&Content>>,
    mask: &dyn Fn(&str) -> String,
    room: &mut usize,
) -> Compared {
    let (before, after) = match (text(before), text(after)) {
        (Ok(before), Ok(after)) => (mask(before), mask(after)),
        (Err(why), _) | (_, Err(why)) => {
            return Compared {
                note: Some(why),
                ..Compared::default()
            };
        }
    };
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .timeout(limits::DIFF_TIME)
        .diff_lines(&before, &after);
    let count = |tag| {
        diff.iter_all_changes()
            .filter(|one| one.tag() == tag)
            .count() as u64
    };
    let lines = Some((count(ChangeTag::Insert), count(ChangeTag::Delete)));
    let mut text = diff
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .to_string();
    let mut note = None;
    if text.is_empty() {
        note = Some("only what is masked is different".to_owned());
    }
    if text.len() > *room {
        let line = text.as_bytes()[..*room]
            .iter()
            .rposition(|byte| *byte == b'\n');
        let end = line.map_or(0, |line| line + 1);
        text.truncate(end);
        note = Some("there is more: it is too long to be told here".to_owned());
    }
    *room -= text.len();
    Compared {
        lines,
        text: (!text.is_empty()).then_some(text),
        note,
    }
}

fn text(content: Option<Option<&Content>>) -> Result<&str, String> {
    match content {
        None => Ok(""),
        Some(Some(Content::Bytes(bytes))) => {
            std::str::from_utf8(bytes).map_err(|_| "it is not a text".to_owned())
        }
        Some(Some(Content::TooLong)) => Err(format!(
            "it is too long to be compared here: files of {} KiB and less are",
            limits::DIFF_FILE_BYTES / 1024
        )),
        Some(Some(Content::Gone) | None) => Err("its content is not kept any more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn compared(before: Option<&'static [u8]>, after: Option<&'static [u8]>) -> Compared {
        let content = |bytes: &'static [u8]| Content::Bytes(Bytes::from_static(bytes));
        let (before, after) = (before.map(content), after.map(content));
        let mask = |text: &str| text.replace("tulips", "***");
        let mut room = 200;
        compare(
            before.as_ref().map(Some),
            after.as_ref().map(Some),
            &mask,
            &mut room,
        )
    }

    #[test]
    fn files_are_compared_line_by_line() {
        let told = compared(Some(b"a\nb\nc\n"), Some(b"a\nB\nc\nd\n"));
        assert_eq!(told.lines, Some((2, 1)));
        let text = told.text.unwrap();
        assert!(
            text.contains("@@") && text.ends_with(" a\n-b\n+B\n c\n+d\n"),
            "{text}"
        );
        assert_eq!(compared(None, Some(b"a\n")).lines, Some((1, 0)));
        assert_eq!(compared(Some(b"a\n"), None).lines, Some((0, 1)));
    }

    /// S10, K08: what is secret, or may be, is in no comparison.
    #[test]
    fn k08_a_secret_that_stands_in_a_file_is_not_told() {
        let told = compared(Some(b"x = 'tulips'\n"), Some(b"y = 'tulips'\n"));
        assert!(!told.text.unwrap().contains("tulips"));
        let told = compared(Some(b"x = '***'\n"), Some(b"x = 'tulips'\n"));
        assert_eq!(told.text, None);
        assert!(told.note.unwrap().contains("masked"));
    }

    #[test]
    fn what_cannot_be_told_says_why() {
        assert!(compared(None, Some(b"\xff")).note.unwrap().contains("text"));
        let long: &'static [u8] = Box::leak("line\n".repeat(100).into_bytes().into_boxed_slice());
        let told = compared(None, Some(long));
        assert!(told.note.unwrap().contains("more"));
        assert!(told.text.unwrap().ends_with("+line\n"));
        let mut room = 10;
        let gone = compare(
            None,
            Some(Some(&Content::Gone)),
            &|text| text.to_owned(),
            &mut room,
        );
        assert!(gone.note.unwrap().contains("not kept"));
    }
}
