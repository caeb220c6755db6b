//! How the texts of cells are written, as far as their types leave that open.

use serde::{Deserialize, Serialize};

/// How the texts of cells are written, as far as their types leave that open. By default nothing is left open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CellFormat {
    /// Texts that stand for null besides the empty one, for example `NA` or `\N`; none by default.
    pub null_tokens: Vec<String>,
}

/// What holds where nothing is said.
pub(crate) static PLAIN_CELLS: CellFormat = CellFormat {
    null_tokens: Vec::new(),
};

/// Which texts stand for null besides the empty one, as bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct NullTokens(Box<[Box<[u8]>]>);

impl NullTokens {
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
        let bytes = |token: &String| token.as_bytes().into();
        Self(cells.null_tokens.iter().map(bytes).collect())
    }
}
