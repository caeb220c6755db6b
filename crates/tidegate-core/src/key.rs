//! The key of a record: the text of one column, or the texts of several as a JSON array; or, by a schema of its own, Avro or JSON.

use std::fmt;

use crate::encode::{NullTokens, Op, ValueFormat, confluent_header};
use crate::json;
use crate::read::{BadRow, Row};
use crate::records::{bad_cell, bad_key};
use crate::schema::{RecordPlan, encode_as};
use crate::{Error, Result};

/// How keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum KeyFormat {
    /// The text of the cell; with several columns, their texts as a JSON array.
    #[default]
    Text,
    /// Avro by the key's schema, in Confluent's wire format where a schema id is known.
    Avro,
    /// A JSON value by the key's schema: with several columns, an object.
    Json,
}

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
    /// They are those that the fields of the key's schema take.
    KeySchema,
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
            Self::KeySchema => "the fields of its schema",
            Self::TimestampType => "the first timestamp of the schema",
            Self::TimestampName => "named like a timestamp",
            Self::NothingFits => "no column is a timestamp",
        })
    }
}

/// The columns of the key, as indices, and how it is written.
#[derive(Debug, Clone)]
pub(crate) struct KeyPlan {
    pub(crate) columns: Vec<usize>,
    pub(crate) reason: KeyReason,
    /// What makes a typed key; `None` for one that is text.
    pub(crate) typed: Option<TypedKey>,
}

/// A key with a schema.
#[derive(Debug, Clone)]
pub(crate) struct TypedKey {
    /// The schema, in Avro's JSON form.
    pub(crate) schema_json: String,
    pub(crate) ops: Vec<Op>,
    /// The cells that the operations take.
    pub(crate) cells: Vec<KeyCell>,
    pub(crate) format: ValueFormat,
    /// Whether JSON holds times as ISO 8601 has them.
    pub(crate) iso_times: bool,
}

/// A cell of a typed key.
#[derive(Debug, Clone)]
pub(crate) struct KeyCell {
    /// The columns it is put together from; mostly one.
    pub(crate) columns: Box<[usize]>,
    /// The texts that stand for null in it, where these are not the general ones.
    pub(crate) own_nulls: Option<NullTokens>,
}

impl KeyPlan {
    /// The first column of the key whose text is not UTF-8.
    #[inline]
    fn fault(&self, row: &Row<'_>) -> Option<usize> {
        if row.is_ascii() {
            return None;
        }
        self.columns
            .iter()
            .copied()
            .find(|column| str::from_utf8(row.field(*column)).is_err())
    }

    /// The text of a row without a [`fault`](Self::fault); `None` when there is no key, or when its cells are all empty or a null token. A single
    /// cell is borrowed as it is, several are put together in `buffer`.
    #[inline]
    fn text<'a>(
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

impl TypedKey {
    /// Whether a record has no key: all its cells are empty or stand for null.
    fn is_null(&self, nulls: &NullTokens, row: &Row<'_>) -> bool {
        self.cells.iter().all(|cell| {
            let nulls = cell.own_nulls.as_ref().unwrap_or(nulls);
            let mut texts = cell.columns.iter().map(|column| row.field(*column));
            texts.all(|text| text.is_empty() || nulls.contain(text))
        })
    }
}

/// Makes the keys of records; its memory is used again for the next one.
#[derive(Debug, Clone)]
pub(crate) struct KeyBuffer {
    /// How many bytes of `bytes` are the header that all Avro keys share.
    header_len: usize,
    bytes: Vec<u8>,
    is_null: bool,
}

impl KeyBuffer {
    /// For the keys of a plan. With a schema id, Avro keys get Confluent's header.
    pub(crate) fn new(plan: &RecordPlan, schema_id: Option<u32>) -> Result<Self> {
        let format = plan.key.typed.as_ref().map(|key| key.format);
        if schema_id.is_some() && format != Some(ValueFormat::Avro) {
            return Err(Error::internal(
                "a schema id was given for keys that are not Avro, which have no place for one",
            ));
        }
        let bytes = schema_id.map_or_else(Vec::new, |id| confluent_header(id).to_vec());
        Ok(Self {
            header_len: bytes.len(),
            bytes,
            is_null: true,
        })
    }

    /// Makes the key of a row, as far as it is not a cell as it stands.
    ///
    /// # Errors
    /// The bad row of a key that is not UTF-8, or of a cell that is no value of the key's type.
    #[inline]
    pub(crate) fn fill(&mut self, plan: &RecordPlan, row: &Row<'_>) -> Result<(), BadRow> {
        match &plan.key.typed {
            Some(key) => self.encode(key, plan, row),
            None => match plan.key.fault(row) {
                None => Ok(()),
                Some(column) => Err(bad_key(plan, row, column)),
            },
        }
    }

    fn encode(&mut self, key: &TypedKey, plan: &RecordPlan, row: &Row<'_>) -> Result<(), BadRow> {
        let nulls = &plan.null_tokens;
        self.is_null = key.is_null(nulls, row);
        if self.is_null {
            return Ok(());
        }
        self.bytes.truncate(self.header_len);
        let writing = (key.format, key.iso_times);
        encode_as(writing, &key.ops, nulls, row, &mut self.bytes).map_err(|error| {
            let mut bad = bad_cell(plan, &key.ops, row, error);
            bad.reason.insert_str(0, "in the key: ");
            bad
        })
    }

    /// The key of the row that the buffer was [filled](Self::fill) with.
    #[inline]
    pub(crate) fn key<'a>(&'a mut self, plan: &RecordPlan, row: &Row<'a>) -> Option<&'a [u8]> {
        match &plan.key.typed {
            Some(_) => (!self.is_null).then_some(&self.bytes),
            None => plan.key.text(&plan.null_tokens, row, &mut self.bytes),
        }
    }
}
