//! A generator of fields: of each type, nullable or not, in arrays and maps, in records inside, and in unions of several types. With each come its
//! cells and what is to become of them.

use std::collections::{BTreeMap, HashMap};

use apache_avro::types::Value as Avro;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::scalar::{Sample, Type, any_type};

/// A field of a record.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Its type; `@` stands for a number that makes names different.
    pub(super) schema: String,
    /// What it says of its cells.
    pub(super) attributes: String,
    pub(super) cells: Vec<Cell>,
    pub(super) avro: Avro,
    pub(super) json: Json,
}

/// A cell of a field.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// Where it belongs, behind the field's own name.
    pub(super) path: String,
    pub(super) text: Vec<u8>,
    /// The texts that stand for null in it, besides the empty one in a record that is null as a whole.
    tokens: &'static [&'static str],
}

/// The texts that stand for null in items, and in their cell where it takes null.
const TOKENS: [&str; 2] = ["-", "n/a"];

impl Field {
    fn of_cell(schema: String, attributes: &str, sample: Sample) -> Self {
        let Sample { text, avro, json } = sample;
        let cells = vec![Cell {
            path: String::new(),
            text,
            tokens: &[],
        }];
        Self {
            schema,
            attributes: attributes.to_owned(),
            cells,
            avro,
            json,
        }
    }

    /// Says what it says of its cells in its type.
    fn said_in_type(mut self) -> Self {
        self.schema = say_in_type(self.schema, &std::mem::take(&mut self.attributes));
        self
    }

    /// Whether a record with these cells alone is null.
    fn is_empty(&self) -> bool {
        let is_empty = |cell: &Cell| {
            cell.text.is_empty()
                || cell
                    .tokens
                    .iter()
                    .any(|token| token.as_bytes() == cell.text)
        };
        self.cells.iter().all(is_empty)
    }

    /// The same, nullable or not. A cell without a text is null then, or, where others are said, one of these texts.
    fn nullable(mut self, how: Nullable, tokens: &'static [&'static str]) -> Self {
        let Some(null) = how.branch else {
            return self;
        };
        for cell in &mut self.cells {
            if how.is_null {
                cell.text = tokens.first().copied().unwrap_or_default().into();
            }
        }
        let is_null = match &mut self.cells[..] {
            [cell] if !tokens.is_empty() => {
                cell.tokens = tokens;
                let mut tokens = tokens.iter();
                tokens.any(|token| token.as_bytes() == cell.text)
            }
            _ => self.is_empty(),
        };
        self.schema = in_union(&self.schema, null);
        if is_null {
            self.json = Json::Null;
        }
        self.avro = branch(self.avro, is_null, null);
        self
    }
}

/// A type with attributes.
fn say_in_type(schema: String, attributes: &str) -> String {
    if attributes.is_empty() {
        return schema;
    }
    match schema.strip_suffix('}') {
        Some(open) => format!("{open}{attributes}}}"),
        None => format!(r#"{{"type": {schema}{attributes}}}"#),
    }
}

/// A union with null in that branch.
fn in_union(schema: &str, null: u32) -> String {
    if null == 0 {
        format!(r#"["null", {schema}]"#)
    } else {
        format!(r#"[{schema}, "null"]"#)
    }
}

/// A value of such a union.
fn branch(value: Avro, is_null: bool, null: u32) -> Avro {
    if is_null {
        Avro::Union(null, Box::new(Avro::Null))
    } else {
        Avro::Union(1 - null, Box::new(value))
    }
}

/// Whether a type takes null, as which branch, and whether it is null here.
#[derive(Debug, Clone, Copy)]
struct Nullable {
    branch: Option<u32>,
    is_null: bool,
}

fn any_nullable() -> impl Strategy<Value = Nullable> {
    let branch = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1))];
    (branch, prop::bool::weighted(0.3)).prop_map(|(branch, is_null)| Nullable { branch, is_null })
}

/// A field of any type.
pub(super) fn any_field() -> impl Strategy<Value = Field> {
    prop_oneof![6 => flat(), 1 => records(flat()), 1 => records(prop_oneof![flat(), records(flat())])]
}

/// One of a single cell.
fn flat() -> impl Strategy<Value = Field> {
    let plain = any_type().prop_flat_map(|of| {
        let sample = of.sample(false);
        (sample, any_nullable(), any::<bool>()).prop_map(move |(sample, null, in_type)| {
            let field = Field::of_cell(of.schema(), of.attributes(), sample);
            let field = if in_type { field.said_in_type() } else { field };
            field.nullable(null, &[])
        })
    });
    let null = Just(Field::of_cell(
        Type::Null.schema(),
        "",
        Sample {
            text: Vec::new(),
            avro: Avro::Null,
            json: Json::Null,
        },
    ));
    prop_oneof![12 => plain, 1 => null, 3 => collections(false), 3 => collections(true), 3 => unions()]
}

/// An array or a map in a cell.
fn collections(is_map: bool) -> impl Strategy<Value = Field> {
    let items = any_type().prop_flat_map(move |of| {
        let item = (of.sample(true), prop::bool::weighted(0.2), any::<bool>());
        let names: BoxedStrategy<Vec<String>> = if is_map {
            btree_map("[ -<>-{é]{0,5}", Just(()), 0..5)
                .prop_map(|names: BTreeMap<String, ()>| names.into_keys().collect())
                .boxed()
        } else {
            vec(Just(String::new()), 0..5).boxed()
        };
        let items = names.prop_flat_map(move |names| {
            let items = vec(item.clone(), names.len());
            (Just(names), items)
        });
        (Just(of), items)
    });
    (items, any_layout(), any_nullable()).prop_map(move |((of, (names, items)), layout, outer)| {
        let field = collection(is_map, &of, &names, items, layout);
        let field = if layout.in_type {
            field.said_in_type()
        } else {
            field
        };
        field.nullable(outer, layout.tokens)
    })
}

/// How an array or a map is said and written.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// The branch of null in the union of its items.
    null: Option<u32>,
    /// The texts that stand for null in its items; of no use to others.
    tokens: &'static [&'static str],
    /// What stands between its items, where it is not JSON.
    delimiter: Option<&'static str>,
    /// Whether attributes stand in the type.
    in_type: bool,
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let null = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    let delimiter = prop_oneof![Just(None), Just(Some("|")), Just(Some("||"))];
    (null, any::<bool>(), delimiter, any::<bool>()).prop_map(
        |(null, has_tokens, delimiter, in_type)| {
            let tokens: &[&str] = if has_tokens && null.is_some() {
                &TOKENS
            } else {
                &[]
            };
            Layout {
                null,
                tokens,
                delimiter,
                in_type,
            }
        },
    )
}

/// An item, whether it is null where it may be, and whether JSON has it as a string although it needs none.
type Item = (Sample, bool, bool);

fn collection(
    is_map: bool,
    of: &Type,
    names: &[String],
    items: Vec<Item>,
    layout: Layout,
) -> Field {
    let Layout {
        null,
        tokens,
        delimiter,
        ..
    } = layout;
    let mut texts = Vec::new();
    let (mut values, mut json_values) = (Vec::new(), Vec::new());
    for (name, (item, is_null, is_string)) in names.iter().zip(items) {
        let text = String::from_utf8(item.text).unwrap();
        // Between delimiters nothing else says that an item is null.
        let is_token = match tokens {
            [] => delimiter.is_some() && text.is_empty(),
            tokens => tokens.contains(&&*text),
        };
        let is_null = null.is_some() && (is_null || is_token);
        let text = match (delimiter, tokens.last()) {
            (Some(_), token) if is_null => token.copied().unwrap_or_default().to_owned(),
            (None, Some(token)) if is_null && is_string => json!(token).to_string(),
            (None, _) if is_null => "null".to_owned(),
            (None, _) => json_item(of, &text, is_string),
            (Some(_), _) => text,
        };
        texts.push(if is_map && delimiter.is_some() {
            format!("{name}={text}")
        } else {
            text
        });
        json_values.push(if is_null { Json::Null } else { item.json });
        values.push(match null {
            Some(null) => branch(item.avro, is_null, null),
            None => item.avro,
        });
    }
    let text = cell(is_map, names, &texts, delimiter);
    if delimiter.is_some() && text.is_empty() {
        // An array of one empty item cannot be told from an empty one.
        values.clear();
        json_values.clear();
    }
    let item_schema = match null {
        Some(null) => in_union(&of.schema(), null),
        None => of.schema(),
    };
    let mut attributes = of.attributes().to_owned();
    if let Some(delimiter) = delimiter {
        attributes += &format!(r#", "tidegate.delimiter": "{delimiter}""#);
    }
    if !tokens.is_empty() {
        attributes += &format!(r#", "tidegate.null": {}"#, json!(tokens));
    }
    let names = names.iter().cloned();
    let (schema, avro, json) = if is_map {
        let avro: HashMap<String, Avro> = names.clone().zip(values).collect();
        let json: Map<String, Json> = names.zip(json_values).collect();
        (
            format!(r#"{{"type": "map", "values": {item_schema}}}"#),
            Avro::Map(avro),
            Json::Object(json),
        )
    } else {
        (
            format!(r#"{{"type": "array", "items": {item_schema}}}"#),
            Avro::Array(values),
            Json::Array(json_values),
        )
    };
    let text = text.into_bytes();
    Field::of_cell(schema, &attributes, Sample { text, avro, json })
}

/// The cell that holds these items.
fn cell(is_map: bool, names: &[String], texts: &[String], delimiter: Option<&str>) -> String {
    match delimiter {
        Some(delimiter) => texts.join(delimiter),
        None if is_map => {
            let entries = names.iter().zip(texts);
            let entries = entries.map(|(name, text)| format!("{}: {text}", json!(name)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        None => format!("[{}]", texts.join(", ")),
    }
}

/// An item as it stands in a cell that is JSON: numbers and booleans bare or in quotes, all else in quotes.
fn json_item(of: &Type, text: &str, is_string: bool) -> String {
    let is_bare = matches!(text, "true" | "false")
        || serde_json::from_str::<serde_json::Number>(text).is_ok();
    if is_bare && !is_string && !matches!(of, Type::String) {
        text.to_owned()
    } else {
        json!(text).to_string()
    }
}

/// A record inside, its fields filled by path.
fn records(fields: impl Strategy<Value = Field>) -> impl Strategy<Value = Field> {
    (vec(fields, 1..4), any_nullable()).prop_map(|(fields, null)| {
        let (mut parts, mut cells, mut values, mut json) =
            (Vec::new(), Vec::new(), Vec::new(), Map::new());
        for (number, field) in fields.into_iter().enumerate() {
            let name = format!("part{number}");
            parts.push(format!(
                r#"{{"name": "{name}", "type": {}{}}}"#,
                field.schema, field.attributes
            ));
            cells.extend(field.cells.into_iter().map(|cell| {
                let path = format!(".{name}{}", cell.path);
                Cell { path, ..cell }
            }));
            json.insert(name.clone(), field.json);
            values.push((name, field.avro));
        }
        Field {
            schema: format!(
                r#"{{"type": "record", "name": "Record@", "fields": [{}]}}"#,
                parts.join(", ")
            ),
            attributes: String::new(),
            cells,
            avro: Avro::Record(values),
            json: Json::Object(json),
        }
        .nullable(null, &[])
    })
}

/// A branch of a union of several types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Branch {
    Null,
    Boolean,
    Long,
    Double,
    Date,
    Enum,
    String,
}

impl Branch {
    const ALL: [Self; 7] = [
        Self::Null,
        Self::Boolean,
        Self::Long,
        Self::Double,
        Self::Date,
        Self::Enum,
        Self::String,
    ];

    fn schema(self) -> String {
        match self {
            Self::Null => Type::Null.schema(),
            Self::Boolean => Type::Boolean { has_words: false }.schema(),
            Self::Long => Type::Long.schema(),
            Self::Double => Type::Double.schema(),
            Self::Date => Type::Date.schema(),
            Self::Enum => {
                r#"{"type": "enum", "name": "Color@", "symbols": ["BLUE", "RED"]}"#.into()
            }
            Self::String => Type::String.schema(),
        }
    }
}

/// A text, and what each of the branches that take it makes of it.
type Taken = (String, Vec<(Branch, Avro, Json)>);

/// Any text for a union, by hand: of it is known who takes it.
fn any_taken() -> impl Strategy<Value = Taken> {
    let truth = any::<bool>().prop_map(|truth| {
        (
            truth.to_string(),
            vec![(Branch::Boolean, Avro::Boolean(truth), json!(truth))],
        )
    });
    let number =
        prop_oneof![-1..3_i64, any::<i32>().prop_map(i64::from), any::<i64>()].prop_map(|number| {
            let mut taken = vec![(Branch::Long, Avro::Long(number), json!(number))];
            let double = number as f64;
            taken.push((Branch::Double, Avro::Double(double), json!(double)));
            if let Ok(days) = i32::try_from(number) {
                taken.push((Branch::Date, Avro::Date(days), json!(days)));
            }
            if matches!(number, 0 | 1) {
                taken.push((
                    Branch::Boolean,
                    Avro::Boolean(number == 1),
                    json!(number == 1),
                ));
            }
            (number.to_string(), taken)
        });
    let decimal = (-1e9..1e9_f64).prop_map(|number| {
        let text = format!("{number:.3}");
        let read: f64 = text.parse().unwrap();
        (
            text,
            vec![(Branch::Double, Avro::Double(read), json!(read))],
        )
    });
    let day = (0..90_i32).prop_map(|days| {
        let day = if days < 31 {
            format!("01-{:02}", days + 1)
        } else if days < 59 {
            format!("02-{:02}", days - 30)
        } else {
            format!("03-{:02}", days - 58)
        };
        (
            format!("1970-{day}"),
            vec![(Branch::Date, Avro::Date(days), json!(days))],
        )
    });
    let color = (0..2_u32).prop_map(|at| {
        let name = ["BLUE", "RED"][at as usize];
        (
            name.to_owned(),
            vec![(Branch::Enum, Avro::Enum(at, name.to_owned()), json!(name))],
        )
    });
    let word = "([p-z][a-z ,;]{0,20})?".prop_map(|word| (word, Vec::new()));
    prop_oneof![truth, number, decimal, day, color, word].prop_map(|(text, mut taken)| {
        taken.push((Branch::String, Avro::String(text.clone()), json!(text)));
        (text, taken)
    })
}

/// A union of at least two types besides null, the first of which that fits is taken; the empty text is null where there is null.
fn unions() -> impl Strategy<Value = Field> {
    let branches = (
        Just(Branch::ALL.to_vec()).prop_shuffle(),
        3..=Branch::ALL.len(),
    )
        .prop_map(|(mut branches, count)| {
            branches.truncate(count);
            branches
        });
    (branches, any_taken()).prop_filter_map(
        "no branch takes the text",
        |(branches, (text, mut taken))| {
            if text.is_empty() && branches.contains(&Branch::Null) {
                taken = vec![(Branch::Null, Avro::Null, Json::Null)];
            }
            let first = branches.iter().enumerate().find_map(|(at, branch)| {
                let taken = taken.iter().find(|(by, ..)| by == branch)?;
                Some((at, taken.1.clone(), taken.2.clone()))
            });
            let (at, avro, json) = first?;
            let schemas: Vec<String> = branches.iter().map(|branch| branch.schema()).collect();
            let avro = Avro::Union(u32::try_from(at).unwrap(), Box::new(avro));
            let text = text.into_bytes();
            Some(Field::of_cell(
                format!("[{}]", schemas.join(", ")),
                "",
                Sample { text, avro, json },
            ))
        },
    )
}
