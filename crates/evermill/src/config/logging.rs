//! `log_format` and `log_level`: how the engine says what it has to say, and how much of it.

use std::fmt;

use serde::Serialize;

/// What lines on standard error are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Sentences.
    #[default]
    Text,
    /// One object a line, and nothing else.
    Json,
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// An ordinary change, and what tasks print.
    #[default]
    Info,
    /// Something that may need attention.
    Warning,
    /// Something failed.
    Error,
    /// What a task says to be worse than an error.
    Critical,
}

/// How lines look, and the least of them that is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) format: Format,
    pub(crate) level: Level,
}

/// What the flags say.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogArgs {
    /// What lines on standard error are: text, or json for one object a line [default: text]
    #[arg(long, value_name = "text|json")]
    pub(super) log_format: Option<String>,
    /// The least that is said there: debug, info, warning or error [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("want text or json".to_owned()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Level {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warning" => Ok(Self::Warning),
            "error" => Ok(Self::Error),
            _ => Err("want debug, info, warning or error".to_owned()),
        }
    }

    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
