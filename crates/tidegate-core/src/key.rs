//! The key of a record: the text of one column, or the texts of several as a JSON array.

use std::fmt;

use crate::encode::NullTokens;
use crate::json;
use crate::read::Row;

/// Which columns the key is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChoice {
    /// The group-by columns; else the column of the first field with a timestamp type; else the column named timestamp, ts or time, looked for
    /// in that order and in any case; else none.
    #[default]
    Default,
    /// No key.
    None,
    /// These columns.
    Columns(Vec<String>),
}

/// Why the key is made of the columns it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyReason {
    /// They were asked for.
    Asked,
    /// No key was asked for.
    AskedForNone,
    /// They are the group-by columns.
    GroupBy,
    /// It is the column of the schema's first field with a timestamp type.
    TimestampType,
    /// It is named like a timestamp.
    TimestampName,
    /// There is none, for no column looks like a timestamp.
    NothingFits,
}

impl fmt::Display for KeyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "as asked for",
            Self::AskedForNone => "none was asked for",
            Self::GroupBy => "the group-by columns",
            Self::TimestampType => "the first timestamp of the schema",
            Self::TimestampName => "named like a timestamp",
            Self::NothingFits => "no column is a timestamp",
        })
    }
}

/// The columns of the key, as indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPlan {
    pub(crate) columns: Vec<usize>,
    pub(crate) reason: KeyReason,
}

impl KeyPlan {
    /// The first column of the key whose text is not UTF-8.
    #[inline]
    pub(crate) fn fault(&self, row: &Row<'_>) -> Option<usize> {
        if row.is_ascii() {
            return None;
        }
        self.columns
            .iter()
            .copied()
            .find(|column| str::from_utf8(row.field(*column)).is_err())
    }

    /// The key of a row without a [`fault`](Self::fault); `None` when there is none, or when its cells are all empty or a null token. A single cell
    /// is borrowed as it is, several are put together in `buffer`.
    #[inline]
    pub(crate) fn key<'a>(
        &self,
        nulls: &NullTokens,
        row: &Row<'a>,
        buffer: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let stands_for_null = |text: &[u8]| text.is_empty() || nulls.contain(text);
        match self.columns[..] {
            [] => None,
            [column] => Some(row.field(column)).filter(|text| !stands_for_null(text)),
            _ => {
                buffer.clear();
                let mut any = false;
                for &column in &self.columns {
                    let text = row.field(column);
                    any |= !stands_for_null(text);
                    buffer.push(if buffer.is_empty() { b'[' } else { b',' });
                    json::put_string(buffer, text);
                }
                buffer.push(b']');
                any.then_some(buffer)
            }
        }
    }
}
