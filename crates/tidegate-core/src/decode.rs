//! Reading records back: to show them as JSON, and to name the first difference between two.
//!
//! Schemas are parsed by the apache-avro crate; the bytes are walked here, because its reader takes a value that ends early for a null and
//! makes room for whatever length the bytes announce. Here the end of the bytes is an error and memory follows what was really read.
//! The JSON is that of [`json`](crate::json), with NaN and infinities as strings, since a shown record may hold them.

use apache_avro::Schema;
use apache_avro::schema::Namespace;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use crate::encode::ValueFormat;
use crate::encode::coded::duration_text;
use crate::encode::wide_decimal;
use crate::json::time_text;
use crate::limits::{MAX_DECIMAL_DIGITS, MAX_EMPTY_ITEMS, MAX_VALUE_DEPTH};
use crate::read::show_text;
use crate::schema::{AvroSchema, RecordPlan, is_duration, time_type};
use crate::{Error, ErrorKind, Result};

/// Shows the records of one schema.
///
/// ```
/// use tidegate_core::decode::Decoder;
///
/// let decoder = Decoder::new(r#"{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}"#)?;
/// assert_eq!(decoder.to_json(&[0x54])?.to_string(), r#"{"id":42}"#);
/// assert!(decoder.to_json(&[0x80]).is_err());
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Decoder {
    avro: AvroSchema,
}

impl Decoder {
    /// A decoder of records written with this schema.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when it is not valid Avro.
    pub fn new(schema_json: &str) -> Result<Self> {
        Ok(Self {
            avro: AvroSchema::parse(schema_json)?,
        })
    }

    /// The JSON of a record's Avro bytes, without Confluent's header before them.
    ///
    /// # Errors
    /// [`ErrorKind::Consume`] when the bytes are no record of this schema; says at which byte.
    pub fn to_json(&self, bytes: &[u8]) -> Result<Value> {
        record_to_json(&self.avro, bytes)
    }
}

/// Where two values differ, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    /// The path of the field, such as `containers[3].cpu`; empty when the values differ as a whole.
    pub field: String,
    /// The column the field is taken from, where it is taken from one.
    pub column: Option<String>,
    /// In a group, the index of the row in its record, from 0.
    pub row_in_record: Option<usize>,
    /// What the input says, as JSON text.
    pub expected: String,
    /// What was found, as JSON text.
    pub found: String,
}

/// The first field in which two values differ, or `None` when they hold the same, even if their bytes differ (an array may be cut into
/// blocks in many ways). `framed` says that Avro values stand behind Confluent's header.
#[must_use]
pub fn first_difference(
    plan: &RecordPlan,
    framed: bool,
    expected: &[u8],
    found: &[u8],
) -> Option<FieldDifference> {
    if expected == found {
        return None;
    }
    let whole = |expected: String, found: String| {
        Some(FieldDifference {
            field: String::new(),
            column: None,
            row_in_record: None,
            expected,
            found,
        })
    };
    let (mut expected, mut found) = (expected, found);
    if framed && plan.format() == ValueFormat::Avro {
        let headers = (
            expected.split_first_chunk::<5>(),
            found.split_first_chunk::<5>(),
        );
        let (Some((expected_header, expected_rest)), Some((found_header, found_rest))) = headers
        else {
            return whole(show_length(expected), show_length(found));
        };
        if expected_header != found_header {
            return whole(show_header(*expected_header), show_header(*found_header));
        }
        (expected, found) = (expected_rest, found_rest);
    }
    let read = |bytes: &[u8]| match plan.format() {
        ValueFormat::Avro => {
            record_to_json(&plan.avro, bytes).map_err(|error| error.message().to_owned())
        }
        ValueFormat::Json => {
            serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))
        }
    };
    match (read(expected), read(found)) {
        (Ok(expected), Ok(found)) => {
            let mut path = Path::default();
            let (expected, found) = path.compare(&expected, &found)?;
            Some(path.difference(plan, expected, found))
        }
        (expected, found) => {
            let show = |value: Result<Value, String>| {
                value.map_or_else(|error| error, |value| value.to_string())
            };
            whole(show(expected), show(found))
        }
    }
}

fn show_length(bytes: &[u8]) -> String {
    format!("{} bytes: {}", bytes.len(), show_text(bytes))
}

fn show_header(header: [u8; 5]) -> String {
    let [magic, id @ ..] = header;
    match magic {
        0 => format!("schema id {}", u32::from_be_bytes(id)),
        _ => format!("no Confluent header: the first byte is {magic}, not 0"),
    }
}

/// The way to the value at hand.
#[derive(Debug, Default)]
struct Path {
    steps: Vec<PathStep>,
}

#[derive(Debug)]
enum PathStep {
    Field(String),
    Item(usize),
}

impl Path {
    /// Walks down to the first leaf that differs; the path then leads there. Leaves are compared as text, so that 0.0 and -0.0 differ.
    fn compare(&mut self, expected: &Value, found: &Value) -> Option<(String, String)> {
        match (expected, found) {
            (Value::Object(expected), Value::Object(found)) => {
                for (name, value) in expected {
                    self.steps.push(PathStep::Field(name.clone()));
                    match found.get(name) {
                        Some(other) => {
                            if let Some(difference) = self.compare(value, other) {
                                return Some(difference);
                            }
                        }
                        None => return Some((value.to_string(), "nothing".into())),
                    }
                    self.steps.pop();
                }
                let surplus = found
                    .iter()
                    .find(|(name, _)| !expected.contains_key(*name))?;
                self.steps.push(PathStep::Field(surplus.0.clone()));
                Some(("nothing".into(), surplus.1.to_string()))
            }
            (Value::Array(expected), Value::Array(found)) => {
                for (index, (value, other)) in expected.iter().zip(found).enumerate() {
                    self.steps.push(PathStep::Item(index));
                    if let Some(difference) = self.compare(value, other) {
                        return Some(difference);
                    }
                    self.steps.pop();
                }
                let items = |count: usize| format!("{count} items");
                (expected.len() != found.len()).then(|| (items(expected.len()), items(found.len())))
            }
            _ => {
                let (expected, found) = (expected.to_string(), found.to_string());
                (expected != found).then_some((expected, found))
            }
        }
    }

    fn difference(&self, plan: &RecordPlan, expected: String, found: String) -> FieldDifference {
        let mut field = String::new();
        for step in &self.steps {
            match step {
                PathStep::Field(name) => {
                    if !field.is_empty() {
                        field.push('.');
                    }
                    field.push_str(name);
                }
                PathStep::Item(index) => field.push_str(&format!("[{index}]")),
            }
        }
        let (array, row_in_record, name) = match &self.steps[..] {
            [
                PathStep::Field(array),
                PathStep::Item(row),
                PathStep::Field(name),
                ..,
            ] if plan.is_grouped() => (Some(array.as_str()), Some(*row), name.as_str()),
            [PathStep::Field(array), PathStep::Item(row)] if plan.is_grouped() => {
                (Some(array.as_str()), Some(*row), "")
            }
            [PathStep::Field(name), ..] => (None, None, name.as_str()),
            _ => (None, None, ""),
        };
        let column = plan
            .field_columns
            .iter()
            .find(|known| known.array.as_deref() == array && known.field == name);
        FieldDifference {
            field,
            column: column.map(|known| plan.header.names()[known.column].clone()),
            row_in_record,
            expected,
            found,
        }
    }
}

fn record_to_json(avro: &AvroSchema, bytes: &[u8]) -> Result<Value> {
    let mut walk = Walk {
        avro,
        bytes,
        at: 0,
        iso_times: false,
    };
    let value = walk.value(avro.root(), &None, 0)?;
    let left = bytes.len() - walk.at;
    if left > 0 {
        return Err(walk.error(format!("{left} bytes are left behind the record")));
    }
    Ok(value)
}

/// The JSON of an encoded default; `iso_times` says whether it holds times as ISO 8601 has them.
pub(crate) fn default_to_json(
    avro: &AvroSchema,
    schema: &Schema,
    namespace: &Namespace,
    bytes: &[u8],
    iso_times: bool,
) -> Result<Value> {
    let mut walk = Walk {
        avro,
        bytes,
        at: 0,
        iso_times,
    };
    walk.value(schema, namespace, 0)
}

/// A walk over the bytes of a record.
struct Walk<'a> {
    avro: &'a AvroSchema,
    bytes: &'a [u8],
    at: usize,
    /// Whether times become the texts that ISO 8601 has for them, and not the numbers that stand there.
    iso_times: bool,
}

impl<'a> Walk<'a> {
    #[cold]
    fn error(&self, what: impl std::fmt::Display) -> Error {
        let message = format!(
            "the value is not a record of its schema: at byte {}, {what}",
            self.at
        );
        Error::new(ErrorKind::Consume, message)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            return Err(self.error(format!(
                "{len} bytes are expected and {} are left",
                rest.len()
            )));
        };
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        Ok(*taken
            .first_chunk()
            .expect("take gives as many bytes as asked for"))
    }

    fn long(&mut self) -> Result<i64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(self.error("a number is longer than 64 bits"))
    }

    fn int(&mut self) -> Result<i32> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| self.error(format!("{value} does not fit into 32 bits")))
    }

    fn prefixed(&mut self) -> Result<&'a [u8]> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| self.error(format!("a length is {len}")))?;
        self.take(len)
    }

    fn text(&mut self) -> Result<&'a str> {
        let bytes = self.prefixed()?;
        str::from_utf8(bytes).map_err(|_| self.error(format!("{} is not UTF-8", show_text(bytes))))
    }

    fn value(&mut self, schema: &Schema, namespace: &Namespace, depth: usize) -> Result<Value> {
        if depth > MAX_VALUE_DEPTH {
            return Err(self.error(format!("it is nested deeper than {MAX_VALUE_DEPTH} levels")));
        }
        let avro = self.avro;
        let (schema, inside) = avro.resolve(schema, namespace)?;
        match schema {
            Schema::Union(union) => {
                let index = self.long()?;
                let variant = usize::try_from(index)
                    .ok()
                    .and_then(|index| union.variants().get(index));
                let variant = variant
                    .ok_or_else(|| self.error(format!("the union has no branch {index}")))?;
                self.value(variant, &inside, depth + 1)
            }
            Schema::Array(array) => {
                let mut items = Vec::new();
                self.blocks(|walk| {
                    items.push(walk.value(&array.items, &inside, depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            Schema::Map(map) => {
                let mut entries = Map::new();
                self.blocks(|walk| {
                    let name = walk.text()?.to_owned();
                    entries.insert(name, walk.value(&map.types, &inside, depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Object(entries))
            }
            Schema::Record(record) => {
                let mut fields = Map::new();
                for field in &record.fields {
                    let value = self.value(&field.schema, &inside, depth + 1)?;
                    fields.insert(field.name.clone(), value);
                }
                Ok(Value::Object(fields))
            }
            plain => self.plain(plain),
        }
    }

    /// A value of a type without parts.
    fn plain(&mut self, schema: &Schema) -> Result<Value> {
        Ok(match schema {
            Schema::Null => Value::Null,
            Schema::Boolean => match self.array::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.error(format!("a boolean is {other}"))),
            },
            Schema::Int => self.int()?.into(),
            Schema::Long => self.long()?.into(),
            Schema::Date | Schema::TimeMillis => {
                let count = self.int()?;
                self.time(schema, count.into())
            }
            Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => {
                let count = self.long()?;
                self.time(schema, count)
            }
            Schema::Float => float_to_json(f32::from_le_bytes(self.array()?)),
            Schema::Double => double_to_json(f64::from_le_bytes(self.array()?)),
            Schema::Bytes | Schema::BigDecimal => STANDARD.encode(self.prefixed()?).into(),
            Schema::Fixed(fixed) if is_duration(fixed) => self.duration()?,
            Schema::Fixed(fixed) => STANDARD.encode(self.take(fixed.size)?).into(),
            Schema::Duration => self.duration()?,
            Schema::String | Schema::Uuid => self.text()?.into(),
            Schema::Decimal(decimal) => {
                let bytes = match &*decimal.inner {
                    Schema::Fixed(fixed) => self.take(fixed.size)?,
                    _ => self.prefixed()?,
                };
                self.decimal(bytes, decimal.scale)?.into()
            }
            Schema::Enum(symbols) => {
                let index = self.int()?;
                let symbol = usize::try_from(index)
                    .ok()
                    .and_then(|index| symbols.symbols.get(index));
                let symbol =
                    symbol.ok_or_else(|| self.error(format!("the enum has no symbol {index}")))?;
                symbol.as_str().into()
            }
            other => {
                return Err(self.error(format!(
                    "the schema has a type that is not known here: {other:?}"
                )));
            }
        })
    }

    fn time(&self, schema: &Schema, count: i64) -> Value {
        let text = time_type(schema).filter(|_| self.iso_times);
        match text.and_then(|of| time_text(count, of)) {
            Some(text) => text.into(),
            None => count.into(),
        }
    }

    fn decimal(&self, bytes: &[u8], scale: usize) -> Result<String> {
        // What stands before the digits in a fixed type is no part of the number.
        let filler = if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let start = bytes.iter().position(|byte| *byte != filler);
        let start = start.unwrap_or(bytes.len()).saturating_sub(1);
        let significant = &bytes[start..];
        // Half a byte holds more than a digit: so many bytes hold all that is ever written.
        if significant.len() > MAX_DECIMAL_DIGITS / 2 {
            let length = significant.len();
            return Err(self.error(format!("a decimal number has {length} bytes")));
        }
        Ok(wide_decimal::text(significant, scale))
    }

    fn duration(&mut self) -> Result<Value> {
        let mut parts = [0; 3];
        for part in &mut parts {
            *part = u32::from_le_bytes(self.array()?);
        }
        Ok(duration_text(parts).into())
    }

    /// The blocks of an array or map: a count, which is negative when a length in bytes follows it, then the items; a count of 0 ends.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            let count = count
                .checked_abs()
                .ok_or_else(|| self.error("a count is out of range"))?;
            let start = self.at;
            for done in 0..count {
                if self.at == start && done > MAX_EMPTY_ITEMS {
                    return Err(self.error(format!("{count} items without content are announced")));
                }
                item(self)?;
            }
        }
    }
}

fn double_to_json(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => non_finite(value.is_nan(), value > 0.0),
    }
}

/// The shortest decimal that reads back as the same float, not the digits of the double that holds it; of two that are as short, the one that
/// [`json`](crate::json) writes.
fn float_to_json(value: f32) -> Value {
    let digits = serde_json::to_string(&value);
    match digits.ok().and_then(|digits| digits.parse().ok()) {
        Some(double) if value.is_finite() => double_to_json(double),
        _ => non_finite(value.is_nan(), value > 0.0),
    }
}

fn non_finite(is_nan: bool, is_positive: bool) -> Value {
    let name = match (is_nan, is_positive) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    };
    name.into()
}

#[cfg(test)]
mod tests;
