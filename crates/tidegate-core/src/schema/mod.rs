//! The plan of a load's records: schema, header and options, resolved once into what is done with each row.
//!
//! Everything that can be known to be wrong before the first row is found here: a field without a column, a type that a cell cannot become, a
//! key column that is not there. Nothing of it is looked at again while rows are encoded.

mod attributes;
mod avro;
mod compile;
mod default;
mod key;
mod kinds;
mod lift;
mod parts;

use crate::Result;
use crate::around::{Around, HeaderChoice, TimestampChoice};
use crate::encode::value::AvroWriter;
use crate::encode::{
    CellError, CellFormat, NullTokens, Op, PLAIN_CELLS, Quick, ValueFormat, encode_row,
};
use crate::json::JsonWriter;
use crate::key::{KeyChoice, KeyFormat, KeyPlan, KeyReason};
use crate::partition::Partitioner;
use crate::read::{Header, Row};

pub use attributes::{
    COLUMN_ATTRIBUTE, FALSE_ATTRIBUTE, FORMAT_ATTRIBUTE, NULL_ATTRIBUTE, TIME_AMBIGUITY_ATTRIBUTE,
    TIME_ZONE_ATTRIBUTE, TRUE_ATTRIBUTE,
};
pub use avro::record_name;
pub(crate) use avro::{AvroSchema, is_duration, time_type};

/// What a plan is compiled from.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// The schema of the value, in Avro's JSON form: a record.
    pub schema: &'a str,
    /// The header of the input.
    pub header: &'a Header,
    /// How its cells are written.
    pub cells: &'a CellFormat,
    /// How the value is written.
    pub format: ValueFormat,
    /// Which columns the key is made of.
    pub key: &'a KeyChoice,
    /// How the key is written.
    pub key_format: KeyFormat,
    /// The schema of a key that is not text, in Avro's JSON form: a record, whose fields are found as those of the value are, or, for a key of one
    /// column, any type that a cell can become. `None`: made of the types that the key's columns have in the value.
    pub key_schema: Option<&'a str>,
    /// Consecutive rows that are equal in these columns make one record; with none, each row makes one.
    pub group_by: &'a [String],
    /// Fields and their columns, where the names differ and neither an alias nor the attribute [`COLUMN_ATTRIBUTE`] says so. A field of a record
    /// inside is named by its path, `address.city`.
    pub map: &'a [(String, String)],
    /// Whether JSON values hold times as ISO 8601 has them, and not as the numbers that Avro would hold.
    pub iso_times: bool,
    /// Headers of every record, in order.
    pub headers: &'a [HeaderChoice],
    /// What the timestamp of a record is.
    pub timestamp: &'a TimestampChoice,
    /// How records are spread over the partitions.
    pub partitioner: Partitioner,
    /// Fields and their texts, the same in every row; they are read as cells are, and go before columns.
    pub set: &'a [(String, String)],
    /// A boolean field of the record that is true in the last record of each input, and false in all others.
    pub mark_last: Option<&'a str>,
    /// Whether a group that comes again is an error.
    pub strict_groups: bool,
    /// Whether a group goes on without its bad rows, and is not rejected with them.
    pub partial_groups: bool,
}

impl<'a> PlanRequest<'a> {
    /// Records of a row each, with Avro values and the default key; everything else can be said with struct update syntax.
    #[must_use]
    pub fn new(schema: &'a str, header: &'a Header) -> Self {
        Self {
            schema,
            header,
            cells: &PLAIN_CELLS,
            format: ValueFormat::Avro,
            key: &KeyChoice::Default,
            key_format: KeyFormat::Text,
            key_schema: None,
            group_by: &[],
            map: &[],
            iso_times: false,
            headers: &[],
            timestamp: &TimestampChoice::Now,
            partitioner: Partitioner::default(),
            set: &[],
            mark_last: None,
            strict_groups: false,
            partial_groups: false,
        }
    }
}

/// Everything that is decided about the records of a load.
#[derive(Debug, Clone)]
pub struct RecordPlan {
    pub(crate) format: ValueFormat,
    pub(crate) schema_json: String,
    pub(crate) avro: AvroSchema,
    pub(crate) header: Header,
    pub(crate) null_tokens: NullTokens,
    pub(crate) iso_times: bool,
    pub(crate) shape: Shape,
    /// The quick way to what the shape makes of a row, where there is one.
    pub(crate) quick: Option<Quick>,
    pub(crate) key: KeyPlan,
    pub(crate) group_columns: Vec<usize>,
    /// Columns outside the group's array that must be equal in all its rows, and what they are taken for.
    pub(crate) shared_columns: Vec<usize>,
    pub(crate) shared_uses: Vec<String>,
    /// What makes the last record of an input, where that is marked.
    pub(crate) last_shape: Option<Shape>,
    pub(crate) strict_groups: bool,
    pub(crate) partial_groups: bool,
    pub(crate) around: Around,
    pub(crate) partitioner: Partitioner,
    /// Per column: the path of the first field that takes it.
    pub(crate) field_columns: Vec<FieldColumn>,
    pub(crate) warnings: Vec<String>,
}

/// A field and the column it is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldColumn {
    /// The array field it stands in, for a field of a group's row.
    pub(crate) array: Option<String>,
    pub(crate) field: String,
    pub(crate) column: usize,
}

/// What the value of a record is put together from.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// One row.
    Row { ops: Vec<Op> },
    /// Several rows: what stands before and behind the array is taken from the first of them.
    Group {
        before: Vec<Op>,
        items: Vec<Op>,
        after: Vec<Op>,
    },
}

impl RecordPlan {
    /// Compiles a plan.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`](crate::ErrorKind::Schema) when the schema is not valid Avro, not of a shape that rows can fill, has a field of a
    /// type that a cell cannot become, or a field with neither a column nor a default;
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) when a column asked for is not in the header.
    pub fn compile(request: &PlanRequest<'_>) -> Result<Self> {
        compile::compile(request)
    }

    /// How values are written.
    #[must_use]
    pub fn format(&self) -> ValueFormat {
        self.format
    }

    /// The schema, as it was given.
    #[must_use]
    pub fn schema_json(&self) -> &str {
        &self.schema_json
    }

    /// The header the plan was compiled for.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The columns of the key, in order; none when records have no key.
    #[must_use]
    pub fn key_columns(&self) -> Vec<&str> {
        self.names(&self.key.columns)
    }

    /// The schema of the key, in Avro's JSON form; `None` for a key that is text.
    #[must_use]
    pub fn key_schema_json(&self) -> Option<&str> {
        Some(&self.key.typed.as_ref()?.schema_json)
    }

    /// How the key is written.
    #[must_use]
    pub fn key_format(&self) -> KeyFormat {
        match self.key.typed.as_ref().map(|key| key.format) {
            None => KeyFormat::Text,
            Some(ValueFormat::Avro) => KeyFormat::Avro,
            Some(ValueFormat::Json) => KeyFormat::Json,
        }
    }

    /// Why the key is made of these columns.
    #[must_use]
    pub fn key_reason(&self) -> KeyReason {
        self.key.reason
    }

    /// The group-by columns; none when each row makes a record of its own.
    #[must_use]
    pub fn group_columns(&self) -> Vec<&str> {
        self.names(&self.group_columns)
    }

    /// How records are spread over the partitions.
    #[must_use]
    pub fn partitioner(&self) -> Partitioner {
        self.partitioner
    }

    /// The column that the timestamps of records are taken from; none where they are the moment of sending.
    #[must_use]
    pub fn timestamp_column(&self) -> Option<&str> {
        let plan = self.around.timestamp.as_ref()?;
        Some(&self.header.names()[plan.column])
    }

    /// True when a record is made of several rows.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        matches!(self.shape, Shape::Group { .. })
    }

    /// What is odd but no error, for people: columns that no field takes.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the last record of each input is marked.
    #[must_use]
    pub fn marks_last(&self) -> bool {
        self.last_shape.is_some()
    }

    /// What makes a record: the last one of its input, or another.
    #[inline]
    pub(crate) fn shape(&self, is_last: bool) -> &Shape {
        match &self.last_shape {
            Some(shape) if is_last => shape,
            _ => &self.shape,
        }
    }

    fn names(&self, columns: &[usize]) -> Vec<&str> {
        columns
            .iter()
            .map(|column| self.header.names()[*column].as_str())
            .collect()
    }

    /// Runs operations over a row, in the plan's format.
    #[inline]
    pub(crate) fn encode(
        &self,
        ops: &[Op],
        row: &Row<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), CellError> {
        let writing = (self.format, self.iso_times);
        encode_as(writing, ops, &self.null_tokens, row, out)
    }
}

/// Runs operations over a row, in a format, of which the second part says whether JSON holds times as ISO 8601 has them.
#[inline]
pub(crate) fn encode_as(
    (format, iso_times): (ValueFormat, bool),
    ops: &[Op],
    nulls: &NullTokens,
    row: &Row<'_>,
    out: &mut Vec<u8>,
) -> Result<(), CellError> {
    match format {
        ValueFormat::Avro => encode_row(ops, nulls, row, &mut AvroWriter(out)),
        ValueFormat::Json => encode_row(ops, nulls, row, &mut JsonWriter { out, iso_times }),
    }
}

#[cfg(test)]
mod tests;
