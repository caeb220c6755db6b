//! Any serializable message as Avro in the Confluent wire format: byte 0, the schema id as four bytes big-endian, then the Avro datum.

use apache_avro::Schema;
use apache_avro::types::Value;
use serde::Serialize;
use tidegate_registry::Registry;

use crate::error::{Error, ErrorKind};

/// Names that make a field the message's timestamp.
const TIMESTAMP_NAMES: [&str; 3] = ["timestamp", "ts", "time"];

/// Serializes messages with one schema.
///
/// A message is anything that implements [`serde::Serialize`] as a struct or a map with the schema's field names. Fields may come in any
/// order; one that is missing takes the schema's default, one that the schema does not have is an error, never dropped.
#[derive(Debug, Clone)]
pub struct AvroSerializer {
    schema: Schema,
    schema_id: u32,
    timestamp_field: Option<usize>,
}

/// A serialized message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The text of the message's timestamp; `None` where the schema has no such field, or its value is null.
    pub key: Option<Vec<u8>>,
    /// The value in the Confluent wire format.
    pub value: Vec<u8>,
}

impl AvroSerializer {
    /// A serializer for a schema that already has an id.
    ///
    /// # Errors
    /// [`ErrorKind::Schema`] when `schema` is not a valid Avro record schema.
    pub fn new(schema: &str, schema_id: u32) -> Result<Self, Error> {
        let schema = Schema::parse_str(schema).map_err(|error| {
            Error::new(ErrorKind::Schema, "the schema is not valid Avro").because(error)
        })?;
        if !matches!(schema, Schema::Record(_)) {
            return Err(Error::new(ErrorKind::Schema, "the schema is not a record"));
        }
        let timestamp_field = timestamp_field(&schema);
        Ok(Self {
            schema,
            schema_id,
            timestamp_field,
        })
    }

    /// Registers `schema` under `subject` (usually `TOPIC-value`) and serializes with it. Registering the same schema again gives the same id.
    ///
    /// # Errors
    /// As [`Self::new`]; [`ErrorKind::Registry`] when the registry refuses it or cannot be reached.
    pub fn register(registry: &Registry, subject: &str, schema: &str) -> Result<Self, Error> {
        // Parsed first, so that a schema that cannot be used is never registered.
        let mut serializer = Self::new(schema, 0)?;
        serializer.schema_id = registry.register(subject, schema)?;
        Ok(serializer)
    }

    /// Serializes with the latest schema of `subject`.
    ///
    /// # Errors
    /// As [`Self::register`]; [`ErrorKind::Schema`] when the subject has no schema.
    pub fn latest(registry: &Registry, subject: &str) -> Result<Self, Error> {
        let Some(latest) = registry.latest(subject)? else {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("the registry has no schema for the subject {subject}"),
            ));
        };
        Self::new(&latest.schema, latest.id)
    }

    /// The id in front of each value.
    #[must_use]
    pub fn schema_id(&self) -> u32 {
        self.schema_id
    }

    /// The message as a record value.
    ///
    /// # Errors
    /// [`ErrorKind::Message`] when the message does not fit the schema; it names the field where it can.
    pub fn serialize(&self, message: &impl Serialize) -> Result<Vec<u8>, Error> {
        self.frame(self.resolve(message)?)
    }

    /// The message as a record: its value, and its timestamp as the key. The timestamp is the schema's first field with a timestamp type,
    /// else the one named `timestamp`, `ts` or `time`, in that order and in any case.
    ///
    /// # Errors
    /// As [`Self::serialize`].
    pub fn encode(&self, message: &impl Serialize) -> Result<Encoded, Error> {
        let resolved = self.resolve(message)?;
        let key = match (&resolved, self.timestamp_field) {
            (Value::Record(fields), Some(index)) => {
                fields.get(index).and_then(|(_, value)| key_text(value))
            }
            _ => None,
        };
        Ok(Encoded {
            key: key.map(String::into_bytes),
            value: self.frame(resolved)?,
        })
    }

    fn resolve(&self, message: &impl Serialize) -> Result<Value, Error> {
        let misfit = |error: apache_avro::Error| {
            Error::new(ErrorKind::Message, "the message does not fit the schema").because(error)
        };
        // apache-avro's direct writer is faster, but writes fields in the struct's order whatever the schema's is: wrong bytes without an error.
        let value = apache_avro::to_value(message).map_err(misfit)?;
        let resolved = value.clone().resolve(&self.schema).map_err(misfit)?;
        match unknown_field(&value, &resolved) {
            Some(name) => Err(Error::new(
                ErrorKind::Message,
                format!("the message has a field {name:?} that the schema does not have"),
            )),
            None => Ok(resolved),
        }
    }

    fn frame(&self, resolved: Value) -> Result<Vec<u8>, Error> {
        let datum = apache_avro::to_avro_datum(&self.schema, resolved).map_err(|error| {
            Error::new(ErrorKind::Message, "the message cannot be written as Avro").because(error)
        })?;
        let mut bytes = Vec::with_capacity(5 + datum.len());
        bytes.push(0);
        bytes.extend_from_slice(&self.schema_id.to_be_bytes());
        bytes.extend_from_slice(&datum);
        Ok(bytes)
    }
}

/// The field that holds the message's timestamp; the same rule as for CSV columns.
fn timestamp_field(schema: &Schema) -> Option<usize> {
    let Schema::Record(record) = schema else {
        return None;
    };
    let by_type = record.fields.iter().position(|field| match &field.schema {
        Schema::Union(union) => union.variants().iter().any(is_timestamp),
        schema => is_timestamp(schema),
    });
    by_type.or_else(|| {
        TIMESTAMP_NAMES.iter().find_map(|name| {
            record
                .fields
                .iter()
                .position(|field| field.name.eq_ignore_ascii_case(name))
        })
    })
}

fn is_timestamp(schema: &Schema) -> bool {
    matches!(
        schema,
        Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos
    )
}

/// The text of a timestamp as it becomes a key; what is no plain value makes none.
fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::Union(_, inner) => key_text(inner),
        Value::Int(number) | Value::Date(number) => Some(number.to_string()),
        Value::Long(number)
        | Value::TimestampMillis(number)
        | Value::TimestampMicros(number)
        | Value::TimestampNanos(number)
        | Value::LocalTimestampMillis(number)
        | Value::LocalTimestampMicros(number)
        | Value::LocalTimestampNanos(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// A field of `given` that resolving it against the schema left out, at any depth.
fn unknown_field(given: &Value, resolved: &Value) -> Option<String> {
    match (given, resolved) {
        (Value::Union(_, given), resolved) => unknown_field(given, resolved),
        (given, Value::Union(_, resolved)) => unknown_field(given, resolved),
        (Value::Record(given), Value::Record(resolved)) => given
            .iter()
            .find_map(|(name, value)| unknown_in(name, value, resolved)),
        (Value::Map(given), Value::Record(resolved)) => given
            .iter()
            .find_map(|(name, value)| unknown_in(name, value, resolved)),
        (Value::Map(given), Value::Map(resolved)) => given.iter().find_map(|(name, value)| {
            resolved
                .get(name)
                .and_then(|other| unknown_field(value, other))
        }),
        (Value::Array(given), Value::Array(resolved)) => given
            .iter()
            .zip(resolved)
            .find_map(|(given, resolved)| unknown_field(given, resolved)),
        _ => None,
    }
}

fn unknown_in(name: &str, value: &Value, resolved: &[(String, Value)]) -> Option<String> {
    match resolved.iter().find(|(known, _)| known == name) {
        Some((_, other)) => unknown_field(value, other),
        None => Some(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type": "record", "name": "Usage", "fields": [
        {"name": "timestamp", "type": "long"},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "containers", "type": {"type": "array", "items": {"type": "record", "name": "Container", "fields": [
            {"name": "id", "type": "string"}, {"name": "cpu", "type": "double"}]}}}]}"#;

    #[derive(Serialize)]
    struct Container {
        cpu: f64,
        id: &'static str,
    }

    #[derive(Serialize)]
    struct Usage {
        containers: Vec<Container>,
        timestamp: i64,
    }

    fn usage() -> Usage {
        Usage {
            containers: vec![Container {
                cpu: 0.5,
                id: "c_1",
            }],
            timestamp: 7,
        }
    }

    #[test]
    fn fields_in_any_order_become_the_schemas_order() {
        let serializer = AvroSerializer::new(SCHEMA, 258).unwrap();
        let encoded = serializer.encode(&usage()).unwrap();
        assert_eq!(encoded.key.as_deref(), Some(&b"7"[..]));
        // Frame: 0, id 0x00000102; datum: long 7, union branch 0 (null), array of one block.
        assert_eq!(encoded.value[..9], [0, 0, 0, 1, 2, 14, 0, 2, 6]);
        assert_eq!(&encoded.value[9..12], b"c_1");
        assert_eq!(encoded.value[12..20], 0.5f64.to_le_bytes());
        assert_eq!(encoded.value[20..], [0]);
        assert_eq!(serializer.serialize(&usage()).unwrap(), encoded.value);
    }

    #[test]
    fn a_field_the_schema_does_not_have_is_an_error_at_any_depth() {
        let serializer = AvroSerializer::new(SCHEMA, 1).unwrap();
        let top = serde_json::json!({ "timestamp": 1, "containers": [], "extra": 1 });
        let deep = serde_json::json!({ "timestamp": 1, "containers": [{ "id": "a", "cpu": 1.0, "extra": 1 }] });
        for message in [top, deep] {
            let error = serializer.serialize(&message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Message);
            assert!(error.to_string().contains("\"extra\""), "{error}");
        }
    }

    #[test]
    fn a_missing_field_without_a_default_is_an_error() {
        let serializer = AvroSerializer::new(SCHEMA, 1).unwrap();
        let error = serializer
            .serialize(&serde_json::json!({ "timestamp": 1 }))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Message);
    }

    #[test]
    fn the_timestamp_is_found_by_type_then_by_name() {
        let schema = |fields: &str| {
            Schema::parse_str(&format!(
                r#"{{"type": "record", "name": "r", "fields": [{fields}]}}"#
            ))
            .unwrap()
        };
        let named = r#"{"name": "time", "type": "long"}, {"name": "Timestamp", "type": "string"}"#;
        assert_eq!(timestamp_field(&schema(named)), Some(1));
        let typed = r#"{"name": "timestamp", "type": "long"},
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]}"#;
        assert_eq!(timestamp_field(&schema(typed)), Some(1));
        assert_eq!(
            timestamp_field(&schema(r#"{"name": "a", "type": "long"}"#)),
            None
        );
    }

    #[test]
    fn a_schema_that_is_no_record_is_refused() {
        assert_eq!(
            AvroSerializer::new("\"string\"", 1).unwrap_err().kind(),
            ErrorKind::Schema
        );
        assert_eq!(
            AvroSerializer::new("{", 1).unwrap_err().kind(),
            ErrorKind::Schema
        );
    }
}
