//! A parsed Avro schema whose named types can be looked up.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{FixedSchema, Name, Namespace, RecordField};

use super::lift::lift;
use crate::encode::time::TimeUnit;
use crate::encode::value::TimeType;
use crate::{Error, Result};

/// A parsed schema, with its named types.
#[derive(Debug, Clone)]
pub(crate) struct AvroSchema {
    root: Schema,
    names: HashMap<Name, Schema>,
    /// What the attributes of a field contradict each other in.
    conflict: Option<String>,
}

impl AvroSchema {
    /// Parses a schema in its JSON form. References to names defined inside it are known afterwards; others are errors.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let invalid = |error: apache_avro::Error| {
            Error::schema(format!("the schema is not valid Avro: {error}")).with_source(error)
        };
        let mut conflict = None;
        let root = match serde_json::from_str(json) {
            Ok(mut value) => {
                conflict = lift(&mut value);
                keep_fixed(&mut value);
                keep_defaults(&mut value, &mut HashSet::new());
                Schema::parse(&value).map_err(invalid)?
            }
            Err(_) => Schema::parse_str(json).map_err(invalid)?,
        };
        let mut names = HashMap::new();
        collect_names(&root, &None, &mut names);
        Ok(Self {
            root,
            names,
            conflict,
        })
    }

    /// The attributes of each field must agree with those of its type. Only who fills fields asks: records can be shown whatever is said of cells.
    pub(super) fn check_attributes(&self) -> Result<()> {
        match &self.conflict {
            None => Ok(()),
            Some(conflict) => Err(Error::schema(conflict.clone())),
        }
    }

    pub(crate) fn root(&self) -> &Schema {
        &self.root
    }

    /// Follows a reference; any other schema is returned as it is. `namespace` is the one of the enclosing named type, and comes back as
    /// the one that holds inside the result.
    pub(crate) fn resolve<'a>(
        &'a self,
        schema: &'a Schema,
        namespace: &Namespace,
    ) -> Result<(&'a Schema, Namespace)> {
        let schema = match schema {
            Schema::Ref { name } => {
                let full = name.fully_qualified_name(namespace);
                let known = self.names.get(&full);
                known.ok_or_else(|| {
                    Error::schema(format!(
                        "the schema refers to `{full}`, which it does not define"
                    ))
                })?
            }
            schema => schema,
        };
        let inside = match schema.name() {
            Some(name) => name.fully_qualified_name(namespace).namespace,
            None => namespace.clone(),
        };
        Ok((schema, inside))
    }
}

/// Where the logical type of a fixed type stands that is known to this crate alone.
const LOGICAL_TYPE: &str = "tidegate-logical-type";

/// Whether a fixed type holds a duration.
pub(crate) fn is_duration(fixed: &FixedSchema) -> bool {
    fixed.size == 12 && logical_type(fixed) == Some("duration")
}

/// The logical type of a fixed type, where it is one of those that are kept here.
pub(super) fn logical_type(fixed: &FixedSchema) -> Option<&str> {
    fixed.attributes.get(LOGICAL_TYPE)?.as_str()
}

/// Moves the logical types uuid and duration of fixed types out of the way: of them the crate that parses schemas keeps neither the size nor
/// the name, and takes a fixed uuid for a string.
fn keep_fixed(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Array(parts) => parts.iter_mut().for_each(keep_fixed),
        serde_json::Value::Object(object) => {
            let is = |key: &str, names: &[&str]| {
                let text = object.get(key).and_then(serde_json::Value::as_str);
                text.is_some_and(|text| names.contains(&text))
            };
            if is("type", &["fixed"])
                && is("logicalType", &["uuid", "duration"])
                && let Some(name) = object.remove("logicalType")
            {
                object.insert(LOGICAL_TYPE.into(), name);
            }
            let parts = ["type", "items", "values", "fields"];
            for (_, part) in object
                .iter_mut()
                .filter(|(key, _)| parts.contains(&key.as_str()))
            {
                keep_fixed(part);
            }
        }
        _ => {}
    }
}

/// Where the default of a field with a decimal in it stands.
const DEFAULT: &str = "tidegate-default";

/// The default of a field.
pub(super) fn default_of(field: &RecordField) -> Option<&serde_json::Value> {
    let own = field.default.as_ref();
    own.or_else(|| field.custom_attributes.get(DEFAULT))
}

/// Moves defaults of fields that hold decimals out of the way: the crate that parses schemas takes none of the texts that Avro has for them. Whether a
/// type holds one is the result; `known` are the last parts of the names of those that do, for types that are used by name.
fn keep_defaults(schema: &mut serde_json::Value, known: &mut HashSet<String>) -> bool {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    match schema {
        serde_json::Value::String(name) => known.contains(&last(name)),
        serde_json::Value::Array(parts) => {
            let mut found = false;
            for part in parts {
                found |= keep_defaults(part, known);
            }
            found
        }
        serde_json::Value::Object(object) => {
            let mut found = object
                .get("logicalType")
                .is_some_and(|name| name == "decimal");
            for part in ["type", "items", "values"] {
                found |= object
                    .get_mut(part)
                    .is_some_and(|part| keep_defaults(part, known));
            }
            let fields = object
                .get_mut("fields")
                .and_then(serde_json::Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                if keep_defaults(field, known) {
                    found = true;
                    if let Some(object) = field.as_object_mut()
                        && let Some(default) = object.remove("default")
                    {
                        object.insert(DEFAULT.into(), default);
                    }
                }
            }
            let name = object.get("name").and_then(serde_json::Value::as_str);
            if let Some(name) = name.filter(|_| found) {
                known.insert(last(name));
            }
            found
        }
        _ => false,
    }
}

fn collect_names(schema: &Schema, namespace: &Namespace, names: &mut HashMap<Name, Schema>) {
    let mut inside = namespace.clone();
    if let Schema::Decimal(decimal) = schema
        && let Some(name) = decimal.inner.name()
    {
        // The name is that of the fixed type that it stands in.
        names.insert(name.fully_qualified_name(namespace), schema.clone());
    }
    if let Some(name) = schema.name()
        && !matches!(schema, Schema::Ref { .. })
    {
        let full = name.fully_qualified_name(namespace);
        inside.clone_from(&full.namespace);
        names.insert(full, schema.clone());
    }
    match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                collect_names(&field.schema, &inside, names);
            }
        }
        Schema::Array(array) => collect_names(&array.items, &inside, names),
        Schema::Map(map) => collect_names(&map.types, &inside, names),
        Schema::Union(union) => {
            for variant in union.variants() {
                collect_names(variant, &inside, names);
            }
        }
        _ => {}
    }
}

/// What a type counts, where it holds times.
pub(crate) fn time_type(schema: &Schema) -> Option<TimeType> {
    use TimeUnit::{Microseconds, Milliseconds, Nanoseconds};
    Some(match schema {
        Schema::Date => TimeType::Date,
        Schema::TimeMillis => TimeType::TimeOfDay(Milliseconds),
        Schema::TimeMicros => TimeType::TimeOfDay(Microseconds),
        Schema::TimestampMillis => TimeType::Timestamp(Milliseconds),
        Schema::TimestampMicros => TimeType::Timestamp(Microseconds),
        Schema::TimestampNanos => TimeType::Timestamp(Nanoseconds),
        Schema::LocalTimestampMillis => TimeType::LocalTimestamp(Milliseconds),
        Schema::LocalTimestampMicros => TimeType::LocalTimestamp(Microseconds),
        Schema::LocalTimestampNanos => TimeType::LocalTimestamp(Nanoseconds),
        _ => return None,
    })
}

/// The name of a type as schemas write it.
pub(crate) fn type_name(schema: &Schema) -> String {
    match schema {
        Schema::Null => "null".into(),
        Schema::Boolean => "boolean".into(),
        Schema::Int => "int".into(),
        Schema::Long => "long".into(),
        Schema::Float => "float".into(),
        Schema::Double => "double".into(),
        Schema::Bytes => "bytes".into(),
        Schema::String => "string".into(),
        Schema::Array(array) => format!("array of {}", type_name(&array.items)),
        Schema::Map(map) => format!("map of {}", type_name(&map.types)),
        Schema::Union(union) => {
            let variants: Vec<_> = union.variants().iter().map(type_name).collect();
            format!("union of {}", variants.join(", "))
        }
        Schema::Record(record) => format!("record {}", record.name.name),
        Schema::Enum(symbols) => format!("enum {}", symbols.name.name),
        Schema::Fixed(fixed) => format!("fixed {}", fixed.name.name),
        Schema::Decimal(_) => "decimal".into(),
        Schema::BigDecimal => "big-decimal".into(),
        Schema::Uuid => "uuid".into(),
        Schema::Date => "date".into(),
        Schema::TimeMillis => "time-millis".into(),
        Schema::TimeMicros => "time-micros".into(),
        Schema::TimestampMillis => "timestamp-millis".into(),
        Schema::TimestampMicros => "timestamp-micros".into(),
        Schema::TimestampNanos => "timestamp-nanos".into(),
        Schema::LocalTimestampMillis => "local-timestamp-millis".into(),
        Schema::LocalTimestampMicros => "local-timestamp-micros".into(),
        Schema::LocalTimestampNanos => "local-timestamp-nanos".into(),
        Schema::Duration => "duration".into(),
        Schema::Ref { name } => name.name.clone(),
    }
}

/// The full name of a schema's record, as registries name subjects by it.
///
/// # Errors
/// [`ErrorKind::Schema`](crate::ErrorKind::Schema) when the schema is not JSON, or no record with a name.
pub fn record_name(schema: &str) -> Result<String> {
    let schema: serde_json::Value = serde_json::from_str(schema).map_err(|error| {
        Error::schema(format!("the schema is not JSON: {error}")).with_source(error)
    })?;
    let text = |key: &str| schema.get(key).and_then(serde_json::Value::as_str);
    let name = text("name").ok_or_else(|| Error::schema("the schema has no name"))?;
    Ok(match text("namespace") {
        Some(namespace) if !namespace.is_empty() && !name.contains('.') => {
            format!("{namespace}.{name}")
        }
        _ => name.to_owned(),
    })
}
