//! Times that are not written as ISO 8601 has it, or that need a time zone to be a point in time.

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use super::scalar::{Problem, long};
use super::time::{self, Instant, days_since_epoch};
use super::value::TimeType;
use crate::{Error, Result};

/// What becomes of a local time that a time zone shows twice or never, when its clocks are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeAmbiguity {
    /// It is an error.
    #[default]
    Error,
    /// It is the earlier of the two points in time.
    Earlier,
    /// It is the later of the two.
    Later,
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum TimeForm {
    /// As ISO 8601 has it; a whole number counts in the type's own unit.
    #[default]
    Iso,
    /// As so many units since 1970-01-01T00:00:00Z, perhaps with a fraction.
    Epoch {
        /// How many of them a second has.
        per_second: i64,
    },
    /// As one of these strptime patterns, the first that fits.
    Patterns(Box<[String]>),
}

/// The words for [`TimeForm`] that are no patterns.
const WORDS: [(&str, TimeForm); 5] = [
    ("iso", TimeForm::Iso),
    ("epoch-seconds", TimeForm::Epoch { per_second: 1 }),
    ("epoch-millis", TimeForm::Epoch { per_second: 1_000 }),
    (
        "epoch-micros",
        TimeForm::Epoch {
            per_second: 1_000_000,
        },
    ),
    (
        "epoch-nanos",
        TimeForm::Epoch {
            per_second: 1_000_000_000,
        },
    ),
];

impl TimeForm {
    /// A form by its word, or patterns.
    pub(crate) fn parse(formats: &[String]) -> Result<Self> {
        if let [only] = formats {
            if let Some((_, form)) = WORDS.iter().find(|(word, _)| word == only) {
                return Ok(form.clone());
            }
            if !only.contains('%') {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                return Err(Error::option(format!(
                    "`{only}` is no format of times: known are {}, and patterns such as %d.%m.%Y %H:%M",
                    words.join(", ")
                )));
            }
        }
        let is_word = |format: &&String| WORDS.iter().any(|(word, _)| word == format);
        if let Some(word) = formats.iter().find(is_word) {
            return Err(Error::option(format!(
                "the time format `{word}` stands alone: other formats beside it must be patterns"
            )));
        }
        let anything = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        for pattern in formats {
            if pattern.contains("%I") && !pattern.contains("%p") && !pattern.contains("%P") {
                return Err(Error::option(format!(
                    "the time format `{pattern}` has hours up to 12 and no %p, which says before or after noon"
                )));
            }
            // What can write a time that has everything is a sound pattern.
            if let Err(error) = jiff::fmt::strtime::format(pattern, &anything) {
                return Err(Error::option(format!(
                    "the time format `{pattern}`: {error}"
                )));
            }
        }
        Ok(Self::Patterns(formats.into()))
    }
}

/// A time, and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenTime {
    pub(crate) of: TimeType,
    pub(crate) form: TimeForm,
    /// Where its clock stands, if the text does not say so; UTC if nobody does.
    pub(crate) zone: Option<TimeZone>,
    pub(crate) ambiguity: TimeAmbiguity,
}

/// A time as it is written: on which clock is known or not.
enum Reading {
    Local(Instant),
    Absolute(Instant),
}

impl WrittenTime {
    /// The count of the type.
    pub(crate) fn parse(&self, text: &[u8]) -> Result<i64, Problem> {
        match &self.form {
            TimeForm::Iso => self.iso(text),
            TimeForm::Epoch { per_second } => {
                self.count(Reading::Absolute(epoch(text, *per_second)?))
            }
            TimeForm::Patterns(patterns) => {
                let text = str::from_utf8(text).map_err(|_| Problem::NotWrittenAsOne)?;
                let mut problem = Problem::NotWrittenAsOne;
                for pattern in patterns {
                    match self.pattern(pattern, text) {
                        Ok(count) => return Ok(count),
                        Err(found) if problem == Problem::NotWrittenAsOne => problem = found,
                        Err(_) => {}
                    }
                }
                Err(problem)
            }
        }
    }

    fn iso(&self, text: &[u8]) -> Result<i64, Problem> {
        if text.iter().all(u8::is_ascii_digit) || text.first() == Some(&b'-') {
            return self.own_count(text);
        }
        match self.of {
            TimeType::TimeOfDay(unit) => time::time_of_day(text)?.in_unit(unit),
            TimeType::Date if text.len() == 10 => Ok(i64::from(time::day(text)?)),
            _ => {
                let (local, offset) = time::reading(text)?;
                self.count(match offset {
                    None => Reading::Local(local),
                    Some(offset) => Reading::Absolute(Instant {
                        seconds: local.seconds - offset,
                        ..local
                    }),
                })
            }
        }
    }

    /// A whole number, in the type's own unit.
    fn own_count(&self, text: &[u8]) -> Result<i64, Problem> {
        let count = long(text)?;
        let fits = match self.of {
            TimeType::Date => i32::try_from(count).is_ok(),
            TimeType::TimeOfDay(unit) => (0..86_400 * unit.per_second()).contains(&count),
            TimeType::Timestamp(_) | TimeType::LocalTimestamp(_) => true,
        };
        if fits {
            Ok(count)
        } else {
            Err(Problem::OutOfRange)
        }
    }

    fn pattern(&self, pattern: &str, text: &str) -> Result<i64, Problem> {
        let tm = BrokenDownTime::parse(pattern, text).map_err(|_| Problem::NotWrittenAsOne)?;
        if tm.second() == Some(59) && is_leap_second(pattern, text) {
            return Err(Problem::OutOfRange);
        }
        if let TimeType::TimeOfDay(unit) = self.of {
            if tm.offset().is_some() || tm.iana_time_zone().is_some() {
                return Err(Problem::HasOffset);
            }
            if tm.hour().is_none()
                || tm.year().is_some()
                || tm.month().is_some()
                || tm.day().is_some()
            {
                return Err(Problem::NotWrittenAsOne);
            }
            let time = tm.to_time().map_err(|_| Problem::NotWrittenAsOne)?;
            return instant_of(DateTime::from_parts(jiff::civil::date(1970, 1, 1), time))
                .in_unit(unit);
        }
        if tm.offset().is_some() || tm.iana_time_zone().is_some() {
            let at = tm.to_timestamp().map_err(|_| Problem::OutOfRange)?;
            return self.count(Reading::Absolute(absolute(at)?));
        }
        // A day alone is its midnight; a count since 1970 is a point in time.
        match (tm.to_datetime(), tm.to_timestamp()) {
            (Ok(local), _) => self.count(Reading::Local(instant_of(local))),
            (Err(_), Ok(at)) => self.count(Reading::Absolute(absolute(at)?)),
            (Err(_), Err(_)) => Err(Problem::OutOfRange),
        }
    }

    fn count(&self, reading: Reading) -> Result<i64, Problem> {
        match (self.of, reading) {
            (TimeType::Timestamp(unit), Reading::Absolute(at)) => at.in_unit(unit),
            (TimeType::Timestamp(unit), Reading::Local(local)) => self.at(local)?.in_unit(unit),
            (TimeType::LocalTimestamp(unit), Reading::Local(local)) => local.in_unit(unit),
            (TimeType::LocalTimestamp(unit), Reading::Absolute(at)) => {
                match (&self.form, &self.zone) {
                    // Of what is counted from 1970 in UTC, the reading of a clock is asked for.
                    (_, Some(zone)) => shown_at(at, zone)?.in_unit(unit),
                    (TimeForm::Epoch { .. }, None) => at.in_unit(unit),
                    (_, None) => Err(Problem::HasOffset),
                }
            }
            (TimeType::Date, Reading::Local(local)) => day_of(local),
            (TimeType::Date, Reading::Absolute(at)) => match (&self.form, &self.zone) {
                (_, Some(zone)) => day_of(shown_at(at, zone)?),
                (TimeForm::Epoch { .. }, None) => day_of(at),
                (_, None) => Err(Problem::HasOffset),
            },
            (TimeType::TimeOfDay(unit), Reading::Local(at) | Reading::Absolute(at)) => Instant {
                seconds: at.seconds.rem_euclid(86_400),
                ..at
            }
            .in_unit(unit),
        }
    }

    /// The point in time of a local one.
    fn at(&self, local: Instant) -> Result<Instant, Problem> {
        let Some(zone) = &self.zone else {
            return Ok(local);
        };
        let ambiguous = zone.to_ambiguous_timestamp(civil(local)?);
        let offset = match (ambiguous.offset(), self.ambiguity) {
            (AmbiguousOffset::Unambiguous { offset }, _) => offset,
            (AmbiguousOffset::Gap { .. }, TimeAmbiguity::Error) => return Err(Problem::InGap),
            (AmbiguousOffset::Fold { .. }, TimeAmbiguity::Error) => return Err(Problem::InFold),
            (AmbiguousOffset::Gap { before, after }, ambiguity) => match ambiguity {
                // In a gap the offset after it makes the earlier point in time.
                TimeAmbiguity::Earlier => after,
                _ => before,
            },
            (AmbiguousOffset::Fold { before, after }, ambiguity) => match ambiguity {
                TimeAmbiguity::Earlier => before,
                _ => after,
            },
        };
        Ok(Instant {
            seconds: local.seconds - i64::from(offset.seconds()),
            ..local
        })
    }
}

/// The time zone with that name in the database that the program brings along.
///
/// # Errors
/// [`ErrorKind::Option`](crate::ErrorKind::Option) when there is none.
pub(crate) fn time_zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| {
        Error::option(format!(
            "there is no time zone `{name}`: expected an IANA name such as Europe/Zurich, or UTC"
        ))
    })
}

/// The crate takes a leap second for the one before it. A `60` that may as well be a `58` is one of seconds.
fn is_leap_second(pattern: &str, text: &str) -> bool {
    text.match_indices("60").any(|(at, _)| {
        let other = format!("{}58{}", &text[..at], &text[at + 2..]);
        BrokenDownTime::parse(pattern, other).is_ok_and(|tm| tm.second() == Some(58))
    })
}

fn absolute(at: jiff::Timestamp) -> Result<Instant, Problem> {
    let nanoseconds = at.as_nanosecond();
    let (seconds, rest) = (
        nanoseconds.div_euclid(1_000_000_000),
        nanoseconds.rem_euclid(1_000_000_000),
    );
    Ok(Instant {
        seconds: i64::try_from(seconds).map_err(|_| Problem::OutOfRange)?,
        nanoseconds: u32::try_from(rest).map_err(|_| Problem::OutOfRange)?,
    })
}

/// A day; a time behind midnight would be lost.
fn day_of(local: Instant) -> Result<i64, Problem> {
    if local.seconds.rem_euclid(86_400) != 0 || local.nanoseconds != 0 {
        return Err(Problem::TooPrecise);
    }
    let day = local.seconds.div_euclid(86_400);
    i32::try_from(day)
        .map(i64::from)
        .map_err(|_| Problem::OutOfRange)
}

/// What a clock of the zone shows.
fn shown_at(at: Instant, zone: &TimeZone) -> Result<Instant, Problem> {
    let point = jiff::Timestamp::from_second(at.seconds).map_err(|_| Problem::OutOfRange)?;
    let offset = i64::from(zone.to_offset(point).seconds());
    Ok(Instant {
        seconds: at.seconds + offset,
        ..at
    })
}

fn instant_of(local: DateTime) -> Instant {
    let time = local.time();
    let [hour, minute, second] = [time.hour(), time.minute(), time.second()].map(i64::from);
    Instant {
        seconds: i64::from(days_since_epoch(local.date())) * 86_400
            + hour * 3_600
            + minute * 60
            + second,
        nanoseconds: time.subsec_nanosecond().unsigned_abs(),
    }
}

fn civil(local: Instant) -> Result<DateTime, Problem> {
    let at = jiff::Timestamp::from_second(local.seconds).map_err(|_| Problem::OutOfRange)?;
    Ok(TimeZone::UTC.to_datetime(at))
}

/// A count since 1970 with an optional sign and fraction.
fn epoch(text: &[u8], per_second: i64) -> Result<Instant, Problem> {
    let split = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match split {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    if split.is_some() && (fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit)) {
        return Err(Problem::NotWrittenAsOne);
    }
    let each = i128::from(1_000_000_000 / per_second);
    let mut nanoseconds = i128::from(long(whole)?) * each;
    let (mut part, mut weight) = (0, each);
    for digit in fraction {
        let digit = i128::from(digit - b'0');
        if digit > 0 && weight < 10 {
            return Err(Problem::TooPrecise);
        }
        weight /= 10;
        part += digit * weight;
    }
    nanoseconds += if text.starts_with(b"-") { -part } else { part };
    Ok(Instant {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000))
            .map_err(|_| Problem::OutOfRange)?,
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000))
            .map_err(|_| Problem::OutOfRange)?,
    })
}
