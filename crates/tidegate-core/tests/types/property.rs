//! Any row of any types.

use apache_avro::types::Value as Avro;
use proptest::prelude::*;
use serde_json::{Map, Value as Json};
use tidegate_core::decode::Decoder;
use tidegate_core::encode::{CellFormat, ValueFormat};

use super::field::{Field, any_field};
use super::{encode, for_apache, record};

/// A file of one row, its schema, and what is to become of it.
struct Whole {
    schema: String,
    csv: Vec<u8>,
    avro: Avro,
    json: Json,
}

fn whole(fields: Vec<Field>) -> Whole {
    let (mut schema, mut header, mut row) = (Vec::new(), Vec::new(), Vec::new());
    let (mut avro, mut json) = (Vec::new(), Map::new());
    for (number, field) in fields.into_iter().enumerate() {
        let name = format!("f{number}");
        schema.push(format!(
            r#"{{"name": "{name}", "type": {}{}}}"#,
            field.schema, field.attributes
        ));
        for cell in field.cells {
            header.push(format!("{name}{}", cell.path));
            row.push(quoted(&cell.text));
        }
        json.insert(name.clone(), field.json);
        avro.push((name, field.avro));
    }
    let mut csv = format!("{}\n", header.join(",")).into_bytes();
    csv.extend(row.join(&b','));
    csv.push(b'\n');
    let schema = record(&schema.join(", "));
    let pieces = schema.split('@').enumerate();
    let schema = pieces.map(|(number, piece)| {
        if number > 0 {
            format!("{number}{piece}")
        } else {
            piece.to_owned()
        }
    });
    Whole {
        schema: schema.collect(),
        csv,
        avro: Avro::Record(avro),
        json: Json::Object(json),
    }
}

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        quoted.extend(std::iter::repeat_n(
            *byte,
            if *byte == b'"' { 2 } else { 1 },
        ));
    }
    quoted.push(b'"');
    quoted
}

/// Whether two values are the same: floats bit by bit, but for a NaN, which has many forms.
fn same(a: &Avro, b: &Avro) -> bool {
    match (a, b) {
        (Avro::Float(a), Avro::Float(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (Avro::Double(a), Avro::Double(b)) => {
            a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
        }
        (Avro::Union(at, a), Avro::Union(other, b)) => at == other && same(a, b),
        (Avro::Array(a), Avro::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Avro::Map(a), Avro::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (Avro::Record(a), Avro::Record(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((name, a), (other, b))| name == other && same(a, b))
        }
        _ => a == b,
    }
}

/// Whether there is a NaN or an infinity in it.
fn is_finite(value: &Avro) -> bool {
    match value {
        Avro::Float(value) => value.is_finite(),
        Avro::Double(value) => value.is_finite(),
        Avro::Union(_, value) => is_finite(value),
        Avro::Array(values) => values.iter().all(is_finite),
        Avro::Map(values) => values.values().all(is_finite),
        Avro::Record(fields) => fields.iter().all(|(_, value)| is_finite(value)),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Any record of any types: apache-avro finds what the texts were made of, and the JSON says the same.
    #[test]
    fn any_row_of_any_types_comes_back(fields in prop::collection::vec(any_field(), 1..8)) {
        let Whole { schema, csv, avro: expected, json } = whole(fields);
        let avro = encode(&schema, &CellFormat::default(), &csv, ValueFormat::Avro)
            .map_err(|reason| TestCaseError::fail(format!("{reason}\n{schema}\n{}", String::from_utf8_lossy(&csv))))?;
        let mut rest = avro.as_slice();
        let read = apache_avro::from_avro_datum(&for_apache(&schema), &mut rest, None).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert!(same(&read, &expected), "{schema}\n{}\nexpected {expected:?}\n   found {read:?}", String::from_utf8_lossy(&csv));
        // Written again by apache-avro it is the same, byte by byte, but for maps, which have no order there.
        if !schema.contains("\"map\"") {
            prop_assert_eq!(apache_avro::to_avro_datum(&for_apache(&schema), read).unwrap(), avro.clone());
        }
        prop_assert_eq!(&Decoder::new(&schema).unwrap().to_json(&avro).unwrap(), &json);
        let plain = encode(&schema, &CellFormat::default(), &csv, ValueFormat::Json);
        if is_finite(&expected) {
            prop_assert_eq!(&serde_json::from_slice::<Json>(&plain.unwrap()).unwrap(), &json);
        } else {
            prop_assert!(plain.unwrap_err().contains("JSON cannot hold"));
        }
    }
}
