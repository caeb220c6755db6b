//! How the texts of cells are written, as far as their types leave that open.

use serde::{Deserialize, Serialize};

use super::written_time::TimeAmbiguity;

/// How the texts of cells are written, as far as their types leave that open, and a field's own attributes do not say it. By default
/// nothing is left open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CellFormat {
    /// Texts that stand for null besides the empty one, for example `NA` or `\N`; none by default.
    pub null_tokens: Vec<String>,
    /// How times are written: one of `iso`, `epoch-seconds`, `epoch-millis`, `epoch-micros`, `epoch-nanos`, or strptime patterns, of which the first that
    /// fits is taken; as ISO 8601 has it by default.
    pub time_formats: Vec<String>,
    /// The IANA name of the time zone of times that say none; UTC by default.
    pub time_zone: Option<String>,
    /// What becomes of times that this zone shows twice or never.
    pub time_ambiguity: TimeAmbiguity,
    /// The words of booleans, each with its opposite; `true` and `false`, `1` and `0` by default.
    pub booleans: Vec<(String, String)>,
}

/// What holds where nothing is said.
pub(crate) static PLAIN_CELLS: CellFormat = CellFormat {
    null_tokens: Vec::new(),
    time_formats: Vec::new(),
    time_zone: None,
    time_ambiguity: TimeAmbiguity::Error,
    booleans: Vec::new(),
};

/// Which texts stand for null, as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NullTokens(Box<[Box<[u8]>]>);

impl NullTokens {
    /// These texts.
    pub(crate) fn new(tokens: &[String]) -> Self {
        let bytes = |token: &String| token.as_bytes().into();
        Self(tokens.iter().map(bytes).collect())
    }

    /// True when the text is one of them.
    #[inline]
    pub(crate) fn contain(&self, text: &[u8]) -> bool {
        self.0.iter().any(|token| **token == *text)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&CellFormat> for NullTokens {
    fn from(cells: &CellFormat) -> Self {
        Self::new(&cells.null_tokens)
    }
}
