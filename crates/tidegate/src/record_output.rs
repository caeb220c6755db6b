//! Records as `consume` prints them.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tidegate::core::decode::Decoder;
use tidegate::kafka::consumer::ConsumedRecord;
use tidegate::registry::{self, Registry};

use crate::args::ConsumeFormat;
use crate::failure::{Failure, Kind};
use crate::terminal::Terminal;

/// Confluent's frame: a zero byte and the schema id.
const FRAME_LEN: usize = 5;

/// Prints records in one format.
pub(crate) struct RecordOutput<'a> {
    format: ConsumeFormat,
    topic: &'a str,
    registry: Option<&'a Registry>,
    terminal: Terminal,
    /// Decoders by schema id; `None` for an id that the registry does not know.
    decoders: HashMap<u32, Option<Decoder>>,
    /// The columns of the CSV, once the header was written.
    columns: Option<Vec<String>>,
}

impl<'a> RecordOutput<'a> {
    /// Output in `format`; Avro values are decoded where a registry knows their schema.
    pub(crate) fn new(
        format: ConsumeFormat,
        topic: &'a str,
        registry: Option<&'a Registry>,
        terminal: Terminal,
    ) -> Self {
        Self {
            format,
            topic,
            registry,
            terminal,
            decoders: HashMap::new(),
            columns: None,
        }
    }

    /// Prints one record.
    pub(crate) fn write(
        &mut self,
        partition: i32,
        record: &ConsumedRecord<'_>,
        out: &mut impl Write,
    ) -> Result<(), Problem> {
        match self.format {
            ConsumeFormat::Raw => {
                out.write_all(record.value.unwrap_or_default())?;
                out.write_all(b"\n")?;
            }
            ConsumeFormat::Value => writeln!(out, "{}", self.value(record)?)?,
            ConsumeFormat::Json => writeln!(out, "{}", self.object(partition, record)?)?,
            ConsumeFormat::Csv => {
                let value = self.value(record)?;
                self.write_csv(&value, out)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, partition: i32, record: &ConsumedRecord<'_>) -> Result<Value, Failure> {
        let mut headers = Vec::new();
        for header in record.headers() {
            let header = header.map_err(|error| {
                let message = format!("{}-{partition}, offset {}", self.topic, record.offset);
                Failure::new(Kind::Unreachable, message).because(error)
            })?;
            let value = header.value.map_or(Value::Null, text_or_base64);
            headers.push(json!({ "name": header.name, "value": value }));
        }
        Ok(json!({
            "topic": self.topic,
            "partition": partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": self.key(record)?,
            "headers": headers,
            "value": self.value(record)?,
        }))
    }

    /// The key, decoded: Avro by its schema id, other text as a string, anything else as base64. Text may begin as Avro does.
    fn key(&mut self, record: &ConsumedRecord<'_>) -> Result<Value, Failure> {
        let Some(bytes) = record.key else {
            return Ok(Value::Null);
        };
        if let Some(([0, id @ ..], datum)) = bytes.split_first_chunk::<FRAME_LEN>()
            && let Some(decoder) = self.decoder(u32::from_be_bytes(*id))?
            && let Ok(key) = decoder.to_json(datum)
        {
            return Ok(key);
        }
        Ok(text_or_base64(bytes))
    }

    /// The value, decoded: Avro by its schema id, JSON as it is, other text as a string, anything else as base64.
    fn value(&mut self, record: &ConsumedRecord<'_>) -> Result<Value, Failure> {
        let Some(bytes) = record.value else {
            return Ok(Value::Null);
        };
        if let Some(([0, id @ ..], datum)) = bytes.split_first_chunk::<FRAME_LEN>()
            && let Some(decoder) = self.decoder(u32::from_be_bytes(*id))?
        {
            return Ok(decoder.to_json(datum)?);
        }
        Ok(serde_json::from_slice(bytes).unwrap_or_else(|_| text_or_base64(bytes)))
    }

    fn decoder(&mut self, id: u32) -> Result<Option<&Decoder>, Failure> {
        let Some(registry) = self.registry else {
            return Ok(None);
        };
        if !self.decoders.contains_key(&id) {
            let decoder = match registry.by_id(id) {
                Ok(schema) => Some(Decoder::new(&schema)?),
                Err(error) if error.kind() == registry::ErrorKind::NotFound => {
                    self.terminal.warn(&format!(
                        "the registry knows no schema {id}: values with it are printed as they are"
                    ));
                    None
                }
                Err(error) => return Err(error.into()),
            };
            self.decoders.insert(id, decoder);
        }
        Ok(self.decoders.get(&id).and_then(Option::as_ref))
    }

    fn write_csv(&mut self, value: &Value, out: &mut impl Write) -> Result<(), Problem> {
        let empty = Map::new();
        let fields = value.as_object().unwrap_or(&empty);
        let columns = match &mut self.columns {
            Some(columns) => columns,
            none => {
                let columns: Vec<String> = match value {
                    Value::Object(fields) => fields.keys().cloned().collect(),
                    _ => vec!["value".to_owned()],
                };
                write_row(columns.iter().cloned(), out)?;
                none.insert(columns)
            }
        };
        let cells = columns.iter().map(|column| match value {
            Value::Object(_) => cell(fields.get(column).unwrap_or(&Value::Null)),
            other => cell(other),
        });
        Ok(write_row(cells, out)?)
    }
}

/// What may go wrong while records are printed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Nobody reads stdout any more.
    Closed,
    /// Something that must be told.
    Failed(Failure),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(cannot_write(error))
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The failure of a stdout that cannot be written.
pub(crate) fn cannot_write(error: io::Error) -> Failure {
    Failure::new(Kind::LocalIo, "cannot write to stdout").because(error)
}

/// A value as the text of a cell: null is empty, what has parts is JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One row as RFC 4180 has it.
fn write_row(cells: impl Iterator<Item = String>, out: &mut impl Write) -> io::Result<()> {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        if cell.contains([',', '"', '\n', '\r']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

/// Text as a string; what is no UTF-8 as `{"base64": ...}`.
fn text_or_base64(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quoted_where_they_must_be() {
        let mut out = Vec::new();
        let cells = ["plain", "a,b", "say \"x\"", "two\nlines", ""].map(str::to_owned);
        write_row(cells.into_iter(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        assert_eq!(text_or_base64(b"abc"), json!("abc"));
        assert_eq!(text_or_base64(&[0xff, 0]), json!({ "base64": "/wA=" }));
    }

    #[test]
    fn cells_of_values() {
        assert_eq!(cell(&Value::Null), "");
        assert_eq!(cell(&json!("x")), "x");
        assert_eq!(cell(&json!(1.5)), "1.5");
        assert_eq!(cell(&json!([1, 2])), "[1,2]");
    }
}
