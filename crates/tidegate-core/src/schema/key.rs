//! Keys with a schema: found by it as values are, or given one of the types that their columns have in the value.
//!
//! A key of one column is compiled as a record with that one field: Avro's binary form of a record is that of its fields, one behind the other
//! (specification 1.12, "Complex Types").

use apache_avro::Schema;
use serde_json::{Map, Value, json};

use super::attributes::{COLUMN_ATTRIBUTE, PREFIX};
use super::avro::AvroSchema;
use super::{FieldColumn, PlanRequest, RecordPlan, Shape, compile as compile_value};
use crate::encode::{Op, ValueFormat, cells};
use crate::infer::legal_name;
use crate::key::{KeyCell, KeyChoice, KeyFormat, KeyPlan, KeyReason, TypedKey};
use crate::{Error, Result};

const HINT: &str = "a schema of its own says what the key is (--key-schema)";
const PRIMITIVES: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];
/// What takes further types, and is no name.
const COMPLEX: [&str; 5] = ["record", "enum", "array", "map", "fixed"];

/// Adds to a key of columns how it is written. `fields` are those of the value.
pub(super) fn compile(
    request: &PlanRequest<'_>,
    fields: &[FieldColumn],
    key: KeyPlan,
) -> Result<KeyPlan> {
    let format = match request.key_format {
        KeyFormat::Text if request.key_schema.is_some() => {
            return Err(Error::option(
                "the key has a schema, and keys that are text have none: --key-format says avro or json",
            ));
        }
        KeyFormat::Text => return Ok(key),
        KeyFormat::Avro => ValueFormat::Avro,
        KeyFormat::Json => ValueFormat::Json,
    };
    let has_own_columns = request.key_schema.is_some() && *request.key == KeyChoice::Default;
    if key.columns.is_empty() && !has_own_columns {
        return Err(Error::option(
            "the key is to have a schema, and records have no key: --key names its columns",
        ));
    }
    let schema_json = match request.key_schema {
        Some(schema) => schema.to_owned(),
        None => derive(request, fields, &key.columns)?,
    };
    typed(request, schema_json, format, key).map_err(|error| {
        let message = format!("the schema of the key: {}", error.message());
        Error::new(error.kind(), message)
    })
}

/// Compiles the schema.
fn typed(
    request: &PlanRequest<'_>,
    schema_json: String,
    format: ValueFormat,
    key: KeyPlan,
) -> Result<KeyPlan> {
    let names = request.header.names();
    let avro = AvroSchema::parse(&schema_json)?;
    let mut map = Vec::new();
    let (record, is_record) = match avro.resolve(avro.root(), &None)?.0 {
        Schema::Record(record) => {
            let is_own = |path: &str| {
                let name = path.split('.').next().unwrap_or(path);
                record.fields.iter().any(|field| field.name == name)
            };
            map.extend(request.map.iter().filter(|(path, _)| is_own(path)).cloned());
            (schema_json.clone(), true)
        }
        _ => match key.columns[..] {
            [column] => (in_record(&schema_json, &names[column]), false),
            _ => {
                return Err(Error::schema(format!(
                    "the key has {} columns, and only a record holds several",
                    key.columns.len()
                )));
            }
        },
    };
    let plan = compile_value::compile(&PlanRequest {
        schema: &record,
        format,
        key: &KeyChoice::None,
        key_format: KeyFormat::Text,
        key_schema: None,
        map: &map,
        set: &[],
        mark_last: None,
        headers: &[],
        group_by: &[],
        ..*request
    })?;
    let (columns, reason) = columns_of(&plan, request, key)?;
    let Shape::Row { ops } = plan.shape else {
        return Err(Error::internal("a key was compiled as a group"));
    };
    let ops = if is_record || format == ValueFormat::Avro {
        ops
    } else {
        value_of(ops)?
    };
    let cells = cells(&ops).map(|cell| KeyCell {
        columns: cell.columns().into(),
        own_nulls: cell.own_nulls.clone(),
    });
    let typed = TypedKey {
        cells: cells.collect(),
        ops,
        schema_json,
        format,
        iso_times: request.iso_times,
    };
    Ok(KeyPlan {
        columns,
        reason,
        typed: Some(typed),
    })
}

/// The columns of the key: those that were named, which the schema must take, all of them and no others; or those that it takes.
fn columns_of(
    plan: &RecordPlan,
    request: &PlanRequest<'_>,
    key: KeyPlan,
) -> Result<(Vec<usize>, KeyReason)> {
    let mut taken: Vec<usize> = Vec::new();
    for field in &plan.field_columns {
        if !taken.contains(&field.column) {
            taken.push(field.column);
        }
    }
    let is_same =
        taken.len() == key.columns.len() && taken.iter().all(|column| key.columns.contains(column));
    if is_same {
        return Ok((key.columns, key.reason));
    }
    let is_said = matches!(request.key, KeyChoice::Columns(_)) || request.key_schema.is_none();
    if taken.is_empty() || is_said {
        let names = |columns: &[usize]| {
            let names = columns
                .iter()
                .map(|column| request.header.names()[*column].as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let found = match &taken[..] {
            [] => "none".to_owned(),
            taken => names(taken),
        };
        return Err(Error::schema(format!(
            "its fields take the columns {found}, and the key is {}: {HINT}",
            names(&key.columns)
        )));
    }
    Ok((taken, KeyReason::KeySchema))
}

/// What stands between the braces and behind the name of an object's one field.
fn value_of(mut ops: Vec<Op>) -> Result<Vec<Op>> {
    match &ops[..] {
        [Op::Constant(_), _, Op::Constant(_)] => {
            ops.pop();
            ops.remove(0);
            Ok(ops)
        }
        _ => Err(Error::internal("a key of one column is no single value")),
    }
}

/// A record of one field of this type. What the type says of its cells is said of the field, as in any record; it may also say its column.
fn in_record(schema_json: &str, column: &str) -> String {
    let schema: Value =
        serde_json::from_str(schema_json).unwrap_or_else(|_| Value::String(schema_json.to_owned()));
    let mut field = json!({"name": "key"});
    if schema.get(COLUMN_ATTRIBUTE).is_none() {
        field[COLUMN_ATTRIBUTE] = json!(column);
    }
    field["type"] = schema;
    json!({"type": "record", "name": "TidegateKey", "fields": [field]}).to_string()
}

/// The schema of a key, from the types that its columns have in the value; a column that is in no field is text.
fn derive(request: &PlanRequest<'_>, fields: &[FieldColumn], columns: &[usize]) -> Result<String> {
    let value: Value = serde_json::from_str(request.schema).map_err(|error| {
        Error::schema(format!("the schema is not JSON: {error}")).with_source(error)
    })?;
    let names = request.header.names();
    let mut parts = Vec::new();
    for &column in columns {
        let field = fields.iter().find(|field| field.column == column);
        let known = match field {
            Some(field) => known_field(&value, field, &names[column])?,
            None => json!({"type": "string"}).as_object().cloned(),
        };
        parts.push((&names[column], known.unwrap_or_default()));
    }
    if let [(_, field)] = &mut parts[..] {
        return Ok(single(std::mem::take(field)).to_string());
    }
    let fields = parts
        .into_iter()
        .enumerate()
        .map(|(index, (column, part))| {
            let mut field = Map::new();
            let name = match part.get("name") {
                Some(name) => name.clone(),
                None => {
                    json!(legal_name(column).unwrap_or_else(|| format!("column_{}", index + 1)))
                }
            };
            if name != json!(column) {
                field.insert(COLUMN_ATTRIBUTE.to_owned(), json!(column));
            }
            field.insert("name".to_owned(), name);
            field.extend(part.into_iter().filter(|(name, _)| name != "name"));
            Value::Object(field)
        });
    let name = value["name"].as_str().unwrap_or("Record");
    let mut record = json!({
        "type": "record",
        "name": format!("{name}Key"),
        "fields": fields.collect::<Vec<_>>(),
    });
    if let Some(namespace) = value.get("namespace") {
        record["namespace"] = namespace.clone();
    }
    Ok(record.to_string())
}

/// The schema of a key of one column: the type of its field, never null, for the key of a record is null then.
fn single(mut field: Map<String, Value>) -> Value {
    let mut schema = match field.remove("type") {
        Some(Value::Array(mut branches)) => {
            branches.retain(|branch| branch != "null");
            match &mut branches[..] {
                [only] => only.take(),
                _ => Value::Array(branches),
            }
        }
        other => other.unwrap_or_default(),
    };
    let said: Map<String, Value> = field
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name != COLUMN_ATTRIBUTE)
        .collect();
    if said.is_empty() {
        return schema;
    }
    if !schema.is_object() {
        schema = json!({ "type": schema });
    }
    if let Value::Object(object) = &mut schema {
        object.extend(said);
    }
    schema
}

/// The field of the value that takes a column: its name, its type, and what it says of its cells.
fn known_field(
    value: &Value,
    field: &FieldColumn,
    column: &str,
) -> Result<Option<Map<String, Value>>> {
    let named_elsewhere = || {
        Error::schema(format!(
            "the type of the column `{column}` is defined elsewhere in the schema, so the key's is not made of it: {HINT}"
        ))
    };
    let mut path: Vec<&str> = field.field.split('.').collect();
    path.splice(0..0, field.array.as_deref());
    let mut record = value;
    let mut namespace = record.get("namespace").cloned();
    let mut found = None;
    for name in path {
        let fields = record["fields"].as_array();
        let mut fields = fields.into_iter().flatten();
        let part = fields.find(|part| part["name"] == name);
        let part = part.ok_or_else(named_elsewhere)?;
        record = record_inside(&part["type"]).unwrap_or(&Value::Null);
        namespace = record.get("namespace").cloned().or(namespace);
        found = part.as_object();
    }
    let Some(found) = found else {
        return Ok(None);
    };
    let is_said = |name: &str| matches!(name, "name" | "type") || name.starts_with(PREFIX);
    let mut own: Map<String, Value> = found
        .iter()
        .filter(|(name, _)| is_said(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let schema = own.get_mut("type").ok_or_else(named_elsewhere)?;
    if has_reference(schema) {
        return Err(named_elsewhere());
    }
    if let Some(namespace) = namespace {
        put_into(&namespace, schema);
    }
    Ok(Some(own))
}

/// The record in a type: itself, that of its items, or that of its branches.
fn record_inside(schema: &Value) -> Option<&Value> {
    match schema {
        Value::Array(branches) => branches.iter().find_map(record_inside),
        Value::Object(object) => match object.get("type").and_then(Value::as_str) {
            Some("record") => Some(schema),
            Some("array") => record_inside(&object["items"]),
            _ => record_inside(object.get("type")?),
        },
        _ => None,
    }
}

/// Whether a type is, or holds, one that is named only.
fn has_reference(schema: &Value) -> bool {
    match schema {
        Value::String(name) => !PRIMITIVES.contains(&&**name) && !COMPLEX.contains(&&**name),
        Value::Array(branches) => branches.iter().any(has_reference),
        Value::Object(object) => {
            let parts = ["type", "items", "values"];
            let mut parts = parts.iter().filter_map(|part| object.get(*part));
            let fields = object.get("fields").and_then(Value::as_array);
            parts.any(has_reference) || fields.into_iter().flatten().any(has_reference)
        }
        _ => false,
    }
}

/// Gives named types that say no namespace the one they stand in.
fn put_into(namespace: &Value, schema: &mut Value) {
    match schema {
        Value::Array(branches) => {
            for branch in branches {
                put_into(namespace, branch);
            }
        }
        Value::Object(object) => {
            let name = object.get("name").and_then(Value::as_str);
            if name.is_some_and(|name| !name.contains('.')) {
                object
                    .entry("namespace")
                    .or_insert_with(|| namespace.clone());
            } else {
                for part in ["type", "items", "values"] {
                    if let Some(part) = object.get_mut(part) {
                        put_into(namespace, part);
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
