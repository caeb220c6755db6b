//! Types that a schema takes from other subjects: put into the schema itself, so that whoever reads it needs no registry.
//!
//! Record bytes do not tell where a type was defined, so the complete schema reads and writes what the registered one does; the id stays that of
//! the registered one. Names follow the Avro specification, 1.12, "Names": a name without a dot belongs to the namespace around it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// The names of types that need no definition.
const PRIMITIVES: [&str; 8] = [
    "null", "boolean", "int", "long", "float", "double", "bytes", "string",
];

/// The schema with each type that it names and does not define taken from `parts`, at the place where it is named first. What no part
/// defines stays a name. The error says which text is no JSON.
pub(crate) fn complete(schema: &str, parts: &[String]) -> Result<String, serde_json::Error> {
    let mut root: Value = serde_json::from_str(schema)?;
    let mut known = HashMap::new();
    for part in parts {
        let mut part: Value = serde_json::from_str(part)?;
        qualify(&mut part, "", &mut |name, definition| {
            known.insert(name, definition);
        });
    }
    let mut defined = HashSet::new();
    qualify(&mut root, "", &mut |_, _| {});
    expand(&mut root, &known, &mut defined);
    Ok(root.to_string())
}

/// Writes every name in full, and tells of each type that is defined, those inside it first.
fn qualify(schema: &mut Value, namespace: &str, tell: &mut impl FnMut(String, Value)) {
    match schema {
        Value::String(name) if !PRIMITIVES.contains(&name.as_str()) => {
            *name = full_name(name, namespace);
        }
        Value::Array(branches) => {
            for branch in branches {
                qualify(branch, namespace, tell);
            }
        }
        Value::Object(object) => match kind(object) {
            "record" | "error" | "enum" | "fixed" => qualify_named(object, namespace, tell),
            "array" => qualify_part(object, "items", namespace, tell),
            "map" => qualify_part(object, "values", namespace, tell),
            _ => qualify_part(object, "type", namespace, tell),
        },
        _ => {}
    }
}

fn qualify_part(
    object: &mut Map<String, Value>,
    part: &str,
    namespace: &str,
    tell: &mut impl FnMut(String, Value),
) {
    if let Some(part) = object.get_mut(part) {
        qualify(part, namespace, tell);
    }
}

fn qualify_named(
    object: &mut Map<String, Value>,
    namespace: &str,
    tell: &mut impl FnMut(String, Value),
) {
    let given = object.get("namespace").and_then(Value::as_str);
    let name = object
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let full = full_name(name, given.unwrap_or(namespace));
    let inside = full
        .rsplit_once('.')
        .map_or("", |(namespace, _)| namespace)
        .to_owned();
    let simple = full.rsplit('.').next().unwrap_or_default().to_owned();
    object.insert("name".into(), simple.into());
    // Also where it is none: the schema around it may have one.
    object.insert("namespace".into(), inside.as_str().into());
    let fields = object.get_mut("fields").and_then(Value::as_array_mut);
    for field in fields.into_iter().flatten() {
        if let Some(schema) = field.get_mut("type") {
            qualify(schema, &inside, tell);
        }
    }
    tell(full, Value::Object(object.clone()));
}

/// Puts definitions where names stand that are not `defined` before. All names are written in full.
fn expand(schema: &mut Value, known: &HashMap<String, Value>, defined: &mut HashSet<String>) {
    match schema {
        Value::String(name) => {
            if !defined.contains(name)
                && let Some(definition) = known.get(name)
            {
                *schema = definition.clone();
                expand(schema, known, defined);
            }
        }
        Value::Array(branches) => {
            for branch in branches {
                expand(branch, known, defined);
            }
        }
        Value::Object(object) => match kind(object) {
            "record" | "error" | "enum" | "fixed" => {
                let full = own_name(object);
                if !defined.insert(full.clone()) {
                    // A part brought it too.
                    *schema = full.into();
                    return;
                }
                let fields = object.get_mut("fields").and_then(Value::as_array_mut);
                for field in fields.into_iter().flatten() {
                    expand_part(field.as_object_mut(), "type", known, defined);
                }
            }
            "array" => expand_part(Some(object), "items", known, defined),
            "map" => expand_part(Some(object), "values", known, defined),
            _ => expand_part(Some(object), "type", known, defined),
        },
        _ => {}
    }
}

fn expand_part(
    object: Option<&mut Map<String, Value>>,
    part: &str,
    known: &HashMap<String, Value>,
    defined: &mut HashSet<String>,
) {
    if let Some(part) = object.and_then(|object| object.get_mut(part)) {
        expand(part, known, defined);
    }
}

/// The `type` of a schema that is written as an object; empty where that is a schema itself.
fn kind(object: &Map<String, Value>) -> &str {
    object
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The full name of a definition whose name and namespace were qualified.
fn own_name(object: &Map<String, Value>) -> String {
    let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
    full_name(text("name"), text("namespace"))
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(schema: &Value, parts: &[Value]) -> Value {
        let parts: Vec<String> = parts.iter().map(Value::to_string).collect();
        serde_json::from_str(&complete(&schema.to_string(), &parts).unwrap()).unwrap()
    }

    #[test]
    fn a_type_is_defined_where_it_is_named_first() {
        let money = json!({"type": "record", "name": "Money", "namespace": "acme", "fields": [
            {"name": "amount", "type": "long"}, {"name": "currency", "type": "Currency"}]});
        let currency = json!({"type": "enum", "name": "acme.Currency", "symbols": ["EUR"]});
        let order = json!({"type": "record", "name": "Order", "namespace": "acme", "fields": [
            {"name": "price", "type": "Money"},
            {"name": "tip", "type": ["null", "acme.Money"], "default": null},
            {"name": "all", "type": {"type": "array", "items": "Currency"}}]});
        let found = completed(&order, &[currency, money]);
        let fields = &found["fields"];
        assert_eq!(fields[0]["type"]["name"], "Money");
        assert_eq!(fields[0]["type"]["fields"][1]["type"]["symbols"][0], "EUR");
        assert_eq!(fields[1]["type"], json!(["null", "acme.Money"]));
        assert_eq!(fields[1]["default"], Value::Null);
        assert_eq!(fields[2]["type"]["items"], "acme.Currency");
    }

    #[test]
    fn a_type_without_a_namespace_takes_none_from_around_it() {
        let plain = json!({"type": "fixed", "name": "Id", "size": 16});
        let order = json!({"type": "record", "name": "acme.Order", "fields": [
            {"name": "id", "type": {"type": "map", "values": "Id"}}]});
        // Inside a namespace the name means acme.Id, which nobody defines.
        let found = completed(&order, std::slice::from_ref(&plain));
        assert_eq!(found["fields"][0]["type"]["values"], "acme.Id");
        let order =
            json!({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "Id"}]});
        let found = completed(&order, &[plain]);
        assert_eq!(found["fields"][0]["type"]["namespace"], "");
        assert_eq!(found["fields"][0]["type"]["size"], 16);
    }

    #[test]
    fn types_may_name_themselves() {
        let node = json!({"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"]}]});
        let list = json!({"type": "record", "name": "List", "fields": [
            {"name": "first", "type": "Node"}, {"name": "last", "type": "Node"}]});
        let found = completed(&list, &[node]);
        assert_eq!(found["fields"][0]["type"]["fields"][0]["type"][1], "Node");
        assert_eq!(found["fields"][1]["type"], "Node");
    }

    #[test]
    fn a_type_that_several_parts_bring_is_defined_once() {
        let inner = json!({"type": "fixed", "name": "Id", "size": 4});
        let part = |name: &str| json!({"type": "record", "name": name, "fields": [{"name": "id", "type": inner}]});
        let both = json!({"type": "record", "name": "Both", "fields": [
            {"name": "a", "type": "A"}, {"name": "b", "type": "B"}]});
        let found = completed(&both, &[part("A"), part("B")]);
        assert_eq!(found["fields"][0]["type"]["fields"][0]["type"]["size"], 4);
        assert_eq!(found["fields"][1]["type"]["fields"][0]["type"], "Id");
    }
}
