//! The masker: secret values in any text become `***`, also as URLs, JSON, base64 and hexadecimal digits
//! write them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::utf8_percent_encode;

use crate::address::RESERVED;
use crate::limits::{
    MASKED_BASE64_BYTES_MIN, MASKED_BYTES_MIN, MASKED_LINE_BYTES_MIN, MASKED_VALUES_MAX,
};

const MASK: &[u8] = b"***";

/// Finds values in texts. Without any, it looks at nothing.
#[derive(Debug, Clone, Default)]
pub struct Masker {
    found_by: Option<AhoCorasick>,
}

impl Masker {
    /// A masker of these values. Those shorter than [`MASKED_BYTES_MIN`] are left alone.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = BTreeSet::new();
        for value in values.into_iter().take(MASKED_VALUES_MAX) {
            add_forms(value, &mut forms);
        }
        if forms.is_empty() {
            return Self::default();
        }
        // The longest wins, so that nothing is left of a value that begins with another.
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&forms);
        Self {
            // It refuses more than 2^31 bytes of patterns, which the bounds do not allow.
            found_by: Some(built.expect("few and short enough")),
        }
    }

    /// The text with every value masked; None when there was none in it.
    #[must_use]
    pub fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        let found_by = self.found_by.as_ref()?;
        found_by.find(text)?;
        Some(found_by.replace_all_bytes(text, &vec![MASK; found_by.patterns_len()]))
    }

    /// The same for a string.
    #[must_use]
    pub fn mask_str<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.mask(text.as_bytes()) {
            None => Cow::Borrowed(text),
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
        }
    }
}

/// Everything that a value may look like.
fn add_forms(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let value = value.trim();
    if value.len() < MASKED_BYTES_MIN {
        return;
    }
    add_plain(value, forms);
    // Output comes line by line.
    for line in value.lines().map(str::trim) {
        if line.len() >= MASKED_LINE_BYTES_MIN && line.len() < value.len() {
            add_plain(line, forms);
        }
    }
    let bytes = value.as_bytes();
    for upper in [true, false] {
        let digit = |byte: &u8| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        };
        forms.insert(bytes.iter().map(digit).collect::<String>().into_bytes());
    }
    for before in 0..3 {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let padded = [&vec![0; before][..], bytes].concat();
            let text = engine.encode(&padded).into_bytes();
            // Characters at both ends also depend on what stands next to the value.
            let from = (before * 8).div_ceil(6);
            let to = padded.len() * 8 / 6;
            let sure = &text[from..to];
            if sure.len() >= MASKED_BASE64_BYTES_MIN {
                forms.insert(sure.to_vec());
            }
        }
    }
}

fn add_plain(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    forms.insert(value.as_bytes().to_vec());
    let encoded = utf8_percent_encode(value, RESERVED).to_string();
    forms.insert(encoded.replace("%20", "+").into_bytes());
    forms.insert(lower_hex(&encoded).into_bytes());
    // As less careful programs encode it: only what would end a part.
    forms.insert(encoded.replace("%2F", "/").into_bytes());
    forms.insert(encoded.into_bytes());
    for text in [json(value, false), json(value, true)] {
        // Python writes texts between single quotes.
        forms.insert(text.replace("\\\"", "\"").replace('\'', "\\'").into_bytes());
        forms.insert(text.replace("\\\"", "\"").into_bytes());
        forms.insert(text.into_bytes());
    }
}

/// As JSON has it between the quotes; `ascii` as programs write it that trust nothing else.
fn json(value: &str, ascii: bool) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    let inner = &quoted[1..quoted.len() - 1];
    if !ascii {
        return inner.to_owned();
    }
    let mut text = String::new();
    for character in inner.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// The digits behind each `%` in lower case.
fn lower_hex(encoded: &str) -> String {
    let mut left = 0;
    let lower = |character: char| {
        if character == '%' {
            left = 2;
            return character;
        }
        if left > 0 {
            left -= 1;
            return character.to_ascii_lowercase();
        }
        character
    };
    encoded.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SECRET: &str = "p&ss wörd/\"2'\\x";

    fn masked(values: &[&str], text: &str) -> String {
        Masker::new(values.iter().copied())
            .mask_str(text)
            .into_owned()
    }

    #[test]
    fn without_values_nothing_is_looked_at() {
        assert!(Masker::default().mask(b"anything").is_none());
        assert!(
            Masker::new(["a", "", "four", "   x   "])
                .mask(b"a four x")
                .is_none()
        );
    }

    /// S10.
    #[test]
    fn k08_a_value_is_masked_however_it_is_written() {
        let python = "p&ss wörd/\"2\\'\\\\x";
        let json = serde_json::to_string(SECRET).unwrap();
        let ascii = "p&ss w\\u00f6rd/\\\"2'\\\\x";
        let url = "https://h/?q=p%26ss%20w%C3%B6rd%2F%222%27%5Cx&z=1";
        let lower = "p%26ss%20w%c3%b6rd%2f%222%27%5cx";
        let form = "p%26ss+w%C3%B6rd%2F%222%27%5Cx";
        let lax = "p%26ss%20w%C3%B6rd/%222%27%5Cx";
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            SECRET,
            python,
            &json,
            ascii,
            url,
            lower,
            form,
            lax,
            &hex,
            &hex.to_uppercase(),
        ] {
            let said = masked(&[SECRET], &format!("before {text} behind"));
            assert!(said.contains("***"), "{text}");
            assert!(
                said.starts_with("before ") && said.ends_with(" behind"),
                "{said}"
            );
            for piece in ["ss w", "26ss", "00f6", "2473"] {
                assert!(!said.contains(piece), "{said}");
            }
        }
    }

    /// S10.
    #[test]
    fn k08_base64_of_a_text_around_it_gives_nothing_away() {
        for before in ["", "u:", "us:", "user:"] {
            for behind in ["", "x", "xy", "xyz"] {
                let text = format!("{before}correct-horse-battery{behind}");
                for engine in [&STANDARD, &base64::engine::general_purpose::URL_SAFE] {
                    let encoded = engine.encode(&text);
                    let said = masked(&["correct-horse-battery"], &format!("Basic {encoded}"));
                    assert!(said.contains("***"), "{text}: {said}");
                    // What is left cannot hold more than what stands around it and a character of it.
                    let left = said.len() - "Basic ***".len();
                    assert!(
                        left * 6 / 8 <= before.len() + behind.len() + 6,
                        "{text}: {said}"
                    );
                }
            }
        }
    }

    /// S10.
    #[test]
    fn k08_each_line_of_a_value_of_several_lines_is_masked_by_itself() {
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n";
        let said = masked(&[pem], "x\nAQEFAASCBKcwggSjAgEAAoIB\ny");
        assert_eq!(said, "x\n***\ny");
        assert_eq!(masked(&[pem], pem).matches("***").count(), 1);
    }

    #[test]
    fn of_two_values_the_longer_one_is_masked_whole() {
        assert_eq!(
            masked(&["hunter", "hunter2-and-more"], "hunter2-and-more hunter"),
            "*** ***"
        );
    }

    #[test]
    fn what_is_no_text_is_masked_too() {
        let masker = Masker::new(["tulips"]);
        assert_eq!(
            masker.mask(b"\xff\xfetulips\xff").unwrap(),
            b"\xff\xfe***\xff"
        );
    }
}
