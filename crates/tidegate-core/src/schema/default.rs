//! Defaults: the JSON a schema gives for a field becomes the field's Avro bytes, once, when the plan is compiled.
//!
//! Avro 1.12, "Complex Types": a union's default is of its first branch, later versions also take another one; bytes and fixed are written as
//! a string of code points 0 to 255.

use apache_avro::Schema;
use apache_avro::schema::Namespace;
use serde_json::Value;

use super::avro::{AvroSchema, default_of, type_name};
use crate::encode::{put_bytes, put_long};
use crate::limits::MAX_DEFAULT_DEPTH;

/// Appends the Avro form of a default. The error says what does not fit.
pub(super) fn encode_default(
    avro: &AvroSchema,
    schema: &Schema,
    namespace: &Namespace,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    encode(avro, schema, namespace, value, out, 0)
}

fn encode(
    avro: &AvroSchema,
    schema: &Schema,
    namespace: &Namespace,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), String> {
    if depth > MAX_DEFAULT_DEPTH {
        return Err(format!(
            "it is nested deeper than {MAX_DEFAULT_DEPTH} levels"
        ));
    }
    let (schema, inside) = avro
        .resolve(schema, namespace)
        .map_err(|error| error.message().to_owned())?;
    match schema {
        Schema::Union(union) => encode_union(avro, union.variants(), &inside, value, out, depth),
        Schema::Array(array) => {
            let items = value.as_array().ok_or_else(|| misfit(schema, value))?;
            put_count(out, items.len());
            for item in items {
                encode(avro, &array.items, &inside, item, out, depth + 1)?;
            }
            end_blocks(out, items.len());
            Ok(())
        }
        Schema::Map(map) => {
            let entries = value.as_object().ok_or_else(|| misfit(schema, value))?;
            put_count(out, entries.len());
            for (name, item) in entries {
                put_bytes(out, name.as_bytes());
                encode(avro, &map.types, &inside, item, out, depth + 1)?;
            }
            end_blocks(out, entries.len());
            Ok(())
        }
        Schema::Record(record) => {
            let values = value.as_object().ok_or_else(|| misfit(schema, value))?;
            for field in &record.fields {
                let item = values.get(&field.name).or(default_of(field));
                let item = item.ok_or_else(|| format!("{value} has no `{}`", field.name))?;
                encode(avro, &field.schema, &inside, item, out, depth + 1)?;
            }
            Ok(())
        }
        plain => encode_plain(plain, value, out).ok_or_else(|| misfit(schema, value)),
    }
}

fn misfit(schema: &Schema, value: &Value) -> String {
    format!("{value} is no {}", type_name(schema))
}

/// A default of a type without parts; `None` when it does not fit.
fn encode_plain(schema: &Schema, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match schema {
        Schema::Null if value.is_null() => {}
        Schema::Boolean => out.push(u8::from(value.as_bool()?)),
        Schema::Int | Schema::Date | Schema::TimeMillis => {
            put_long(out, i64::from(i32::try_from(value.as_i64()?).ok()?));
        }
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => put_long(out, value.as_i64()?),
        Schema::Float => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the default is rounded to the field's precision, as Avro does"
            )]
            let number = value.as_f64()? as f32;
            out.extend_from_slice(&number.to_le_bytes());
        }
        Schema::Double => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
        Schema::String | Schema::Uuid => put_bytes(out, value.as_str()?.as_bytes()),
        Schema::Bytes => put_bytes(out, &code_points(value)?),
        Schema::Fixed(fixed) => {
            let bytes = code_points(value)?;
            out.extend_from_slice(
                Some(bytes)
                    .filter(|bytes| bytes.len() == fixed.size)?
                    .as_slice(),
            );
        }
        Schema::Decimal(decimal) => return encode_plain(&decimal.inner, value, out),
        Schema::Enum(symbols) => {
            let symbol = value.as_str()?;
            let index = symbols.symbols.iter().position(|known| known == symbol)?;
            put_long(out, index.cast_signed() as i64);
        }
        _ => return None,
    }
    Some(())
}

/// The first branch that the default fits.
fn encode_union(
    avro: &AvroSchema,
    variants: &[Schema],
    namespace: &Namespace,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), String> {
    let start = out.len();
    for (index, variant) in variants.iter().enumerate() {
        put_long(out, index.cast_signed() as i64);
        if encode(avro, variant, namespace, value, out, depth + 1).is_ok() {
            return Ok(());
        }
        out.truncate(start);
    }
    Err(format!("{value} fits no branch of the union"))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_long(out, count.cast_signed() as i64);
}

/// An array or map without items is its end alone, which then was written as the count.
fn end_blocks(out: &mut Vec<u8>, count: usize) {
    if count > 0 {
        out.push(0);
    }
}

fn code_points(value: &Value) -> Option<Vec<u8>> {
    value
        .as_str()?
        .chars()
        .map(|point| u8::try_from(u32::from(point)).ok())
        .collect()
}
