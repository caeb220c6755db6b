//! The options that change records: how the CSV is written, and what becomes of its rows.
//!
//! What is typed here is resolved once (see [`crate::options`]) and kept with the load under the names of the flags, so that a later run and a
//! verification do the same. A flag that changes records is therefore one field here, and nothing else that names it.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use tidegate::core::Error;
use tidegate::core::around::{HeaderChoice, TimestampChoice};
use tidegate::core::key::KeyFormat;
use tidegate::core::limits::MAX_ROW_SIZE;
use tidegate::core::partition::Partitioner;
use tidegate::core::read::CsvFormat;

use crate::encoding::NamedEncoding;
use crate::values::{self, Character, Delimiter, Pair, Quote};

/// How the CSV is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = "CSV")]
pub(crate) struct CsvArgs {
    /// Character between columns; \t for tabs; auto finds it by the first rows [default: ,]
    #[arg(long, value_name = "CHAR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delimiter: Option<Delimiter>,
    /// Character around cells, doubled inside; none where quotes mean nothing [default: "]
    #[arg(long, value_name = "CHAR|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quote: Option<Quote>,
    /// Character that takes its meaning from a delimiter, quote, line end or escape behind it [default: none]
    #[arg(long, value_name = "CHAR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) escape: Option<Character>,
    /// Lines that begin with this character are no rows [default: none]
    #[arg(long, value_name = "CHAR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<Character>,
    /// Leave out blanks and tabs around cells and names
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) trim: bool,
    /// The first row is data; columns are called c1, c2 and so on, or as --columns says
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_header: bool,
    /// Names of the columns, instead of those in the file
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) columns: Vec<String>,
    /// What becomes of rows with more or fewer cells than there are columns [default: error]
    #[arg(long, value_enum, value_name = "POLICY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ragged: Option<RaggedChoice>,
    /// Encoding of the text, such as latin1 or utf-16 [default: utf-8, or utf-16 where a byte order mark says so]
    #[arg(long, value_name = "NAME", value_parser = known_encoding)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<String>,
    /// Cell text that means null, besides the empty cell; may be given several times
    #[arg(long, value_name = "TOKEN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) null: Vec<String>,
    /// How times are written: iso, epoch-seconds, epoch-millis, epoch-micros, epoch-nanos, or strptime patterns such as '%d.%m.%Y %H:%M', of which the
    /// first that fits is taken; may be given several times [default: iso]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) time_format: Vec<String>,
    /// Time zone of times that say none, by its IANA name such as Europe/Zurich [default: UTC]
    #[arg(long, value_name = "ZONE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// What becomes of times that the clocks of the zone show twice or never [default: error]
    #[arg(long, value_enum, value_name = "CHOICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_ambiguity: Option<AmbiguityChoice>,
    /// Words of booleans instead of true/false and 1/0; may be given several times
    #[arg(long, value_name = "TRUE/FALSE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) boolean: Vec<Pair<'/'>>,
    /// Longest row; a longer one is a bad row [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_row_size: Option<u64>,
}

impl CsvArgs {
    /// The same with nothing left to a default.
    pub(crate) fn resolved(&self) -> Self {
        Self {
            delimiter: Some(self.delimiter.unwrap_or_default()),
            max_row_size: Some(self.max_row_size()),
            ..self.clone()
        }
    }

    /// The same with the default of each option that can be typed out, for a comparison with what is typed. A position that was written before an
    /// option was there, or while it was left out, means its default.
    pub(crate) fn in_force(&self) -> Self {
        let usual = CsvFormat::default();
        // Positions were written with whichever of its names was typed.
        let named = self.encoding.as_deref().map(NamedEncoding::parse);
        let encoding = match named.transpose() {
            Ok(named) => named.unwrap_or_default().name().to_owned(),
            Err(_) => self.encoding.clone().unwrap_or_default(),
        };
        let mut time_format = self.time_format.clone();
        if time_format.is_empty() {
            time_format.push("iso".to_owned());
        }
        Self {
            quote: self.quote.or(Some(Quote(usual.quote))),
            ragged: self.ragged.or(Some(RaggedChoice::Error)),
            encoding: Some(encoding),
            time_format,
            time_zone: self.time_zone.clone().or_else(|| Some("UTC".to_owned())),
            time_ambiguity: self.time_ambiguity.or(Some(AmbiguityChoice::Error)),
            ..self.resolved()
        }
    }

    /// The longest row in bytes.
    pub(crate) fn max_row_size(&self) -> u64 {
        self.max_row_size.unwrap_or(MAX_ROW_SIZE as u64)
    }
}

/// What the records look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = "Records")]
pub(crate) struct RecordArgs {
    /// Form of the values [default: avro]
    #[arg(long, value_enum, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
    /// Consecutive rows equal in these columns make one record with an array of them [default: one record a row]
    #[arg(long, value_name = "COL,...", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) group_by: Vec<String>,
    /// Record key [default: the group-by columns, else the timestamp column (logical type, or named timestamp, ts, time), else none]
    #[arg(
        long,
        value_name = "COL,...",
        value_delimiter = ',',
        conflicts_with = "no_key"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) key: Vec<String>,
    /// Form of the keys: the text of the cell (of several, a JSON array of their texts), or Avro or JSON by a schema [default: string]
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "no_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_format: Option<KeyForm>,
    /// Column of a field, where their names differ and the schema does not say so; a field inside another by its path, address.city
    #[arg(long, value_name = "FIELD=COLUMN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) map: Vec<Pair<'='>>,
    /// How JSON values hold times [default: number]
    #[arg(long, value_enum, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) json_times: Option<JsonTimes>,
    /// Records without a key
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_key: bool,
    /// A group that comes again later in the input is an error [default: a warning]
    #[arg(long, requires = "group_by")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) strict_groups: bool,
    /// A bad row leaves its group, which is sent without it [default: the whole group is rejected]
    #[arg(long, requires = "group_by")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) partial_groups: bool,
    /// A field with the same value in each record, or in each row of a group; it is read as a cell would be, and goes before a column of that name.
    /// A schema that is made of the data has it as a string, where no column has its name
    #[arg(long, value_name = "FIELD=VALUE", value_parser = values::assignment)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) set: Vec<String>,
    /// A boolean field that is true in the last record of each file, and false in all others; the file is read once more to find it. A schema that is made
    /// of the data has it, where no column has its name
    #[arg(long, value_name = "FIELD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mark_last: Option<String>,
    /// A header of each record
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::assignment)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) header: Vec<String>,
    /// A header of each record from a column; an empty cell makes none. They come behind those of --header
    #[arg(long, value_name = "[NAME=]COL")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) header_column: Vec<String>,
    /// Timestamp of the records: the moment of sending, or the time in a column [default: now]
    #[arg(long, value_name = "now|COL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record_timestamp: Option<String>,
    /// How a key chooses the partition: murmur2 as Java's clients do, crc32 as librdkafka's do [default: murmur2]
    #[arg(long, value_name = "NAME", value_parser = values::partitioner, conflicts_with = "partition")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partitioner: Option<Partitioner>,
    /// All records go to this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<i32>,
}

impl RecordArgs {
    /// The same with the default of each option that can be typed out, as [`CsvArgs::in_force`].
    pub(crate) fn in_force(&self) -> Self {
        let timestamp = self.record_timestamp.clone();
        Self {
            format: Some(self.format()),
            key_format: Some(self.key_format().into()),
            json_times: self.json_times.or(Some(JsonTimes::Number)),
            record_timestamp: timestamp.or_else(|| Some("now".to_owned())),
            partitioner: match self.partition {
                Some(_) => None,
                None => Some(self.partitioner.unwrap_or_default()),
            },
            ..self.clone()
        }
    }

    /// The form of the values.
    pub(crate) fn format(&self) -> Format {
        self.format.unwrap_or(Format::Avro)
    }

    /// How keys are written.
    pub(crate) fn key_format(&self) -> KeyFormat {
        self.key_format.map_or_else(KeyFormat::default, Into::into)
    }

    /// Whether keys or values are Avro, which a registry is needed for.
    pub(crate) fn needs_registry(&self) -> bool {
        self.format() == Format::Avro || self.key_format() == KeyFormat::Avro
    }

    /// How partitions are chosen.
    pub(crate) fn partitioner(&self) -> Partitioner {
        match self.partition {
            Some(partition) => Partitioner::Only(partition),
            None => self.partitioner.unwrap_or_default(),
        }
    }

    /// The headers of each record, in order.
    pub(crate) fn headers(&self) -> Result<Vec<HeaderChoice>, Error> {
        let constants = self.header.iter().map(|text| HeaderChoice::constant(text));
        let columns = self
            .header_column
            .iter()
            .map(|text| HeaderChoice::column(text));
        constants.chain(columns).collect()
    }

    /// What the timestamp of a record is.
    pub(crate) fn timestamp(&self) -> Result<TimestampChoice, Error> {
        let typed = self.record_timestamp.as_deref();
        typed.map_or(Ok(TimestampChoice::Now), str::parse)
    }

    /// Fields that are constants, and their texts.
    pub(crate) fn constants(&self) -> Vec<(String, String)> {
        let pairs = self.set.iter().filter_map(|text| text.split_once('='));
        pairs
            .map(|(field, text)| (field.to_owned(), text.to_owned()))
            .collect()
    }
}

/// What becomes of rows with another number of cells than there are columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RaggedChoice {
    /// They are bad rows
    Error,
    /// Cells that are missing at the end are empty
    Pad,
    /// Surplus cells at the end are left out
    DropExtra,
}

/// The name that stands for all of an encoding's names, if it is one of them.
fn known_encoding(name: &str) -> Result<String, String> {
    NamedEncoding::parse(name).map(|encoding| encoding.name().to_owned())
}

/// What becomes of a time that a zone's clocks show twice or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AmbiguityChoice {
    /// The row is bad
    Error,
    /// The earlier point in time
    Earlier,
    /// The later point in time
    Later,
}

/// How JSON values hold times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JsonTimes {
    /// As the number that Avro would hold
    Number,
    /// As ISO 8601 has them
    Iso,
}

/// Form of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyForm {
    /// The text of the cell; of several, a JSON array of their texts
    String,
    /// Avro in the Confluent wire format (a registry is needed)
    Avro,
    /// A JSON value; of several columns, an object
    Json,
}

impl From<KeyForm> for KeyFormat {
    fn from(form: KeyForm) -> Self {
        match form {
            KeyForm::String => Self::Text,
            KeyForm::Avro => Self::Avro,
            KeyForm::Json => Self::Json,
        }
    }
}

impl From<KeyFormat> for KeyForm {
    fn from(format: KeyFormat) -> Self {
        match format {
            KeyFormat::Text => Self::String,
            KeyFormat::Avro => Self::Avro,
            KeyFormat::Json => Self::Json,
        }
    }
}

/// Form of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Avro in the Confluent wire format (a registry is needed)
    Avro,
    /// One JSON object a record
    Json,
}
