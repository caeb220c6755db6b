//! Decides whether data written with one schema can be read with another, by Avro's rules of schema resolution
//! (Avro specification 1.12, "Schema Resolution").
//!
//! Both schemas are first flattened into a [`Shape`] in which every name is resolved and every logical type is its underlying type, since
//! resolution looks at neither. (The check in the `apache-avro` crate calls a decimal unreadable as the very same decimal and compares a named type
//! with a reference to it by spelling; hence our own.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{Name, Namespace};

/// How many reasons an answer lists at most.
const MAX_MESSAGES: usize = 20;

/// What a subject demands of a new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Level {
    /// Anything goes.
    None,
    /// The new schema reads what the latest version wrote.
    #[default]
    Backward,
    /// The new schema reads what any version wrote.
    BackwardTransitive,
    /// The latest version reads what the new schema writes.
    Forward,
    /// Every version reads what the new schema writes.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Backward and forward with every version.
    FullTransitive,
}

const LEVELS: [(Level, &str); 7] = [
    (Level::None, "NONE"),
    (Level::Backward, "BACKWARD"),
    (Level::BackwardTransitive, "BACKWARD_TRANSITIVE"),
    (Level::Forward, "FORWARD"),
    (Level::ForwardTransitive, "FORWARD_TRANSITIVE"),
    (Level::Full, "FULL"),
    (Level::FullTransitive, "FULL_TRANSITIVE"),
];

impl Level {
    /// The level of that name, in any case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        LEVELS
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(level, _)| *level)
    }

    /// Whether all versions count, and not the latest alone.
    pub(super) fn is_transitive(self) -> bool {
        matches!(
            self,
            Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive
        )
    }

    /// Checks `candidate` against one earlier schema; the answer lists what is wrong and is empty if all is well.
    pub(super) fn check(self, candidate: &Schema, earlier: &Schema) -> Vec<String> {
        let backward = matches!(
            self,
            Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive
        );
        let forward = matches!(
            self,
            Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive
        );
        let mut messages = Vec::new();
        if backward {
            let found = reader_problems(candidate, earlier);
            messages.extend(
                found
                    .into_iter()
                    .map(|what| format!("the new schema cannot read old data: {what}")),
            );
        }
        if forward {
            let found = reader_problems(earlier, candidate);
            messages.extend(
                found
                    .into_iter()
                    .map(|what| format!("the old schema cannot read new data: {what}")),
            );
        }
        messages
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = LEVELS.iter().find(|(level, _)| level == self);
        f.write_str(known.map_or("NONE", |(_, name)| name))
    }
}

/// Why data of `writer` cannot be read with `reader`; empty if it can.
fn reader_problems(reader: &Schema, writer: &Schema) -> Vec<String> {
    let reader = Shape::of(reader);
    let writer = Shape::of(writer);
    let mut check = Check {
        reader: &reader,
        writer: &writer,
        open: BTreeSet::new(),
        readable: BTreeSet::new(),
        found_readable: Vec::new(),
        unreadable: BTreeSet::new(),
    };
    let mut messages = Vec::new();
    check.can_read(reader.root, writer.root, "", &mut messages);
    messages
}

/// A schema as a graph: nodes refer to each other by index, so that recursive types need no special care.
struct Shape {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    root: usize,
}

enum Node {
    /// Null, boolean, int, long, float, double, bytes or string.
    Primitive(&'static str),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record {
        name: Named,
        fields: Vec<Field>,
    },
    Enum {
        name: Named,
        symbols: Vec<String>,
        has_default: bool,
    },
    Fixed {
        name: Option<Named>,
        size: usize,
    },
}

/// A name without its namespace (resolution compares those) and its aliases, in full and bare.
struct Named {
    bare: String,
    full: String,
    aliases: Vec<String>,
}

impl Named {
    /// Whether a reader's type of this name takes a writer's type of that name.
    fn takes(&self, writer: &Self) -> bool {
        self.bare == writer.bare
            || self
                .aliases
                .iter()
                .any(|alias| *alias == writer.full || *alias == writer.bare)
    }
}

struct Field {
    name: String,
    aliases: Vec<String>,
    has_default: bool,
    node: usize,
}

impl Shape {
    fn of(schema: &Schema) -> Self {
        let mut shape = Self {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            root: 0,
        };
        shape.root = shape.add(schema, &None);
        shape
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Registers a named type before its content is looked at, so that the content may refer to it.
    fn declare(
        &mut self,
        name: &Name,
        aliases: Option<&Vec<apache_avro::schema::Alias>>,
        namespace: &Namespace,
    ) -> (usize, Named, Namespace) {
        let full = name.fully_qualified_name(namespace);
        let inner = full.namespace.clone();
        let named = Named {
            bare: full.name.clone(),
            full: full.fullname(None),
            aliases: aliases
                .into_iter()
                .flatten()
                .map(|alias| alias.fullname(inner.clone()))
                .collect(),
        };
        let index = self.push(Node::Primitive("null"));
        self.names.insert(named.full.clone(), index);
        (index, named, inner)
    }

    fn add(&mut self, schema: &Schema, namespace: &Namespace) -> usize {
        match schema {
            Schema::Null => self.push(Node::Primitive("null")),
            Schema::Boolean => self.push(Node::Primitive("boolean")),
            Schema::Int | Schema::Date | Schema::TimeMillis => self.push(Node::Primitive("int")),
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.push(Node::Primitive("long")),
            Schema::Float => self.push(Node::Primitive("float")),
            Schema::Double => self.push(Node::Primitive("double")),
            Schema::Bytes | Schema::BigDecimal => self.push(Node::Primitive("bytes")),
            Schema::String | Schema::Uuid => self.push(Node::Primitive("string")),
            Schema::Decimal(decimal) => self.add(&decimal.inner, namespace),
            // apache-avro forgets the name of a duration; its size is fixed.
            Schema::Duration => self.push(Node::Fixed {
                name: None,
                size: 12,
            }),
            Schema::Array(array) => {
                let items = self.add(&array.items, namespace);
                self.push(Node::Array(items))
            }
            Schema::Map(map) => {
                let values = self.add(&map.types, namespace);
                self.push(Node::Map(values))
            }
            Schema::Union(union) => {
                let branches = union
                    .variants()
                    .iter()
                    .map(|branch| self.add(branch, namespace))
                    .collect();
                self.push(Node::Union(branches))
            }
            Schema::Ref { name } => {
                let full = name.fully_qualified_name(namespace).fullname(None);
                match self.names.get(&full) {
                    Some(index) => *index,
                    // Cannot happen: the parser refuses names that are not defined.
                    None => self.push(Node::Primitive("null")),
                }
            }
            Schema::Record(_) | Schema::Enum(_) | Schema::Fixed(_) => {
                self.add_named(schema, namespace)
            }
        }
    }

    fn add_named(&mut self, schema: &Schema, namespace: &Namespace) -> usize {
        let (index, node) = match schema {
            Schema::Record(record) => {
                let (index, name, inner) =
                    self.declare(&record.name, record.aliases.as_ref(), namespace);
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push(Field {
                        name: field.name.clone(),
                        aliases: field.aliases.clone().unwrap_or_default(),
                        has_default: field.default.is_some(),
                        node: self.add(&field.schema, &inner),
                    });
                }
                (index, Node::Record { name, fields })
            }
            Schema::Enum(symbols) => {
                let (index, name, _) =
                    self.declare(&symbols.name, symbols.aliases.as_ref(), namespace);
                let node = Node::Enum {
                    name,
                    symbols: symbols.symbols.clone(),
                    has_default: symbols.default.is_some(),
                };
                (index, node)
            }
            Schema::Fixed(fixed) => {
                let (index, name, _) = self.declare(&fixed.name, fixed.aliases.as_ref(), namespace);
                let node = Node::Fixed {
                    name: Some(name),
                    size: fixed.size,
                };
                (index, node)
            }
            _ => return self.add(schema, namespace),
        };
        self.nodes[index] = node;
        index
    }

    /// A node in words, for messages.
    fn describe(&self, index: usize) -> String {
        match &self.nodes[index] {
            Node::Primitive(name) => (*name).to_owned(),
            Node::Array(_) => "array".to_owned(),
            Node::Map(_) => "map".to_owned(),
            Node::Union(branches) => {
                let branches: Vec<String> = branches
                    .iter()
                    .map(|branch| self.describe(*branch))
                    .collect();
                format!("[{}]", branches.join(", "))
            }
            Node::Record { name, .. } => format!("record {}", name.full),
            Node::Enum { name, .. } => format!("enum {}", name.full),
            Node::Fixed { name, size } => {
                format!(
                    "fixed({size}) {}",
                    name.as_ref().map_or("duration", |name| &name.full)
                )
            }
        }
    }
}

/// One comparison. A pair of types that is being compared already counts as readable (a recursive type is readable unless some part of it is not);
/// what was found readable under such an assumption is forgotten again if the assumption turns out wrong.
struct Check<'s> {
    reader: &'s Shape,
    writer: &'s Shape,
    open: BTreeSet<(usize, usize)>,
    readable: BTreeSet<(usize, usize)>,
    /// `readable` in the order in which it was found.
    found_readable: Vec<(usize, usize)>,
    unreadable: BTreeSet<(usize, usize)>,
}

impl Check<'_> {
    fn can_read(
        &mut self,
        reader: usize,
        writer: usize,
        path: &str,
        messages: &mut Vec<String>,
    ) -> bool {
        let pair = (reader, writer);
        if self.open.contains(&pair) || self.readable.contains(&pair) {
            return true;
        }
        if self.unreadable.contains(&pair) {
            self.mismatch(reader, writer, path, messages);
            return false;
        }
        let known_before = self.found_readable.len();
        self.open.insert(pair);
        let readable = self.compare(reader, writer, path, messages);
        self.open.remove(&pair);
        if readable {
            self.readable.insert(pair);
            self.found_readable.push(pair);
        } else {
            for doubtful in self.found_readable.drain(known_before..) {
                self.readable.remove(&doubtful);
            }
            self.unreadable.insert(pair);
        }
        readable
    }

    fn compare(
        &mut self,
        reader: usize,
        writer: usize,
        path: &str,
        messages: &mut Vec<String>,
    ) -> bool {
        let (reader_shape, writer_shape) = (self.reader, self.writer);
        match (&reader_shape.nodes[reader], &writer_shape.nodes[writer]) {
            (_, Node::Union(branches)) => {
                let mut all = true;
                for branch in branches {
                    all &= self.can_read(reader, *branch, path, messages);
                }
                all
            }
            (Node::Union(branches), _) => {
                let mut discarded = Vec::new();
                if branches
                    .iter()
                    .any(|branch| self.can_read(*branch, writer, path, &mut discarded))
                {
                    return true;
                }
                self.mismatch(reader, writer, path, messages)
            }
            (Node::Primitive(to), Node::Primitive(from)) if promotes(from, to) => true,
            (Node::Array(to), Node::Array(from)) => {
                self.can_read(*to, *from, &format!("{path}[]"), messages)
            }
            (Node::Map(to), Node::Map(from)) => {
                self.can_read(*to, *from, &format!("{path}{{}}"), messages)
            }
            (
                Node::Record { name: to, fields },
                Node::Record {
                    name: from,
                    fields: written,
                },
            ) if to.takes(from) => self.can_read_fields(fields, written, path, messages),
            (
                Node::Enum {
                    name: to,
                    symbols,
                    has_default,
                },
                Node::Enum {
                    name: from,
                    symbols: written,
                    ..
                },
            ) if to.takes(from) => can_read_symbols(symbols, *has_default, written, path, messages),
            (
                Node::Fixed { name: to, size },
                Node::Fixed {
                    name: from,
                    size: written,
                },
            ) if size == written
                && to
                    .as_ref()
                    .zip(from.as_ref())
                    .is_none_or(|(to, from)| to.takes(from)) =>
            {
                true
            }
            _ => self.mismatch(reader, writer, path, messages),
        }
    }

    fn can_read_fields(
        &mut self,
        fields: &[Field],
        written: &[Field],
        path: &str,
        messages: &mut Vec<String>,
    ) -> bool {
        let mut all = true;
        for field in fields {
            let path = if path.is_empty() {
                field.name.clone()
            } else {
                format!("{path}.{}", field.name)
            };
            let source = written
                .iter()
                .find(|written| written.name == field.name)
                .or_else(|| {
                    written
                        .iter()
                        .find(|written| field.aliases.contains(&written.name))
                });
            match source {
                Some(source) => all &= self.can_read(field.node, source.node, &path, messages),
                None if field.has_default => {}
                None => {
                    say(
                        messages,
                        format!("field '{path}' has no default and is not in the data"),
                    );
                    all = false;
                }
            }
        }
        all
    }

    /// Adds "cannot read this as that" and answers no.
    fn mismatch(
        &self,
        reader: usize,
        writer: usize,
        path: &str,
        messages: &mut Vec<String>,
    ) -> bool {
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("field '{path}': ")
        };
        let (to, from) = (self.reader.describe(reader), self.writer.describe(writer));
        say(messages, format!("{place}{from} cannot be read as {to}"));
        false
    }
}

fn can_read_symbols(
    symbols: &[String],
    has_default: bool,
    written: &[String],
    path: &str,
    messages: &mut Vec<String>,
) -> bool {
    let missing: Vec<&str> = written
        .iter()
        .filter(|symbol| !symbols.contains(symbol))
        .map(String::as_str)
        .collect();
    if missing.is_empty() || has_default {
        return true;
    }
    let place = if path.is_empty() {
        String::new()
    } else {
        format!("field '{path}': ")
    };
    say(
        messages,
        format!("{place}the enum lacks the symbols {}", missing.join(", ")),
    );
    false
}

fn say(messages: &mut Vec<String>, message: String) {
    if messages.len() < MAX_MESSAGES {
        messages.push(message);
    }
}

/// Whether a value written as `from` may be read as `to`.
fn promotes(from: &str, to: &str) -> bool {
    from == to
        || matches!(
            (from, to),
            ("int", "long" | "float" | "double")
                | ("long", "float" | "double")
                | ("float", "double")
                | ("string", "bytes")
                | ("bytes", "string")
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(reader: &str, writer: &str) -> Vec<String> {
        reader_problems(
            &Schema::parse_str(reader).unwrap(),
            &Schema::parse_str(writer).unwrap(),
        )
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    fn field(schema: &str) -> String {
        record(&format!(r#"{{"name":"a","type":{schema}}}"#))
    }

    #[test]
    fn what_can_be_read() {
        let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
        let nested = r#"{"type":"record","name":"N","namespace":"x","fields":[{"name":"n","type":["null","N"],"default":null}]}"#;
        for (reader, writer) in [
            (r#""long""#.to_owned(), r#""int""#.to_owned()),
            (r#""double""#.to_owned(), r#""long""#.to_owned()),
            (r#""bytes""#.to_owned(), r#""string""#.to_owned()),
            (r#"["null","long"]"#.to_owned(), r#""int""#.to_owned()),
            (
                r#"["null","long"]"#.to_owned(),
                r#"["int","null"]"#.to_owned(),
            ),
            (r#""long""#.to_owned(), r#"["int","long"]"#.to_owned()),
            (decimal.to_owned(), decimal.to_owned()),
            (
                r#""long""#.to_owned(),
                r#"{"type":"long","logicalType":"timestamp-millis"}"#.to_owned(),
            ),
            (
                record(r#"{"name":"a","type":"int","default":1}"#),
                record(r#"{"name":"b","type":"int"}"#),
            ),
            (
                record(r#"{"name":"a","aliases":["b"],"type":"int"}"#),
                record(r#"{"name":"b","type":"int"}"#),
            ),
            (nested.to_owned(), nested.to_owned()),
            (
                r#"{"type":"enum","name":"E","symbols":["A"],"default":"A"}"#.to_owned(),
                r#"{"type":"enum","name":"E","symbols":["A","B"]}"#.to_owned(),
            ),
            (
                r#"{"type":"record","name":"New","aliases":["Old"],"fields":[]}"#.to_owned(),
                r#"{"type":"record","name":"Old","fields":[]}"#.to_owned(),
            ),
            (
                r#"{"type":"array","items":["null","double"]}"#.to_owned(),
                r#"{"type":"array","items":"int"}"#.to_owned(),
            ),
        ] {
            assert_eq!(
                problems(&reader, &writer),
                Vec::<String>::new(),
                "{reader} reads {writer}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_path() {
        for (reader, writer, expected) in [
            (
                field(r#""int""#),
                field(r#""long""#),
                "field 'a': long cannot be read as int",
            ),
            (
                field(r#""int""#),
                field(r#"["null","int"]"#),
                "field 'a': null cannot be read as int",
            ),
            (
                field(r#"["null","int"]"#),
                field(r#""string""#),
                "field 'a': string cannot be read as [null, int]",
            ),
            (
                field(r#""int""#),
                record(r#"{"name":"b","type":"int"}"#),
                "field 'a' has no default and is not in the data",
            ),
            (
                field(
                    r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"x","type":"int"}]}}"#,
                ),
                field(
                    r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"x","type":"double"}]}}"#,
                ),
                "field 'a[].x': double cannot be read as int",
            ),
            (
                field(r#"{"type":"enum","name":"E","symbols":["A"]}"#),
                field(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#),
                "field 'a': the enum lacks the symbols B",
            ),
            (
                field(r#"{"type":"fixed","name":"F","size":4}"#),
                field(r#"{"type":"fixed","name":"F","size":8}"#),
                "field 'a': fixed(8) F cannot be read as fixed(4) F",
            ),
            (
                r#"{"type":"record","name":"A","fields":[]}"#.to_owned(),
                r#"{"type":"record","name":"B","fields":[]}"#.to_owned(),
                "record B cannot be read as record A",
            ),
        ] {
            assert_eq!(
                problems(&reader, &writer),
                [expected],
                "{reader} reads {writer}"
            );
        }
    }

    #[test]
    fn a_wrong_assumption_about_a_recursive_type_is_forgotten() {
        // N is readable only if its tail is; the second field asks for the same pair once more.
        let list = |value: &str| {
            format!(
                r#"{{"type":"record","name":"T","fields":[
                    {{"name":"one","type":["null",{{"type":"record","name":"N","fields":[{{"name":"next","type":["null","N"]}},{{"name":"v","type":"{value}"}}]}}]}},
                    {{"name":"two","type":["null","N"]}}]}}"#
            )
        };
        assert_eq!(problems(&list("long"), &list("int")), Vec::<String>::new());
        let found = problems(&list("int"), &list("long"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].starts_with("field 'two'"), "{found:?}");
    }

    #[test]
    fn many_references_to_the_same_types_take_no_exponential_time() {
        use std::fmt::Write as _;
        let mut inner = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
        for depth in 1..40 {
            let mut next = String::new();
            write!(
                next,
                r#"{{"type":"record","name":"R{depth}","fields":[{{"name":"a","type":{inner}}},{{"name":"b","type":"R{}"}}]}}"#,
                depth - 1
            )
            .unwrap();
            inner = next;
        }
        assert_eq!(problems(&inner, &inner), Vec::<String>::new());
    }

    #[test]
    fn each_level_asks_for_its_direction() {
        let old = Schema::parse_str(&field(r#""int""#)).unwrap();
        let wider = Schema::parse_str(&field(r#""long""#)).unwrap();
        for (level, widening, narrowing) in [
            (Level::None, true, true),
            (Level::Backward, true, false),
            (Level::BackwardTransitive, true, false),
            (Level::Forward, false, true),
            (Level::ForwardTransitive, false, true),
            (Level::Full, false, false),
            (Level::FullTransitive, false, false),
        ] {
            assert_eq!(
                level.check(&wider, &old).is_empty(),
                widening,
                "{level} wider"
            );
            assert_eq!(
                level.check(&old, &wider).is_empty(),
                narrowing,
                "{level} narrower"
            );
            assert_eq!(Level::parse(&level.to_string()), Some(level));
        }
    }

    #[test]
    fn primitives_agree_with_apache_avro() {
        let names = [
            "null", "boolean", "int", "long", "float", "double", "bytes", "string",
        ];
        for reader in names {
            for writer in names {
                let (reader, writer) = (
                    Schema::parse_str(&format!("\"{reader}\"")).unwrap(),
                    Schema::parse_str(&format!("\"{writer}\"")).unwrap(),
                );
                let theirs = apache_avro::schema_compatibility::SchemaCompatibility::can_read(
                    &writer, &reader,
                )
                .is_ok();
                assert_eq!(
                    reader_problems(&reader, &writer).is_empty(),
                    theirs,
                    "{reader} reads {writer}"
                );
            }
        }
    }
}
