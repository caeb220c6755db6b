//! What a schema says of the cells of a field: its attributes whose names begin with `tidegate.`.
//!
//! Avro leaves attributes that it does not know to whoever does (specification 1.12, "Schema Declaration"), and registries keep them.

use apache_avro::schema::RecordField;
use serde_json::Value;

use crate::encode::{NullTokens, Rounding, TimeAmbiguity};
use crate::{Error, Result};

/// The attribute that names a field's column, where that is not the field's own name, or several, whose texts are put together. Inference
/// writes it for headers that are no Avro names.
pub const COLUMN_ATTRIBUTE: &str = "tidegate.column";
/// The attribute that says how times are written (a word or strptime patterns), or bytes (`hex`, `base64`).
pub const FORMAT_ATTRIBUTE: &str = "tidegate.format";
/// The attribute that lists the texts that stand for null in a field, instead of the general ones.
pub const NULL_ATTRIBUTE: &str = "tidegate.null";
/// The attributes that list the texts of a boolean.
pub const TRUE_ATTRIBUTE: &str = "tidegate.true";
/// See [`TRUE_ATTRIBUTE`].
pub const FALSE_ATTRIBUTE: &str = "tidegate.false";
/// The attribute that names the time zone of times that say none.
pub const TIME_ZONE_ATTRIBUTE: &str = "tidegate.time-zone";
/// The attribute that says what becomes of times which that zone shows twice or never.
pub const TIME_AMBIGUITY_ATTRIBUTE: &str = "tidegate.time-ambiguity";

pub(super) const PREFIX: &str = "tidegate.";
const DELIMITER: &str = "tidegate.delimiter";
const ROUNDING: &str = "tidegate.rounding";
const KNOWN: [&str; 9] = [
    COLUMN_ATTRIBUTE,
    FORMAT_ATTRIBUTE,
    NULL_ATTRIBUTE,
    TRUE_ATTRIBUTE,
    FALSE_ATTRIBUTE,
    DELIMITER,
    TIME_ZONE_ATTRIBUTE,
    TIME_AMBIGUITY_ATTRIBUTE,
    ROUNDING,
];

/// The attributes of a field.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// The columns it is taken from.
    pub(super) columns: Vec<String>,
    pub(super) formats: Vec<String>,
    pub(super) nulls: Option<NullTokens>,
    /// The texts of true and of false.
    pub(super) booleans: Option<[Vec<String>; 2]>,
    /// What stands between the items of an array or a map in a cell.
    pub(super) delimiter: Option<String>,
    pub(super) time_zone: Option<String>,
    pub(super) time_ambiguity: Option<TimeAmbiguity>,
    pub(super) rounding: Option<Rounding>,
}

impl Attributes {
    /// Reads those of a field; `path` is its name in errors.
    pub(super) fn of(field: &RecordField, path: &str) -> Result<Self> {
        let mut found = Self::default();
        let (mut yes, mut no) = (None, None);
        let own = field.custom_attributes.iter();
        for (name, value) in own.filter(|(name, _)| name.starts_with(PREFIX)) {
            let given = Given { path, name, value };
            match name.as_str() {
                COLUMN_ATTRIBUTE => found.columns = given.texts()?,
                FORMAT_ATTRIBUTE => found.formats = given.texts()?,
                NULL_ATTRIBUTE if given.is_empty() => found.nulls = Some(NullTokens::default()),
                NULL_ATTRIBUTE => found.nulls = Some(NullTokens::new(&given.texts()?)),
                TRUE_ATTRIBUTE => yes = Some(given.texts()?),
                FALSE_ATTRIBUTE => no = Some(given.texts()?),
                DELIMITER => found.delimiter = Some(given.text()?.to_owned()),
                TIME_ZONE_ATTRIBUTE => found.time_zone = Some(given.text()?.to_owned()),
                TIME_AMBIGUITY_ATTRIBUTE => {
                    found.time_ambiguity = Some(given.word("error, earlier and later")?);
                }
                ROUNDING => found.rounding = Some(given.word("half-even, half-up and down")?),
                _ => return Err(given.unknown()),
            }
        }
        found.booleans = match (yes, no) {
            (Some(yes), Some(no)) => {
                if let Some(word) = in_both(&yes, &no) {
                    return Err(Error::schema(format!(
                        "the field `{path}` says that `{word}` is both true and false"
                    )));
                }
                Some([yes, no])
            }
            (None, None) => None,
            _ => {
                return Err(Error::schema(format!(
                    "the field `{path}` has only one of {TRUE_ATTRIBUTE} and {FALSE_ATTRIBUTE}"
                )));
            }
        };
        if found.delimiter.as_deref() == Some("") {
            return Err(Error::schema(format!(
                "the field `{path}` has an empty {DELIMITER}"
            )));
        }
        Ok(found)
    }
}

/// The first of some words that is among others too, in whatever case.
pub(super) fn in_both<'w>(
    words: impl IntoIterator<Item = &'w String>,
    others: &[impl AsRef<str>],
) -> Option<&'w String> {
    let is_other = |word: &&String| {
        let mut others = others.iter();
        others.any(|other| word.eq_ignore_ascii_case(other.as_ref()))
    };
    words.into_iter().find(is_other)
}

/// An attribute as it stands in a schema.
struct Given<'a> {
    path: &'a str,
    name: &'a str,
    value: &'a Value,
}

impl Given<'_> {
    fn is_empty(&self) -> bool {
        self.value.as_array().is_some_and(Vec::is_empty)
    }

    fn text(&self) -> Result<&str> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    /// A string, or an array of strings.
    fn texts(&self) -> Result<Vec<String>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = match self.value {
            Value::Array(values) if !values.is_empty() => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        texts.ok_or_else(|| self.wrong("a string or an array of strings"))
    }

    fn word<T: serde::de::DeserializeOwned>(&self, known: &str) -> Result<T> {
        serde_json::from_value(self.value.clone())
            .map_err(|_| self.wrong(&format!("one of {known}")))
    }

    fn wrong(&self, expected: &str) -> Error {
        let Self { path, name, value } = self;
        Error::schema(format!(
            "the attribute {name} of the field `{path}` is {value}: expected {expected}"
        ))
    }

    fn unknown(&self) -> Error {
        let Self { path, name, .. } = self;
        Error::schema(format!(
            "the field `{path}` has an attribute {name}, which is not known: known are {}",
            KNOWN.join(", ")
        ))
    }
}
