//! Reads a schema text and gives it its identity: two texts that say the same get the same id.

use apache_avro::Schema;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// A valid Avro schema as the registry keeps it.
#[derive(Debug)]
pub(super) struct ParsedSchema {
    /// The text without insignificant white space, keys in the order they were given: what readers get back.
    pub(super) text: String,
    /// What decides whether two schemas are the same one: attributes in one order, and `{"type": "string"}` written as `"string"`. Unlike Avro's
    /// parsing canonical form it keeps defaults, docs, aliases and logical types, because readers rely on them.
    pub(super) identity: String,
    /// The schema itself.
    pub(super) avro: Schema,
}

impl ParsedSchema {
    /// Parses `text`; what is no Avro schema is refused with the reason (42201).
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = |reason: String| Refusal::invalid_schema(format!("Invalid schema: {reason}"));
        // A bare type name is not JSON, yet clients send it and registries take it.
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) if is_type_name(text.trim()) => Value::String(text.trim().to_owned()),
            Err(error) => return Err(invalid(format!("not JSON: {error}"))),
        };
        let avro = parse_avro(value.clone()).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            text: value.to_string(),
            identity: normalise(value).to_string(),
            avro,
        })
    }
}

/// The schema of a text for comparisons, which decimals are to as the bytes that they stand in. The crate that parses schemas takes no default of a decimal,
/// and of the bytes all that are valid.
pub(super) fn parse_avro(mut value: Value) -> Result<Schema, apache_avro::Error> {
    forget_decimals(&mut value);
    Schema::parse(&value)
}

fn forget_decimals(schema: &mut Value) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(forget_decimals),
        Value::Object(object) => {
            if object
                .get("logicalType")
                .is_some_and(|name| name == "decimal")
            {
                object.remove("logicalType");
            }
            for part in ["type", "items", "values", "fields"] {
                if let Some(part) = object.get_mut(part) {
                    forget_decimals(part);
                }
            }
        }
        _ => {}
    }
}

fn is_type_name(text: &str) -> bool {
    matches!(
        text,
        "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string"
    )
}

/// Sorts the attributes of every object by name and takes the wrapping off primitive types that have no further attribute. The content of
/// `default` is data, not schema: it is sorted too (JSON objects have no order), but never unwrapped.
fn normalise(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(normalise).collect()),
        Value::Object(object) => {
            if object.len() == 1
                && let Some(Value::String(name)) = object.get("type")
            {
                return Value::String(name.clone());
            }
            sort(object, |name, value| {
                if name == "default" {
                    sort_data(value)
                } else {
                    normalise(value)
                }
            })
        }
        other => other,
    }
}

fn sort_data(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sort_data).collect()),
        Value::Object(object) => sort(object, |_, value| sort_data(value)),
        other => other,
    }
}

fn sort(object: Map<String, Value>, convert: impl Fn(&str, Value) -> Value) -> Value {
    let mut entries: Vec<(String, Value)> = object.into_iter().collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    let sorted = entries.into_iter().map(|(name, value)| {
        let value = convert(&name, value);
        (name, value)
    });
    Value::Object(sorted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> String {
        ParsedSchema::parse(text).unwrap().identity
    }

    #[test]
    fn white_space_and_order_of_attributes_do_not_count() {
        let one =
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":0}]}"#;
        let two = r#"{ "name": "R", "type": "record",
            "fields": [ {"type": {"type": "int"}, "name": "a", "default": 0} ] }"#;
        assert_eq!(identity(one), identity(two));
        assert_eq!(ParsedSchema::parse(one).unwrap().text, one);
    }

    #[test]
    fn a_default_keeps_every_digit() {
        let text = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":123456789.12345679}]}"#;
        assert_eq!(ParsedSchema::parse(text).unwrap().text, text);
    }

    #[test]
    fn decimals_may_have_defaults() {
        let schema = |default: &str| {
            format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"d","type":{{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}},"default":{default}}}]}}"#
            )
        };
        let text = schema(r#""\u0001""#);
        let parsed = ParsedSchema::parse(&text).unwrap();
        assert!(parsed.identity.contains("decimal"), "{}", parsed.identity);
        assert_ne!(parsed.identity, identity(&schema(r#""\u0002""#)));
        assert_eq!(ParsedSchema::parse(&schema("1.5")).unwrap_err().code, 42201);
    }

    #[test]
    fn what_readers_rely_on_does_count() {
        let plain = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
        for other in [
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":1}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","doc":"d"}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"int","logicalType":"date"}}]}"#,
            r#"{"type":"record","name":"R","aliases":["Q"],"fields":[{"name":"a","type":"int"}]}"#,
        ] {
            assert_ne!(identity(plain), identity(other), "{other}");
        }
    }

    #[test]
    fn data_in_a_default_is_not_taken_for_a_schema() {
        let schema = |default: &str| {
            format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"m","type":{{"type":"map","values":"string"}},"default":{default}}}]}}"#
            )
        };
        let wrapped = identity(&schema(r#"{"type":"string"}"#));
        assert!(
            wrapped.contains(r#""default":{"type":"string"}"#),
            "{wrapped}"
        );
    }

    #[test]
    fn bare_type_names_are_schemas_and_nonsense_is_not() {
        assert_eq!(identity("string"), r#""string""#);
        for text in [
            "",
            "{",
            "strin",
            r#"{"type":"record","name":"R"}"#,
            r#"{"type":"nope"}"#,
            "12",
        ] {
            assert_eq!(ParsedSchema::parse(text).unwrap_err().code, 42201, "{text}");
        }
    }
}
