//! What is wrong with a DAG file, said so that it can be put right.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Code, FORMAT};

/// One fault in a DAG file. A front end reports all it finds, not the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The file, as the user named it.
    pub file: String,
    /// Line from 1; 0 when the fault belongs to no line.
    pub line: u32,
    /// Character of the line, from 1, where the front end knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The kind of fault.
    pub code: Code,
    /// What is wrong, with the field and the value.
    pub message: String,
    /// What to do about it; empty when the message says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        write!(f, ": {} [{}]", self.message, self.code)?;
        if !self.cure.is_empty() {
            write!(f, "; {}", self.cure)?;
        }
        Ok(())
    }
}

/// Why a manifest could not be read. Not the author's fault: a front end wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Another build wrote it.
    #[error(
        "manifest format {found} where this build reads {FORMAT}: \
         the evermill package and the evermill binary must have the same version"
    )]
    Format {
        /// What the manifest says.
        found: u32,
    },
    /// Not the shape of format 1; serde's words name the field, line and column.
    #[error("not a manifest: {0}")]
    Shape(#[from] serde_json::Error),
}
