//! Texts of times: any text for any type that holds a time, in any of the ways it can be written. What is taken is decoded again and lies
//! in the range of its type.

use tidegate_core::decode::Decoder;
use tidegate_core::read::{CsvFormat, Header, RowReader};
use tidegate_core::records::{RecordStream, Step};
use tidegate_core::schema::{PlanRequest, RecordPlan};

use crate::given;

const TYPES: [&str; 10] = [
    r#"{"type": "int", "logicalType": "date"}"#,
    r#"{"type": "int", "logicalType": "time-millis"}"#,
    r#"{"type": "long", "logicalType": "time-micros"}"#,
    r#"{"type": "long", "logicalType": "timestamp-millis"}"#,
    r#"{"type": "long", "logicalType": "timestamp-micros"}"#,
    r#"{"type": "long", "logicalType": "timestamp-nanos"}"#,
    r#"{"type": "long", "logicalType": "local-timestamp-millis"}"#,
    r#"{"type": "long", "logicalType": "local-timestamp-micros"}"#,
    r#"{"type": "long", "logicalType": "local-timestamp-nanos"}"#,
    r#"{"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}"#,
];
const ATTRIBUTES: [&str; 10] = [
    "",
    r#", "tidegate.time-zone": "Europe/Zurich""#,
    r#", "tidegate.time-zone": "Pacific/Apia", "tidegate.time-ambiguity": "earlier""#,
    r#", "tidegate.time-zone": "America/New_York", "tidegate.time-ambiguity": "later""#,
    r#", "tidegate.format": "epoch-seconds""#,
    r#", "tidegate.format": "epoch-millis", "tidegate.time-zone": "Asia/Kolkata""#,
    r#", "tidegate.format": "epoch-nanos""#,
    r#", "tidegate.format": ["%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y"]"#,
    r#", "tidegate.format": "%Y-%m-%dT%H:%M:%S%z""#,
    r#", "tidegate.format": "%A %j %s %y %I:%M %p", "tidegate.time-zone": "UTC""#,
];

/// Checks it with whatever these bytes stand for.
pub fn check(data: &[u8]) {
    let Some(input) = given::<(u8, u8, &str)>(data) else {
        return;
    };
    let (kind, attributes, text) = input;
    let kind = TYPES[usize::from(kind) % TYPES.len()];
    let attributes = ATTRIBUTES[usize::from(attributes) % ATTRIBUTES.len()];
    let schema = format!(
        r#"{{"type": "record", "name": "R", "fields": [{{"name": "t", "type": {kind}{attributes}}}]}}"#
    );
    let header = Header::new(["t"]).expect("a name");
    let Ok(plan) = RecordPlan::compile(&PlanRequest::new(&schema, &header)) else {
        // Not every attribute says something of every type.
        return;
    };
    let row = format!("t\n\"{}\"\n", text.replace('"', "\"\""));
    let reader = RowReader::open(row.as_bytes(), CsvFormat::default()).expect("a header");
    let mut records = RecordStream::new(reader, &plan, None).expect("the same header");
    if let Step::Record(record) = records.next().expect("a slice can be read") {
        let decoder = Decoder::new(&schema).expect("a sound schema");
        decoder.to_json(record.value).expect("what was encoded");
    }
}
