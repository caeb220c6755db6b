//! The types that cells become: what each takes for a value, and how it is called in messages.

use std::cell::RefCell;

use super::coded::{Coding, duration};
use super::collection::Collection;
use super::decimal::DecimalType;
use super::scalar::{self, Problem};
use super::time::{self, TimeUnit};
use super::value::{TimeType, ValueWriter};
use super::written_time::{TimeForm, WrittenTime};

thread_local! {
    /// Where coded bytes are decoded; grown once.
    static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The type a cell becomes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    /// A boolean by words of its own.
    Words(Box<Words>),
    Int,
    Long,
    Float,
    Double,
    Bytes(Coding),
    Fixed(usize, Coding),
    String,
    Uuid(UuidForm),
    /// The symbols, sorted, each with its index in the schema.
    Enum(Box<[(Box<[u8]>, i32)]>),
    Timestamp(TimeUnit),
    LocalTimestamp(TimeUnit),
    TimeOfDay(TimeUnit),
    Date,
    /// Any of these four, written in another way.
    Written(Box<WrittenTime>),
    Duration,
    Decimal(DecimalType),
    Array(Box<Collection>),
    Map(Box<Collection>),
    /// The first of these that takes the text, each behind the index of its branch.
    Union(Box<[(u8, Self)]>),
}

/// The texts of a boolean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) yes: Box<[String]>,
    pub(crate) no: Box<[String]>,
}

/// What Avro type an identifier stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UuidForm {
    Text,
    Fixed,
}

impl Kind {
    /// Writes the value that a text stands for. After an error a part of it may have been written.
    #[inline]
    pub(crate) fn put<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        match self {
            Self::Long => out.integer(scalar::long(text)?),
            Self::Double => out.double(scalar::double(text)?)?,
            Self::String => {
                if !is_ascii && str::from_utf8(text).is_err() {
                    return Err(Problem::NotWrittenAsOne);
                }
                out.text(text);
            }
            Self::Int => out.integer(i64::from(scalar::int(text)?)),
            Self::Float => out.float(scalar::float(text)?)?,
            Self::Boolean => out.boolean(scalar::boolean(text)?),
            Self::Timestamp(unit) => {
                out.time(scalar::timestamp(text, *unit)?, TimeType::Timestamp(*unit));
            }
            Self::Date => out.time(i64::from(scalar::date(text)?), TimeType::Date),
            Self::Enum(symbols) => out.symbol(find_symbol(symbols, text)?, text),
            rarer => rarer.put_rarer(text, is_ascii, out)?,
        }
        Ok(())
    }

    fn put_rarer<W: ValueWriter>(
        &self,
        text: &[u8],
        is_ascii: bool,
        out: &mut W,
    ) -> Result<(), Problem> {
        match self {
            Self::Null if text.is_empty() => out.null(),
            Self::Bytes(coding) => decoded(*coding, text, |bytes| {
                out.bytes(bytes, false);
                Ok(())
            })?,
            Self::Fixed(size, coding) => decoded(*coding, text, |bytes| {
                if bytes.len() != *size {
                    return Err(Problem::OutOfRange);
                }
                out.bytes(bytes, true);
                Ok(())
            })?,
            Self::Words(words) => out.boolean(words.parse(text)?),
            Self::Uuid(form) => form.put(text, out)?,
            Self::LocalTimestamp(unit) => {
                let of = TimeType::LocalTimestamp(*unit);
                out.time(local_timestamp(text, *unit)?, of);
            }
            Self::TimeOfDay(unit) => {
                out.time(time_of_day(text, *unit)?, TimeType::TimeOfDay(*unit));
            }
            Self::Written(time) => out.time(time.parse(text)?, time.of),
            Self::Duration => out.duration(duration(text)?),
            Self::Decimal(decimal) => decimal.put(text, out)?,
            Self::Array(items) => items.put_array(text, is_ascii, out)?,
            Self::Map(values) => values.put_map(text, is_ascii, out)?,
            Self::Union(branches) => {
                let mark = out.mark();
                let mut problem = Problem::NotWrittenAsOne;
                for (index, kind) in branches {
                    out.branch(*index);
                    match kind.put(text, is_ascii, out) {
                        Ok(()) => return Ok(()),
                        // Of a text that is almost a value of some branch more can be said than that it is none of the others.
                        Err(found) if problem == Problem::NotWrittenAsOne => problem = found,
                        Err(_) => {}
                    }
                    out.go_back(mark);
                }
                return Err(problem);
            }
            _ => return Err(Problem::NotWrittenAsOne),
        }
        Ok(())
    }

    /// Whether an empty text is a value of the type.
    pub(crate) fn holds_empty(&self) -> bool {
        match self {
            Self::String | Self::Bytes(_) => true,
            Self::Union(branches) => branches.iter().any(|(_, kind)| kind.holds_empty()),
            _ => false,
        }
    }

    /// Whether it has items that are null where they are one of the texts said for it.
    pub(crate) fn has_null_items(&self) -> bool {
        matches!(self, Self::Array(items) | Self::Map(items) if items.nulls.is_some())
    }

    /// Whether this is so of the kind, or of one inside it.
    pub(crate) fn any(&self, is: impl Fn(&Self) -> bool + Copy) -> bool {
        is(self)
            || match self {
                Self::Array(items) | Self::Map(items) => items.item.any(is),
                Self::Union(branches) => branches.iter().any(|(_, kind)| kind.any(is)),
                _ => false,
            }
    }

    /// Whether it is a day, a time of day or a point in time.
    pub(crate) fn is_time(&self) -> bool {
        matches!(
            self,
            Self::Timestamp(_)
                | Self::LocalTimestamp(_)
                | Self::TimeOfDay(_)
                | Self::Date
                | Self::Written(_)
        )
    }

    /// Whether it is a point in time.
    pub(crate) fn is_timestamp(&self) -> bool {
        match self {
            Self::Timestamp(_) | Self::LocalTimestamp(_) => true,
            Self::Written(time) => {
                matches!(
                    time.of,
                    TimeType::Timestamp(_) | TimeType::LocalTimestamp(_)
                )
            }
            _ => false,
        }
    }

    /// What a cell of this type holds, for messages.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Null => "nothing (the field's type is null)".into(),
            Self::Boolean => "a boolean (true or false)".into(),
            Self::Words(words) => format!(
                "a boolean ({} or {})",
                words.yes.join(", "),
                words.no.join(", ")
            ),
            Self::Int => "an int (a whole number of 32 bits)".into(),
            Self::Long => "a long (a whole number of 64 bits)".into(),
            Self::Float => "a float (a decimal number)".into(),
            Self::Double => "a double (a decimal number)".into(),
            Self::Bytes(coding) => coding.name().into(),
            Self::Fixed(size, coding) => format!("{size} {}", coding.name()),
            Self::String => "a string in UTF-8".into(),
            Self::Uuid(_) => "a uuid (such as 123e4567-e89b-12d3-a456-426614174000)".into(),
            Self::Enum(symbols) => one_of(symbols),
            Self::Duration => "a duration (such as P1M2DT3.5S)".into(),
            Self::Decimal(decimal) => format!(
                "a decimal of {} digits, {} of them behind the point",
                decimal.precision, decimal.scale
            ),
            Self::Array(items) => format!("an array ({})", items.expected()),
            Self::Map(values) => format!("a map ({})", values.expected()),
            Self::Union(branches) => {
                let all: Vec<String> = branches.iter().map(|(_, kind)| kind.expected()).collect();
                all.join(", or ")
            }
            Self::Timestamp(unit) => expected_time(TimeType::Timestamp(*unit)),
            Self::LocalTimestamp(unit) => expected_time(TimeType::LocalTimestamp(*unit)),
            Self::TimeOfDay(unit) => expected_time(TimeType::TimeOfDay(*unit)),
            Self::Date => expected_time(TimeType::Date),
            Self::Written(time) => expected_written(time),
        }
    }
}

impl Words {
    fn parse(&self, text: &[u8]) -> Result<bool, Problem> {
        let is_in = |words: &[String]| {
            let mut words = words.iter();
            words.any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        };
        if is_in(&self.yes) {
            Ok(true)
        } else if is_in(&self.no) {
            Ok(false)
        } else {
            Err(Problem::NotWrittenAsOne)
        }
    }
}

impl UuidForm {
    fn put<W: ValueWriter>(self, text: &[u8], out: &mut W) -> Result<(), Problem> {
        // The crate also takes braces and the prefix of a URN.
        if !matches!(text.len(), 32 | 36) {
            return Err(Problem::NotWrittenAsOne);
        }
        let id = uuid::Uuid::try_parse_ascii(text).map_err(|_| Problem::NotWrittenAsOne)?;
        match self {
            Self::Fixed => out.bytes(id.as_bytes(), true),
            Self::Text => {
                let mut buffer = uuid::Uuid::encode_buffer();
                out.text(id.hyphenated().encode_lower(&mut buffer).as_bytes());
            }
        }
        Ok(())
    }
}

fn decoded(
    coding: Coding,
    text: &[u8],
    take: impl FnOnce(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    DECODED.with_borrow_mut(|buffer| take(coding.decode(text, buffer)?))
}

/// As [`scalar::timestamp`], of a clock whose place nobody knows: an offset would be lost.
fn local_timestamp(text: &[u8], unit: TimeUnit) -> Result<i64, Problem> {
    if text.len() < 10 || text.first() == Some(&b'-') || text.iter().all(u8::is_ascii_digit) {
        return scalar::long(text);
    }
    match time::reading(text)? {
        (local, None) => local.in_unit(unit),
        (_, Some(_)) => Err(Problem::HasOffset),
    }
}

fn time_of_day(text: &[u8], unit: TimeUnit) -> Result<i64, Problem> {
    if text.get(2) == Some(&b':') {
        return time::time_of_day(text)?.in_unit(unit);
    }
    let count = scalar::long(text)?;
    if (0..86_400 * unit.per_second()).contains(&count) {
        Ok(count)
    } else {
        Err(Problem::OutOfRange)
    }
}

/// The index of a symbol.
fn find_symbol(symbols: &[(Box<[u8]>, i32)], text: &[u8]) -> Result<i32, Problem> {
    match symbols.binary_search_by(|(symbol, _)| (**symbol).cmp(text)) {
        Ok(found) => Ok(symbols[found].1),
        Err(_) => Err(Problem::NotWrittenAsOne),
    }
}

fn one_of(symbols: &[(Box<[u8]>, i32)]) -> String {
    let mut names: Vec<_> = symbols.iter().collect();
    names.sort_by_key(|(_, index)| *index);
    let shown = names.iter().take(10);
    let shown: Vec<_> = shown
        .map(|(name, _)| String::from_utf8_lossy(name))
        .collect();
    let more = if names.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("one of {}{more}", shown.join(", "))
}

/// The name of a type of times.
fn time_name(of: TimeType) -> String {
    let unit = |unit| match unit {
        TimeUnit::Milliseconds => "millis",
        TimeUnit::Microseconds => "micros",
        TimeUnit::Nanoseconds => "nanos",
    };
    match of {
        TimeType::Date => "date".into(),
        TimeType::TimeOfDay(of) => format!("time-{}", unit(of)),
        TimeType::Timestamp(of) => format!("timestamp-{}", unit(of)),
        TimeType::LocalTimestamp(of) => format!("local-timestamp-{}", unit(of)),
    }
}

fn expected_time(of: TimeType) -> String {
    let (example, zone) = match of {
        TimeType::Date => return "a date (such as 2024-01-31, or days since 1970)".into(),
        TimeType::TimeOfDay(unit) => (clock(unit), ""),
        TimeType::Timestamp(unit) => (clock(unit), "Z"),
        TimeType::LocalTimestamp(unit) => (clock(unit), ""),
    };
    let (day, since, unit) = match of {
        TimeType::TimeOfDay(unit) => ("", "midnight", unit),
        TimeType::Timestamp(unit) | TimeType::LocalTimestamp(unit) => ("2024-01-31T", "1970", unit),
        TimeType::Date => ("", "1970", TimeUnit::Milliseconds),
    };
    let units = match unit {
        TimeUnit::Milliseconds => "milliseconds",
        TimeUnit::Microseconds => "microseconds",
        TimeUnit::Nanoseconds => "nanoseconds",
    };
    format!(
        "a {} (such as {day}{example}{zone}, or {units} since {since})",
        time_name(of)
    )
}

fn clock(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Milliseconds => "12:30:15.250",
        TimeUnit::Microseconds => "12:30:15.250001",
        TimeUnit::Nanoseconds => "12:30:15.250000001",
    }
}

fn expected_written(time: &WrittenTime) -> String {
    let zone = match time.zone.as_ref().and_then(|zone| zone.iana_name()) {
        Some(name) => format!(", in {name}"),
        None => String::new(),
    };
    match &time.form {
        TimeForm::Iso => format!("{}{zone}", expected_time(time.of)),
        TimeForm::Epoch { per_second } => {
            let unit = match per_second {
                1 => "seconds",
                1_000 => "milliseconds",
                1_000_000 => "microseconds",
                _ => "nanoseconds",
            };
            format!("a {} as {unit} since 1970{zone}", time_name(time.of))
        }
        TimeForm::Patterns(patterns) => {
            let patterns = patterns.join(" or ");
            format!("a {} written as {patterns}{zone}", time_name(time.of))
        }
    }
}
