//! Files and functions stay small enough to be read in one go.

use super::source::{File, Tree, without_prose};
use crate::workspace::Fault;

const FILE_LINES_MAX: usize = 1000;

/// Longest function of the core, from its signature's line to its closing brace.
const CORE_FUNCTION_LINES_MAX: usize = 70;

/// Functions of the core that are longer for now: path, name, lines. A row may only shrink or go.
const LONGER_FOR_NOW: [(&str, &str, usize); 0] = [];

pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.with_ending("rs").chain(tree.with_ending("py")) {
        faults.extend(file_fault(file));
    }
    for file in tree.with_ending("rs").filter(|file| is_core_source(file)) {
        faults.extend(function_faults(file));
    }
    faults
}

fn is_core_source(file: &File) -> bool {
    file.path.starts_with("crates/evermill-core/src/")
}

fn file_fault(file: &File) -> Option<Fault> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        format!(
            "{}: {lines} lines, at most {FILE_LINES_MAX}: split it by subject",
            file.path
        )
    })
}

fn function_faults(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for function in functions(&without_prose(&file.text)) {
        let Function { name, line, lines } = &function;
        let tolerated = LONGER_FOR_NOW
            .iter()
            .find(|(path, known, _)| *path == file.path && known == name)
            .map_or(CORE_FUNCTION_LINES_MAX, |(_, _, lines)| *lines);
        if *lines > tolerated {
            faults.push(format!(
                "{}:{line}: fn {name} has {lines} lines, at most {tolerated}: keep the decisions here, \
                 move the leaves out",
                file.path
            ));
        } else if tolerated > CORE_FUNCTION_LINES_MAX && *lines < tolerated {
            faults.push(format!(
                "{}:{line}: fn {name} shrank to {lines} lines: lower its row in xtask/src/tidy/sizes.rs",
                file.path
            ));
        }
    }
    faults
}

struct Function {
    name: String,
    /// 1-based line of the `fn` keyword.
    line: usize,
    lines: usize,
}

/// The functions with a body in `code`, which must be free of comments and literals.
fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let body = body_of(&bytes[at..]).map(|(open, close)| (at + open, at + close));
        if let (false, Some((_, close))) = (name.is_empty(), body) {
            found.push(Function {
                name,
                line: line_of(bytes, at),
                lines: line_of(bytes, close) - line_of(bytes, at) + 1,
            });
        }
    }
    found
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// The offsets of a function's braces, counted from its `fn`; none for a declaration.
fn body_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut brackets = 0_i32;
    let mut braces = 0_i32;
    let mut open = None;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if open.is_none() && brackets == 0 => return None,
            b'{' => {
                open = open.or(Some(at));
                braces += 1;
            }
            b'}' => {
                braces -= 1;
                if braces == 0 {
                    return open.map(|open| (open, at));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_measured_from_signature_to_brace() {
        let code =
            "trait T { fn none(&self); }\nfn some(\n    a: [u8; 2],\n) {\n    if a {\n    }\n}\n";
        let functions = functions(code);
        assert_eq!(functions.len(), 1);
        assert_eq!(functions[0].name, "some");
        assert_eq!((functions[0].line, functions[0].lines), (2, 6));
    }

    #[test]
    fn a_core_function_over_the_limit_is_a_fault() {
        let body = "    x();\n".repeat(CORE_FUNCTION_LINES_MAX);
        let file = File {
            path: "crates/evermill-core/src/long.rs".into(),
            text: format!("fn long() {{\n{body}}}\n"),
        };
        assert_eq!(function_faults(&file).len(), 1);
    }

    #[test]
    fn a_file_over_the_limit_is_a_fault() {
        let file = File {
            path: "python/evermill/long.py".into(),
            text: "x = 1\n".repeat(FILE_LINES_MAX + 1),
        };
        assert!(file_fault(&file).is_some());
    }
}
