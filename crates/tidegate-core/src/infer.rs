//! Inference: a schema for a file that has none, from all of its rows, with the reason for each column's type.
//!
//! A column gets the narrowest of boolean, long, double, timestamp-millis and timestamp-micros (from ISO 8601 texts) that holds every one of
//! its cells without losing anything, else string; it is nullable when a cell is empty. Doubt goes to string, because a code that became
//! a number is a wrong value and a number that stayed a string is not: leading zeros, a plus sign, whole numbers beyond 64 bits, and digits that
//! a double cannot hold all make a column a string. Cells are tested with the very functions that encode them, so a file published with its own
//! inferred schema has no row rejected for its values.

use std::io::Read;

use serde_json::{Map, Value, json};

use crate::encode::scalar::{self, Problem};
use crate::encode::time::{self, TimeUnit};
use crate::encode::{CellFormat, NullTokens, ValueFormat};
use crate::read::{CsvFormat, Header, Position, ReadRow, Row, RowReader, Source, show_text};
use crate::schema::COLUMN_ATTRIBUTE;
use crate::{Error, Result};

/// What inference is asked.
#[derive(Debug, Clone, Copy)]
pub struct InferOptions<'a> {
    /// The name of the record, usually the topic; made a legal Avro name.
    pub record_name: &'a str,
    /// The group-by columns. With any, the record holds them and then `rows`, an array of records of all columns.
    pub group_by: &'a [String],
    /// How cells are written.
    pub cells: &'a CellFormat,
    /// How values will be written: JSON holds no NaN and no infinities, so that columns with these become strings.
    pub format: ValueFormat,
}

/// An inferred schema, and why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred {
    /// The schema in Avro's JSON form.
    pub schema_json: String,
    /// The columns, in the order of the header.
    pub columns: Vec<ColumnReport>,
    /// Rows that were looked at: all good ones.
    pub rows: u64,
    /// Rows that could not be read, and so have no say.
    pub bad_rows: u64,
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
/// let options = InferOptions { record_name: "usage", group_by: &[], cells: &CellFormat::default(), format: ValueFormat::Avro };
/// let inferred = infer(reader, &options)?;
/// assert_eq!(inferred.columns[0].avro_type, "string");
/// assert_eq!(inferred.columns[0].why, "`01067` in row 1 has a leading zero, as codes have");
/// assert_eq!(inferred.columns[1].avro_type, "double");
/// # Ok::<(), tidegate_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Input`](crate::ErrorKind::Input) when the input cannot be read; [`ErrorKind::Option`](crate::ErrorKind::Option) when a
/// group-by column is not in the header.
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
        let columns = header.names().iter().map(|_| Column::new(options));
        Ok(Self {
            columns: columns.collect(),
            header: header.clone(),
            rows: 0,
            bad_rows: 0,
        })
    }

    /// Takes in all rows of an input.
    fn read<R: Read>(&mut self, mut reader: RowReader<R>) -> Result<()> {
        loop {
            match reader.next()? {
                ReadRow::Row(row) => {
                    self.rows += 1;
                    for (index, column) in self.columns.iter_mut().enumerate() {
                        column.look_at(&row, index);
                    }
                }
                ReadRow::Bad(_) => self.bad_rows += 1,
                ReadRow::Idle => {}
                ReadRow::End => return Ok(()),
            }
        }
    }

    fn finish(self, options: &InferOptions<'_>) -> Result<Inferred> {
        let mut names = Names::default();
        let mut reports = Vec::with_capacity(self.columns.len());
        for (name, column) in self.header.names().iter().zip(&self.columns) {
            reports.push(column.report(name, names.field(name, reports.len())));
        }
        Ok(Inferred {
            schema_json: schema_json(&reports, options)?,
            columns: reports,
            rows: self.rows,
            bad_rows: self.bad_rows,
        })
    }
}

/// The types a column may turn out to have, narrowest first; string is what is left when all are ruled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Boolean,
    Long,
    Double,
    TimestampMillis,
    TimestampMicros,
}

impl Candidate {
    const ALL: [Self; 5] = [
        Self::Boolean,
        Self::Long,
        Self::Double,
        Self::TimestampMillis,
        Self::TimestampMicros,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Long => "long",
            Self::Double => "double",
            Self::TimestampMillis => "timestamp-millis",
            Self::TimestampMicros => "timestamp-micros",
        }
    }

    fn all_values(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Long => "whole numbers",
            Self::Double => "decimal numbers",
            Self::TimestampMillis => "points in time, to the millisecond",
            Self::TimestampMicros => "points in time, to the microsecond",
        }
    }

    /// Whether a column of this type may hold the cell, or why not.
    fn test(self, text: &[u8], format: ValueFormat) -> Result<(), Obstacle> {
        match self {
            Self::Boolean => {
                // 1 and 0 are taken by the encoder, but in an unknown file they are numbers.
                let is_word =
                    text.eq_ignore_ascii_case(b"true") || text.eq_ignore_ascii_case(b"false");
                if is_word { Ok(()) } else { Err(Obstacle::Form) }
            }
            Self::Long => {
                scalar::long(text)?;
                check_digits(text)?;
                // A negative zero would lose its sign.
                if text == b"-0" {
                    Err(Obstacle::Form)
                } else {
                    Ok(())
                }
            }
            Self::Double => test_double(text, format),
            Self::TimestampMillis => test_timestamp(text, TimeUnit::Milliseconds),
            Self::TimestampMicros => test_timestamp(text, TimeUnit::Microseconds),
        }
    }
}

/// Why a cell is no value of a candidate type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Form,
    LeadingZero,
    PlusSign,
    Range,
    Digits,
    NonFinite,
    Precision,
}

impl From<Problem> for Obstacle {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::OutOfRange => Self::Range,
            Problem::TooPrecise => Self::Precision,
            Problem::NotInJson => Self::NonFinite,
            _ => Self::Form,
        }
    }
}

/// Most significant digits that every double tells apart.
const DOUBLE_DIGITS: usize = 17;

/// Whole numbers below this size are all told apart by doubles.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

fn test_double(text: &[u8], format: ValueFormat) -> Result<(), Obstacle> {
    let value = scalar::double(text)?;
    if !value.is_finite() {
        return if format == ValueFormat::Json {
            Err(Obstacle::NonFinite)
        } else {
            Ok(())
        };
    }
    check_digits(text)?;
    let mantissa = text
        .split(|byte| matches!(byte, b'e' | b'E'))
        .next()
        .unwrap_or_default();
    let is_whole = mantissa.len() == text.len() && !text.contains(&b'.');
    let significant = mantissa
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .skip_while(|digit| **digit == b'0')
        .count();
    if is_whole && value.abs() >= FIRST_INEXACT || significant > DOUBLE_DIGITS {
        return Err(Obstacle::Digits);
    }
    Ok(())
}

/// A number that is written as numbers are, not as codes are.
fn check_digits(text: &[u8]) -> Result<(), Obstacle> {
    match text {
        [b'+', ..] => Err(Obstacle::PlusSign),
        [b'0', b'0'..=b'9', ..] | [b'-', b'0', b'0'..=b'9', ..] => Err(Obstacle::LeadingZero),
        _ => Ok(()),
    }
}

/// A day alone is no point in time.
fn test_timestamp(text: &[u8], unit: TimeUnit) -> Result<(), Obstacle> {
    if text.len() <= "2024-01-31".len() || text.get(4) != Some(&b'-') {
        return Err(Obstacle::Form);
    }
    time::instant(text)?.in_unit(unit)?;
    Ok(())
}

/// The cell that ruled a candidate out.
#[derive(Debug, Clone)]
struct Evidence {
    row: u64,
    text: String,
    obstacle: Obstacle,
}

impl Evidence {
    fn sentence(&self, candidate: Candidate) -> String {
        let Self {
            row,
            text,
            obstacle,
        } = self;
        match obstacle {
            Obstacle::Form => format!("{text} in row {row} is no {}", candidate.name()),
            Obstacle::LeadingZero => {
                format!("{text} in row {row} has a leading zero, as codes have")
            }
            Obstacle::PlusSign => {
                format!("{text} in row {row} has a plus sign, as telephone numbers have")
            }
            Obstacle::Range => format!(
                "{text} in row {row} is out of the range of a {}",
                candidate.name()
            ),
            Obstacle::Digits => format!("{text} in row {row} has more digits than a double holds"),
            Obstacle::NonFinite => format!("{text} in row {row} is a number that JSON cannot hold"),
            Obstacle::Precision => format!(
                "{text} in row {row} is more precise than a {}",
                candidate.name()
            ),
        }
    }
}

/// What is known about a column.
#[derive(Debug)]
struct Column {
    format: ValueFormat,
    null_tokens: NullTokens,
    ruled_out: [Option<Evidence>; Candidate::ALL.len()],
    values: u64,
    /// Empty cells, and the row of the first.
    empty: (u64, u64),
    /// Cells that hold the null token, and the row of the first.
    tokens: (u64, u64),
    /// A number was seen that is no NaN and no infinity: these words alone do not make a number of a column.
    has_finite: bool,
}

impl Column {
    fn new(options: &InferOptions<'_>) -> Self {
        Self {
            format: options.format,
            null_tokens: options.cells.into(),
            ruled_out: std::array::from_fn(|_| None),
            values: 0,
            empty: (0, 0),
            tokens: (0, 0),
            has_finite: false,
        }
    }

    fn look_at(&mut self, row: &Row<'_>, index: usize) {
        let text = row.field(index);
        let count =
            |(count, first): (u64, u64)| (count + 1, if count == 0 { row.number() } else { first });
        if text.is_empty() {
            self.empty = count(self.empty);
            return;
        }
        if self.null_tokens.contain(text) {
            self.tokens = count(self.tokens);
            return;
        }
        self.values += 1;
        for (candidate, ruled_out) in Candidate::ALL.into_iter().zip(&mut self.ruled_out) {
            if ruled_out.is_some() {
                continue;
            }
            if let Err(obstacle) = candidate.test(text, self.format) {
                *ruled_out = Some(Evidence {
                    row: row.number(),
                    text: show_text(text),
                    obstacle,
                });
            }
        }
        self.has_finite = self.has_finite || !scalar::is_non_finite_word(text);
    }

    fn candidate(&self) -> Option<Candidate> {
        if self.values == 0 || !self.has_finite {
            return None;
        }
        let mut open = Candidate::ALL
            .into_iter()
            .zip(&self.ruled_out)
            .filter(|(_, ruled_out)| ruled_out.is_none());
        open.next().map(|(candidate, _)| candidate)
    }

    fn report(&self, column: &str, field: String) -> ColumnReport {
        let candidate = self.candidate();
        let mut why = self.why(candidate);
        // With a null token an empty string is an empty string.
        let empty_is_null = candidate.is_some() || self.null_tokens.is_empty() || self.values == 0;
        let (nulls, first) = match (self.empty, self.tokens) {
            ((empty, first), (0, _)) if empty_is_null => (empty, first),
            ((empty, first_empty), (tokens, first_token)) if empty_is_null && empty > 0 => {
                (empty + tokens, first_empty.min(first_token))
            }
            (_, tokens) => tokens,
        };
        if nulls > 0 && self.values > 0 {
            let cells = if nulls == 1 {
                "1 cell is".to_owned()
            } else {
                format!("{nulls} cells are")
            };
            why.push_str(&format!("; {cells} null, the first in row {first}"));
        }
        ColumnReport {
            column: column.to_owned(),
            field,
            avro_type: candidate.map_or("string", Candidate::name).to_owned(),
            nullable: nulls > 0 || self.values == 0,
            why,
        }
    }

    fn why(&self, candidate: Option<Candidate>) -> String {
        if self.values == 0 {
            return "no cell holds a value".into();
        }
        let Some(candidate) = candidate else {
            if !self.has_finite {
                return "no cell holds a number, only words such as NaN".into();
            }
            // The type that held out longest is the one a reader would have expected.
            let ruled_out = Candidate::ALL.into_iter().zip(&self.ruled_out);
            let last =
                ruled_out.filter_map(|(candidate, evidence)| Some((candidate, evidence.as_ref()?)));
            let last = last
                .max_by_key(|(_, evidence)| (evidence.row, evidence.obstacle != Obstacle::Form));
            return match last {
                Some((_, evidence)) if evidence.row == 1 && evidence.obstacle == Obstacle::Form => {
                    format!("{} in row 1 is text", evidence.text)
                }
                Some((candidate, evidence)) => evidence.sentence(candidate),
                None => "no other type fits".into(),
            };
        };
        let mut why = match self.values {
            1 => format!("its one value is a {}", candidate.name()),
            values => format!("all {values} values are {}", candidate.all_values()),
        };
        let narrower = match candidate {
            Candidate::Double => Some(Candidate::Long),
            Candidate::TimestampMicros => Some(Candidate::TimestampMillis),
            _ => None,
        };
        if let Some(narrower) = narrower
            && let Some(evidence) = &self.ruled_out[narrower as usize]
        {
            why.push_str("; ");
            why.push_str(&evidence.sentence(narrower));
        }
        why
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
fn legal_name(text: &str) -> Option<String> {
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

fn schema_json(reports: &[ColumnReport], options: &InferOptions<'_>) -> Result<String> {
    let record_name = legal_name(options.record_name).unwrap_or_else(|| "Record".into());
    let fields: Vec<Value> = reports.iter().map(field_json).collect();
    let schema = if options.group_by.is_empty() {
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
    let plain = match report.avro_type.as_str() {
        logical @ ("timestamp-millis" | "timestamp-micros") => {
            json!({"type": "long", "logicalType": logical})
        }
        plain => json!(plain),
    };
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
    Value::Object(field)
}

#[cfg(test)]
mod tests;
