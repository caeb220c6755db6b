//! Inference: a schema for a file that has none, from all of its rows, with the reason for each column's type.
//!
//! A column gets the narrowest type that holds every one of its cells without losing anything, else string; it is nullable when a cell is empty, or
//! holds one of the usual texts for null. Doubt goes to string, because a code that became a number is a wrong value and a number that
//! stayed a string is not: leading zeros, a plus sign, days of which nobody can tell the month. Cells are tested with the very functions that encode
//! them, so a file published with its own inferred schema has no row rejected for its values.

use std::io::Read;

use serde_json::{Map, Value, json};

use crate::encode::{CellFormat, ValueFormat};
use crate::read::{CsvFormat, Header, Position, ReadRow, RowReader, Source};
use crate::schema::COLUMN_ATTRIBUTE;
use crate::{Error, Result};
use candidate::Tests;
use column::Column;

pub use column::USUAL_NULL_TOKENS;

mod candidate;
mod column;
mod day;

/// What inference is asked.
#[derive(Debug, Clone, Copy)]
pub struct InferOptions<'a> {
    /// The name of the record, usually the topic; made a legal Avro name.
    pub record_name: &'a str,
    /// The group-by columns. With any, the record holds them and then `rows`, an array of records of all columns.
    pub group_by: &'a [String],
    /// How cells are written.
    pub cells: &'a CellFormat,
    /// Whether the usual texts for null ([`USUAL_NULL_TOKENS`]) are looked for, where no others are named.
    pub looks_for_nulls: bool,
    /// Look at so many rows only.
    pub sample: Option<u64>,
    /// How values will be written: JSON holds no NaN and no infinities, so that columns with these become strings.
    pub format: ValueFormat,
    /// Fields that are given a text, as in [`PlanRequest::set`](crate::schema::PlanRequest::set): strings, where no column has the name. In groups they stand
    /// outside the array.
    pub set: &'a [(String, String)],
    /// The field that marks the last record of each input: a boolean, where no column has the name.
    pub mark_last: Option<&'a str>,
}

/// An inferred schema, and why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// The schema in Avro's JSON form.
    pub schema_json: String,
    /// The columns, in the order of the header.
    pub columns: Vec<ColumnReport>,
    /// Fields of the record that no column has, because they are given their values otherwise.
    pub added: Vec<AddedField>,
    /// Rows that were looked at: all good ones.
    pub rows: u64,
    /// Rows that could not be read, and so have no say.
    pub bad_rows: u64,
    /// Cells that are no UTF-8: a row with one will be refused.
    pub not_utf8: u64,
    /// The first of them, and where it stands.
    pub first_not_utf8: Option<String>,
}

/// A field that no column has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AddedField {
    /// Its name.
    pub field: String,
    /// The Avro type of its values.
    pub avro_type: &'static str,
}

/// What became of a column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ColumnReport {
    /// The column's name in the header.
    pub column: String,
    /// The name of its field.
    pub field: String,
    /// The Avro type of its values, by its logical type where it has one.
    pub avro_type: String,
    /// That type, as it stands in the schema.
    pub schema: Value,
    /// What the field says besides: its format, its null tokens.
    pub attributes: Map<String, Value>,
    /// Whether the field also takes null.
    pub nullable: bool,
    /// Why it got this type, for people.
    pub why: String,
}

/// Reads all rows and infers a schema.
///
/// ```
/// use tidegate_core::encode::{CellFormat, ValueFormat};
/// use tidegate_core::infer::{InferOptions, infer};
/// use tidegate_core::read::{CsvFormat, RowReader};
///
/// let input = "zip,cpu\n01067,0.5\n99974,2\n";
/// let reader = RowReader::open(input.as_bytes(), CsvFormat::default())?;
/// let options = InferOptions { record_name: "usage", group_by: &[], cells: &CellFormat::default(),
///     looks_for_nulls: true, sample: None, format: ValueFormat::Avro, set: &[], mark_last: None };
/// let inferred = infer(reader, &options)?;
/// assert_eq!(inferred.columns[0].avro_type, "string");
/// assert_eq!(inferred.columns[0].why, "`01067` in row 1 has a leading zero, as codes have");
/// assert_eq!(inferred.columns[1].avro_type, "double");
/// # Ok::<(), tidegate_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Input`](crate::ErrorKind::Input) when the input cannot be read; [`ErrorKind::Option`](crate::ErrorKind::Option) when a
/// group-by column is not in the header, or a field to be added has no name that Avro takes.
pub fn infer<R: Read>(reader: RowReader<R>, options: &InferOptions<'_>) -> Result<Inferred> {
    let mut inference = Inference::new(reader.header(), options)?;
    inference.read(reader)?;
    inference.finish(options)
}

/// As [`infer`], from all rows of several inputs, which all have this header.
///
/// # Errors
/// As [`infer`], with the name of the input; [`ErrorKind::InputChanged`](crate::ErrorKind::InputChanged) where one has another header.
pub fn infer_all<S: Source>(
    sources: &[S],
    header: &Header,
    csv: &CsvFormat,
    options: &InferOptions<'_>,
) -> Result<Inferred> {
    let mut inference = Inference::new(header, options)?;
    for source in sources {
        let start = Position {
            row: inference.rows + inference.bad_rows,
            ..Position::START
        };
        let mut look = || {
            let input = source.open();
            let input = input.map_err(|error| Error::input("cannot open the input", error))?;
            inference.read(RowReader::resume(input, csv.clone(), header, start)?)
        };
        look().map_err(|error: Error| error.in_source(source.name()))?;
    }
    inference.finish(options)
}

/// What is known of the columns so far.
struct Inference {
    header: Header,
    columns: Vec<Column>,
    tests: Tests,
    /// How many rows are looked at.
    sample: u64,
    rows: u64,
    bad_rows: u64,
}

impl Inference {
    fn new(header: &Header, options: &InferOptions<'_>) -> Result<Self> {
        for name in options.group_by {
            if header.index_of(name).is_none() {
                let names = header.names().join(", ");
                return Err(Error::option(format!(
                    "the input has no column `{name}`, named by --group-by: the columns are {names}"
                )));
            }
        }
        let column = |_| Column::new(options.cells, options.looks_for_nulls);
        let columns = header.names().iter().map(column);
        Ok(Self {
            columns: columns.collect(),
            header: header.clone(),
            tests: Tests::new(options.format, options.cells)?,
            sample: options.sample.unwrap_or(u64::MAX),
            rows: 0,
            bad_rows: 0,
        })
    }

    /// Takes in all rows of an input.
    fn read<R: Read>(&mut self, mut reader: RowReader<R>) -> Result<()> {
        while self.rows + self.bad_rows < self.sample {
            match reader.next()? {
                ReadRow::Row(row) => {
                    self.rows += 1;
                    for (index, column) in self.columns.iter_mut().enumerate() {
                        column.look_at(&row, index, &mut self.tests);
                    }
                }
                ReadRow::Bad(_) => self.bad_rows += 1,
                ReadRow::Idle => {}
                ReadRow::End => return Ok(()),
            }
        }
        Ok(())
    }

    fn finish(self, options: &InferOptions<'_>) -> Result<Inferred> {
        let mut names = Names::default();
        let mut reports = Vec::with_capacity(self.columns.len());
        for (name, column) in self.header.names().iter().zip(&self.columns) {
            let field = names.field(name, reports.len());
            reports.push(column.report(name, field, options.cells));
        }
        let columns = || self.header.names().iter().zip(&self.columns);
        let binary = columns().map(|(name, column)| (name, column.binary()));
        let first = binary.clone().filter(|(_, (count, ..))| *count > 0);
        let first = first.min_by_key(|(_, (_, row, _))| *row);
        let added = added_fields(&reports, options)?;
        Ok(Inferred {
            not_utf8: binary.map(|(_, (count, ..))| count).sum(),
            first_not_utf8: first
                .map(|(name, (_, row, text))| format!("{text} in row {row}, column `{name}`")),
            schema_json: schema_json(&reports, &added, options)?,
            added,
            columns: reports,
            rows: self.rows,
            bad_rows: self.bad_rows,
        })
    }
}

/// Legal Avro names, each used once.
#[derive(Debug, Default)]
struct Names {
    used: std::collections::HashSet<String>,
}

impl Names {
    fn field(&mut self, column: &str, index: usize) -> String {
        self.unique(legal_name(column).unwrap_or_else(|| format!("column_{}", index + 1)))
    }

    fn unique(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        let mut number = 2;
        while !self.used.insert(name.clone()) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        name
    }
}

/// The text with an underscore for all that an Avro name must not hold; `None` when nothing of it is left.
pub(crate) fn legal_name(text: &str) -> Option<String> {
    let mut name: String = text
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char
            } else {
                '_'
            }
        })
        .collect();
    if name.chars().all(|char| char == '_') && name != text {
        return None;
    }
    if name.is_empty() {
        return None;
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    Some(name)
}

/// The fields that are given values and have no column: the last one's mark before the others, as it goes before them.
fn added_fields(reports: &[ColumnReport], options: &InferOptions<'_>) -> Result<Vec<AddedField>> {
    let is_outside = |report: &&ColumnReport| {
        options.group_by.is_empty() || options.group_by.contains(&report.column)
    };
    let has_mark = |name: &str| {
        let mut outside = reports.iter().filter(is_outside);
        outside.any(|report| report.field == name)
    };
    let mut added: Vec<AddedField> = Vec::new();
    if let Some(name) = options.mark_last.filter(|name| !has_mark(name)) {
        added.push(AddedField {
            field: name.to_owned(),
            avro_type: "boolean",
        });
    }
    for (name, _) in options.set {
        let is_column = reports.iter().any(|report| report.field == *name);
        if !is_column && !added.iter().any(|known| known.field == *name) {
            added.push(AddedField {
                field: name.clone(),
                avro_type: "string",
            });
        }
    }
    let is_illegal = |added: &&AddedField| legal_name(&added.field).as_ref() != Some(&added.field);
    match added.iter().find(is_illegal) {
        None => Ok(added),
        Some(AddedField { field, .. }) => Err(Error::option(format!(
            "a field cannot be called `{field}` in a schema that is made of the data: names are of letters, digits and _, and do not begin with a digit"
        ))),
    }
}

fn schema_json(
    reports: &[ColumnReport],
    added: &[AddedField],
    options: &InferOptions<'_>,
) -> Result<String> {
    let record_name = legal_name(options.record_name).unwrap_or_else(|| "Record".into());
    let mut fields: Vec<Value> = reports.iter().map(field_json).collect();
    let added = added
        .iter()
        .map(|added| json!({"name": added.field, "type": added.avro_type}));
    let schema = if options.group_by.is_empty() {
        fields.extend(added);
        json!({"type": "record", "name": record_name, "fields": fields})
    } else {
        let mut names = Names::default();
        let mut outer = Vec::new();
        for column in options.group_by {
            let at = reports.iter().position(|report| report.column == *column);
            let at =
                at.ok_or_else(|| Error::internal("a group-by column is not among the columns"))?;
            names.unique(reports[at].field.clone());
            outer.push(fields[at].clone());
        }
        for field in added {
            names.unique(field["name"].as_str().unwrap_or_default().to_owned());
            outer.push(field);
        }
        let items =
            json!({"type": "record", "name": format!("{record_name}Row"), "fields": fields});
        outer.push(
            json!({"name": names.unique("rows".into()), "type": {"type": "array", "items": items}}),
        );
        json!({"type": "record", "name": record_name, "fields": outer})
    };
    serde_json::to_string_pretty(&schema)
        .map_err(|error| Error::internal("the schema cannot be written").with_source(error))
}

fn field_json(report: &ColumnReport) -> Value {
    let plain = report.schema.clone();
    let mut field = Map::new();
    field.insert("name".into(), json!(report.field));
    if report.nullable {
        field.insert("type".into(), json!(["null", plain]));
        field.insert("default".into(), Value::Null);
    } else {
        field.insert("type".into(), plain);
    }
    if report.field != report.column {
        field.insert(COLUMN_ATTRIBUTE.into(), json!(report.column));
    }
    field.extend(report.attributes.clone());
    Value::Object(field)
}

#[cfg(test)]
mod tests;
