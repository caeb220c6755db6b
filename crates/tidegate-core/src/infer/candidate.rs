//! The types that a column may turn out to have, and what speaks against each.

use super::day::Day;
use crate::Result;
use crate::encode::scalar::{self, Problem};
use crate::encode::time::{self, TimeUnit};
use crate::encode::value::{AvroWriter, TimeType};
use crate::encode::written_time::{TimeForm, WrittenTime, time_zone};
use crate::encode::{CellFormat, Kind, NARROW_DIGITS, ValueFormat};

/// The types a column may turn out to have, narrowest first; string is what is left when all are ruled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Candidate {
    Boolean,
    Long,
    Double,
    Decimal,
    Date,
    /// A day written with the day before the month, or the other way round.
    DayFirst,
    MonthFirst,
    /// The same with a time of day behind it.
    DayFirstTime,
    MonthFirstTime,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    LocalTimestampMillis,
    LocalTimestampMicros,
    LocalTimestampNanos,
    Uuid,
}

/// A set of candidates.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Candidates(u32);

impl Candidates {
    pub(super) fn has(self, candidate: Candidate) -> bool {
        self.0 & 1 << candidate as u32 != 0
    }

    pub(super) fn add_all(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            self.0 |= 1 << *candidate as u32;
        }
    }
}

/// What all columns are tested by.
#[derive(Debug)]
pub(super) struct Tests {
    format: ValueFormat,
    /// How each time is written, where the options say so.
    times: Vec<(Candidate, WrittenTime)>,
    /// Times in the time zone that was named.
    zoned: Option<WrittenTime>,
    /// The words of booleans that were named, each with its opposite.
    booleans: Vec<(String, String)>,
    /// Where the encoder writes what it is tried with; kept from cell to cell.
    tried: Vec<u8>,
}

impl Tests {
    pub(super) fn new(format: ValueFormat, cells: &CellFormat) -> Result<Self> {
        let zone = cells.time_zone.as_deref().map(time_zone).transpose()?;
        let mut times = Vec::new();
        if !cells.time_formats.is_empty() || cells.time_zone.is_some() {
            let form = match cells.time_formats.as_slice() {
                [] => TimeForm::Iso,
                formats => TimeForm::parse(formats)?,
            };
            for candidate in Candidate::ALL {
                if let Some(of) = candidate.time_type() {
                    let time = WrittenTime {
                        of,
                        form: form.clone(),
                        zone: zone.clone(),
                        ambiguity: cells.time_ambiguity,
                    };
                    times.push((candidate, time));
                }
            }
        }
        Ok(Self {
            format,
            times,
            zoned: zone.map(|zone| WrittenTime {
                of: TimeType::Timestamp(TimeUnit::Milliseconds),
                form: TimeForm::Iso,
                zone: Some(zone),
                ambiguity: cells.time_ambiguity,
            }),
            booleans: cells.booleans.clone(),
            tried: Vec::new(),
        })
    }

    /// Which of the words that were named for booleans the text is.
    pub(super) fn named_word(&self, text: &[u8]) -> Option<bool> {
        let is = |word: &String| text.eq_ignore_ascii_case(word.as_bytes());
        let found = self.booleans.iter().find(|(yes, no)| is(yes) || is(no));
        found.map(|(yes, _)| is(yes))
    }

    fn written(&self, candidate: Candidate) -> Option<&WrittenTime> {
        let mut times = self.times.iter();
        times
            .find(|(known, _)| *known == candidate)
            .map(|(_, time)| time)
    }
}

impl Candidate {
    pub(super) const ALL: [Self; 18] = [
        Self::Boolean,
        Self::Long,
        Self::Double,
        Self::Decimal,
        Self::Date,
        Self::DayFirst,
        Self::MonthFirst,
        Self::DayFirstTime,
        Self::MonthFirstTime,
        Self::TimeMillis,
        Self::TimeMicros,
        Self::TimestampMillis,
        Self::TimestampMicros,
        Self::TimestampNanos,
        Self::LocalTimestampMillis,
        Self::LocalTimestampMicros,
        Self::LocalTimestampNanos,
        Self::Uuid,
    ];

    /// The name of its type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Long => "long",
            Self::Double => "double",
            Self::Decimal => "decimal",
            Self::Date | Self::DayFirst | Self::MonthFirst => "date",
            Self::DayFirstTime | Self::MonthFirstTime => "time behind a day",
            Self::TimeMillis => "time-millis",
            Self::TimeMicros => "time-micros",
            Self::TimestampMillis => "timestamp-millis",
            Self::TimestampMicros => "timestamp-micros",
            Self::TimestampNanos => "timestamp-nanos",
            Self::LocalTimestampMillis => "local-timestamp-millis",
            Self::LocalTimestampMicros => "local-timestamp-micros",
            Self::LocalTimestampNanos => "local-timestamp-nanos",
            Self::Uuid => "uuid",
        }
    }

    /// What all values of such a column are.
    pub(super) fn all_values(self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Long => "whole numbers",
            Self::Double => "decimal numbers",
            Self::Decimal => "decimal numbers, kept exactly",
            Self::Date => "days",
            Self::DayFirst => "days, written with the day before the month",
            Self::MonthFirst => "days, written with the month before the day",
            Self::DayFirstTime => "times, written with the day before the month",
            Self::MonthFirstTime => "times, written with the month before the day",
            Self::TimeMillis => "times of day, to the millisecond",
            Self::TimeMicros => "times of day, to the microsecond",
            Self::TimestampMillis => "points in time, to the millisecond",
            Self::TimestampMicros => "points in time, to the microsecond",
            Self::TimestampNanos => "points in time, to the nanosecond",
            Self::LocalTimestampMillis => "times without an offset from UTC, to the millisecond",
            Self::LocalTimestampMicros => "times without an offset from UTC, to the microsecond",
            Self::LocalTimestampNanos => "times without an offset from UTC, to the nanosecond",
            Self::Uuid => "uuids",
        }
    }

    /// The type that would have been taken if it had held, for the reason of this one.
    pub(super) fn narrower(self) -> Option<Self> {
        match self {
            Self::Double => Some(Self::Long),
            Self::Decimal => Some(Self::Double),
            Self::DayFirst => Some(Self::MonthFirst),
            Self::MonthFirst => Some(Self::DayFirst),
            Self::DayFirstTime => Some(Self::MonthFirstTime),
            Self::MonthFirstTime => Some(Self::DayFirstTime),
            Self::TimeMicros => Some(Self::TimeMillis),
            Self::TimestampMicros => Some(Self::TimestampMillis),
            Self::TimestampNanos => Some(Self::TimestampMicros),
            Self::LocalTimestampMicros => Some(Self::LocalTimestampMillis),
            Self::LocalTimestampNanos => Some(Self::LocalTimestampMicros),
            _ => None,
        }
    }

    pub(super) fn time_type(self) -> Option<TimeType> {
        use TimeUnit::{Microseconds, Milliseconds, Nanoseconds};
        Some(match self {
            Self::Date => TimeType::Date,
            Self::TimeMillis => TimeType::TimeOfDay(Milliseconds),
            Self::TimeMicros => TimeType::TimeOfDay(Microseconds),
            Self::TimestampMillis => TimeType::Timestamp(Milliseconds),
            Self::TimestampMicros => TimeType::Timestamp(Microseconds),
            Self::TimestampNanos => TimeType::Timestamp(Nanoseconds),
            Self::LocalTimestampMillis => TimeType::LocalTimestamp(Milliseconds),
            Self::LocalTimestampMicros => TimeType::LocalTimestamp(Microseconds),
            Self::LocalTimestampNanos => TimeType::LocalTimestamp(Nanoseconds),
            _ => return None,
        })
    }

    /// The wider types that hold a cell which this one holds, as far as that is clear without a test. They need not be asked: of the three units
    /// of a time, only one is tested for most cells.
    pub(super) fn implies(self, text: &[u8], tests: &Tests) -> &'static [Self] {
        // A count of epoch-seconds may be anywhere, and a pattern may have the year anywhere.
        if !tests.times.is_empty() {
            return &[];
        }
        // Nanoseconds reach from 1677 to 2262 only.
        let year = text.get(..4).unwrap_or_default();
        let is_near = (&b"1678"[..]..=&b"2261"[..]).contains(&year);
        match self {
            Self::TimeMillis => &[Self::TimeMicros],
            Self::TimestampMillis if is_near => &[Self::TimestampMicros, Self::TimestampNanos],
            Self::TimestampMillis => &[Self::TimestampMicros],
            Self::LocalTimestampMillis if is_near => {
                &[Self::LocalTimestampMicros, Self::LocalTimestampNanos]
            }
            Self::LocalTimestampMillis => &[Self::LocalTimestampMicros],
            _ => &[],
        }
    }

    /// Whether a column of this type may hold the cell, or why not.
    pub(super) fn test(self, text: &[u8], tests: &mut Tests) -> Result<(), Obstacle> {
        match self {
            Self::Boolean => {
                // 1 and 0 are taken by the encoder, but in an unknown file they are numbers.
                let is_word =
                    text.eq_ignore_ascii_case(b"true") || text.eq_ignore_ascii_case(b"false");
                if is_word { Ok(()) } else { Err(Obstacle::Form) }
            }
            Self::Long => {
                scalar::long(text)?;
                check_digits(text)?;
                // A negative zero would lose its sign.
                if text == b"-0" {
                    Err(Obstacle::Form)
                } else {
                    Ok(())
                }
            }
            Self::Double => test_double(text, tests.format),
            Self::Decimal => decimal_digits(text).map(drop),
            Self::DayFirst | Self::MonthFirst | Self::DayFirstTime | Self::MonthFirstTime => {
                self.read_day(text, tests).map(drop)
            }
            Self::Uuid => test_uuid(text),
            time => time.test_time(text, tests),
        }
    }

    /// Whether the day comes before the month.
    pub(super) fn is_day_first(self) -> bool {
        matches!(self, Self::DayFirst | Self::DayFirstTime)
    }

    /// Whether it is a day that does not begin with its year.
    pub(super) fn is_written_day(self) -> bool {
        matches!(self, Self::DayFirst | Self::MonthFirst) || self.has_clock()
    }

    /// Whether it is one with a time behind it.
    pub(super) fn has_clock(self) -> bool {
        matches!(self, Self::DayFirstTime | Self::MonthFirstTime)
    }

    /// The cell as a day that does not begin with its year.
    pub(super) fn read_day(self, text: &[u8], tests: &mut Tests) -> Result<Day, Obstacle> {
        let day = Day::read(text, self.is_day_first())?;
        if day.form.has_time() != self.has_clock() {
            return Err(Obstacle::Form);
        }
        if let (true, Some(zoned)) = (self.has_clock(), &tests.zoned) {
            zoned.parse(day.iso().as_bytes())?;
        }
        Ok(day)
    }

    fn test_time(self, text: &[u8], tests: &mut Tests) -> Result<(), Obstacle> {
        let Some(of) = self.time_type() else {
            return Err(Obstacle::Form);
        };
        // A bare number is never taken for a time unless it is said to be one.
        let is_number = text
            .iter()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
            && !matches!(text.get(4), Some(b'-'));
        if let Some(written) = tests.written(self) {
            let is_said = !matches!(written.form, TimeForm::Iso);
            if is_number && !is_said {
                return Err(Obstacle::Form);
            }
            if !is_said && matches!(of, TimeType::LocalTimestamp(_)) {
                // With a time zone each time is a point in time.
                return Err(Obstacle::Form);
            }
            if matches!(of, TimeType::Timestamp(_)) && text.len() <= 10 && !is_said {
                return Err(Obstacle::Form);
            }
            written.parse(text)?;
            return Ok(());
        }
        if is_number {
            return Err(Obstacle::Form);
        }
        let kind = match of {
            TimeType::Date if text.len() == 10 => Kind::Date,
            TimeType::TimeOfDay(unit) if text.get(2) == Some(&b':') => Kind::TimeOfDay(unit),
            // A day alone is no point in time.
            TimeType::Timestamp(unit) if text.len() > 10 && text.get(4) == Some(&b'-') => {
                if time::reading(text)?.1.is_none() {
                    return Err(Obstacle::NoOffset);
                }
                Kind::Timestamp(unit)
            }
            TimeType::LocalTimestamp(unit) if text.len() > 10 && text.get(4) == Some(&b'-') => {
                Kind::LocalTimestamp(unit)
            }
            _ => return Err(Obstacle::Form),
        };
        // What the encoder would say.
        tests.tried.clear();
        kind.put(text, true, &mut AvroWriter(&mut tests.tried))?;
        Ok(())
    }
}

/// Why a cell is no value of a candidate type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Form,
    LeadingZero,
    PlusSign,
    Range,
    Digits,
    NonFinite,
    Precision,
    NoOffset,
    Offset,
    NoClock,
}

impl From<Problem> for Obstacle {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::OutOfRange => Self::Range,
            Problem::TooPrecise => Self::Precision,
            Problem::NotInJson => Self::NonFinite,
            Problem::HasOffset => Self::Offset,
            Problem::InGap | Problem::InFold => Self::NoClock,
            _ => Self::Form,
        }
    }
}

/// A number of so few characters is exact enough in a double, and within the range of a long where it is a whole one.
pub(super) const SHORT_NUMBER: usize = 15;

/// Most significant digits that every double tells apart.
const DOUBLE_DIGITS: usize = 17;

/// Whole numbers below this size are all told apart by doubles.
const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;

fn test_double(text: &[u8], format: ValueFormat) -> Result<(), Obstacle> {
    let value = scalar::double(text)?;
    if !value.is_finite() {
        return if format == ValueFormat::Json {
            Err(Obstacle::NonFinite)
        } else {
            Ok(())
        };
    }
    check_digits(text)?;
    if text.len() <= SHORT_NUMBER {
        return Ok(());
    }
    let mantissa = text
        .split(|byte| matches!(byte, b'e' | b'E'))
        .next()
        .unwrap_or_default();
    let is_whole = mantissa.len() == text.len() && !text.contains(&b'.');
    let significant = mantissa
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .skip_while(|digit| **digit == b'0')
        .count();
    if is_whole && value.abs() >= FIRST_INEXACT || significant > DOUBLE_DIGITS {
        return Err(Obstacle::Digits);
    }
    Ok(())
}

/// How many digits a decimal number has before the point, and how many behind it.
pub(super) fn decimal_digits(text: &[u8]) -> Result<(usize, usize), Obstacle> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    check_digits(text)?;
    let (whole, fraction) = match unsigned.iter().position(|byte| *byte == b'.') {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, &[][..]),
    };
    let are_digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    let is_zero = || whole.iter().chain(fraction).all(|digit| *digit == b'0');
    // A negative zero would lose its sign.
    if whole.is_empty() || !are_digits || text.starts_with(b"-") && is_zero() {
        return Err(Obstacle::Form);
    }
    if whole.len() + fraction.len() > NARROW_DIGITS {
        return Err(Obstacle::Range);
    }
    Ok((whole.len(), fraction.len()))
}

/// A number that is written as numbers are, not as codes are.
fn check_digits(text: &[u8]) -> Result<(), Obstacle> {
    match text {
        [b'+', ..] => Err(Obstacle::PlusSign),
        [b'0', b'0'..=b'9', ..] | [b'-', b'0', b'0'..=b'9', ..] => Err(Obstacle::LeadingZero),
        _ => Ok(()),
    }
}

/// Lower case and hyphens, as it will be written.
fn test_uuid(text: &[u8]) -> Result<(), Obstacle> {
    let is_hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, byte): (usize, &u8)| match byte {
        b'-' => is_hyphen(at),
        b'0'..=b'9' | b'a'..=b'f' => !is_hyphen(at),
        _ => false,
    };
    if text.len() == 36 && text.iter().enumerate().all(fits) {
        Ok(())
    } else {
        Err(Obstacle::Form)
    }
}
