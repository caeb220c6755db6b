//! Attributes that stand in the type of a field, as if they stood on the field.
//!
//! Avro lets every type have attributes (specification 1.12, "Schema Declaration"), and people write them where the type is said, or get them there by a
//! generator. The crate that parses schemas drops those of primitive types, so they are moved before it sees them. A type that is used again by its name
//! says what it says wherever it is used.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::attributes::PREFIX;

/// Moves them, in all records of a schema. What is said twice, and differently, is the result: the first such thing, for people.
pub(super) fn lift(schema: &mut Value) -> Option<String> {
    let mut lift = Lift::default();
    // A type that is in no field has none to say it of.
    lift.take(schema, "", &mut Map::new());
    lift.conflict
}

#[derive(Debug, Default)]
struct Lift {
    /// What types with a name say, by their full names.
    named: HashMap<String, Map<String, Value>>,
    conflict: Option<String>,
    /// Whether the field that this is about is named in it.
    has_name: bool,
}

impl Lift {
    /// Takes what a type says, with the types in it but for the fields of records, which keep what is theirs.
    fn take(&mut self, schema: &mut Value, namespace: &str, said: &mut Map<String, Value>) {
        match schema {
            Value::String(name) => {
                if let Some(known) = self.named.get(&full_name(name, namespace)) {
                    let known = known.clone();
                    self.merge(known, said);
                }
            }
            Value::Array(branches) => {
                for branch in branches {
                    self.take(branch, namespace, said);
                }
            }
            Value::Object(object) => self.take_object(object, namespace, said),
            _ => {}
        }
    }

    fn take_object(
        &mut self,
        object: &mut Map<String, Value>,
        namespace: &str,
        said: &mut Map<String, Value>,
    ) {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let own_namespace = text("namespace").unwrap_or(namespace);
        let name = text("name").map(|name| full_name(name, own_namespace));
        if text("type") == Some("record") {
            let inside = match name.as_deref().and_then(|name| name.rsplit_once('.')) {
                Some((inside, _)) => inside.to_owned(),
                None => String::new(),
            };
            let fields = object.get_mut("fields").and_then(Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                self.field(field, &inside);
            }
            return;
        }
        let is_said = |(name, _): &(&String, &Value)| name.starts_with(PREFIX);
        let names = object.iter().filter(is_said).map(|(name, _)| name.clone());
        let names: Vec<String> = names.collect();
        let own = names
            .into_iter()
            .filter_map(|name| object.remove_entry(&name));
        let own: Map<String, Value> = own.collect();
        if let Some(name) = name {
            self.named.insert(name, own.clone());
        }
        self.merge(own, said);
        for part in ["type", "items", "values"] {
            if let Some(part) = object.get_mut(part) {
                self.take(part, namespace, said);
            }
        }
    }

    fn field(&mut self, field: &mut Value, namespace: &str) {
        let Value::Object(field) = field else {
            return;
        };
        let mut said = Map::new();
        if let Some(schema) = field.get_mut("type") {
            self.take(schema, namespace, &mut said);
        }
        self.merge(said, field);
        if let Some(conflict) = self.conflict.as_mut().filter(|_| !self.has_name) {
            let name = field.get("name").and_then(Value::as_str);
            *conflict = format!("the field `{}` {conflict}", name.unwrap_or_default());
            self.has_name = true;
        }
    }

    /// Adds what is said to what was; the first thing stays.
    fn merge(&mut self, said: Map<String, Value>, known: &mut Map<String, Value>) {
        for (name, value) in said {
            match known.get(&name) {
                Some(other) if *other != value => {
                    let conflict = || {
                        format!("has the attribute {name} twice: {other} and, in its type, {value}")
                    };
                    self.conflict.get_or_insert_with(conflict);
                }
                Some(_) => {}
                None => {
                    known.insert(name, value);
                }
            }
        }
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}
