//! Days and points in time written as ISO 8601 texts.
//!
//! One layout is taken, the one that databases, spreadsheets and programming languages write: `2024-01-31`, `2024-01-31T12:30Z`,
//! `2024-01-31 12:30:15.250+02:00`, and its basic form `20240131T123015Z`. Without an offset a time is UTC, unless a time zone is said. A leap
//! second, `24:00` and days that do not exist are refused.

use jiff::civil::Date;

use super::scalar::Problem;

/// What a timestamp type counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TimeUnit {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Milliseconds,
    /// Microseconds since then.
    Microseconds,
    /// Nanoseconds since then.
    Nanoseconds,
}

impl TimeUnit {
    /// How many of them a second has.
    pub(crate) fn per_second(self) -> i64 {
        match self {
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
            Self::Nanoseconds => 1_000_000_000,
        }
    }
}

/// A point in time as written: to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    /// Seconds since 1970-01-01T00:00:00Z, or, of a local time, since that reading of its clock.
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl Instant {
    /// The count in `unit`, if it is a whole one.
    pub(crate) fn in_unit(self, unit: TimeUnit) -> Result<i64, Problem> {
        let (per_second, nanoseconds_each) = match unit {
            TimeUnit::Milliseconds => (1_000, 1_000_000),
            TimeUnit::Microseconds => (1_000_000, 1_000),
            TimeUnit::Nanoseconds => return self.in_nanoseconds(),
        };
        if !self.nanoseconds.is_multiple_of(nanoseconds_each) {
            return Err(Problem::TooPrecise);
        }
        // Four-digit years are far from the bounds of a 64-bit count of microseconds, but counts of seconds are not.
        self.seconds
            .checked_mul(per_second)
            .and_then(|count| count.checked_add(i64::from(self.nanoseconds / nanoseconds_each)))
            .ok_or(Problem::OutOfRange)
    }

    /// A 64-bit count of nanoseconds reaches from 1677 to 2262 only.
    fn in_nanoseconds(self) -> Result<i64, Problem> {
        let count = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanoseconds);
        i64::try_from(count).map_err(|_| Problem::OutOfRange)
    }
}

/// Days since 1970-01-01 of a text `YYYY-MM-DD`.
pub(crate) fn day(text: &[u8]) -> Result<i32, Problem> {
    let mut rest = text;
    let days = take_day(&mut rest)?;
    if rest.is_empty() {
        Ok(days)
    } else {
        Err(Problem::NotWrittenAsOne)
    }
}

/// The point in time of a text `YYYY-MM-DD`, then `T` or a blank, `HH:MM`, and perhaps `:SS`, a fraction of up to nine digits, and `Z`,
/// `+HH:MM`, `+HHMM` or `+HH`. A day alone is its midnight in UTC.
#[inline]
pub(crate) fn instant(text: &[u8]) -> Result<Instant, Problem> {
    let (local, offset) = reading(text)?;
    Ok(Instant {
        seconds: local.seconds - offset.unwrap_or(0),
        ..local
    })
}

/// What a text with day and time shows on its own clock, and that clock's offset from UTC in seconds, where it is written. As [`instant`], and also
/// `YYYYMMDDTHHMM` with `SS` and all that follows.
#[inline]
pub(crate) fn reading(text: &[u8]) -> Result<(Instant, Option<i64>), Problem> {
    let mut rest = text;
    let is_basic =
        matches!(text.get(8), Some(b'T' | b't')) && text[..8].iter().all(u8::is_ascii_digit);
    let days = if is_basic {
        take_basic_day(&mut rest)?
    } else {
        take_day(&mut rest)?
    };
    let mut seconds = i64::from(days) * 86_400;
    let (mut nanoseconds, mut offset) = (0, None);
    if let [b'T' | b't' | b' ', time @ ..] = rest {
        rest = time;
        let (in_day, fraction) = take_time(&mut rest, is_basic)?;
        seconds += in_day;
        nanoseconds = fraction;
        offset = take_offset(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(Problem::NotWrittenAsOne);
    }
    let local = Instant {
        seconds,
        nanoseconds,
    };
    Ok((local, offset))
}

/// The time since midnight of a text `HH:MM`, perhaps with `:SS` and a fraction.
pub(crate) fn time_of_day(text: &[u8]) -> Result<Instant, Problem> {
    let mut rest = text;
    let (seconds, nanoseconds) = take_time(&mut rest, false)?;
    if rest.is_empty() {
        Ok(Instant {
            seconds,
            nanoseconds,
        })
    } else {
        Err(Problem::NotWrittenAsOne)
    }
}

/// Seconds since midnight and nanoseconds.
#[inline]
fn take_time(rest: &mut &[u8], is_basic: bool) -> Result<(i64, u32), Problem> {
    let mut seconds = 3_600 * i64::from(take_number(rest, 23)?);
    if !is_basic {
        take(rest, b':')?;
    }
    seconds += 60 * i64::from(take_number(rest, 59)?);
    let has_seconds = match *rest {
        [b':', after @ ..] if !is_basic => {
            *rest = after;
            true
        }
        [b'0'..=b'9', ..] => is_basic,
        _ => false,
    };
    if !has_seconds {
        return Ok((seconds, 0));
    }
    seconds += i64::from(take_number(rest, 59)?);
    Ok((seconds, take_fraction(rest)?))
}

fn take_basic_day(rest: &mut &[u8]) -> Result<i32, Problem> {
    let century = take_number(rest, 99)?;
    let year = i16::from(century) * 100 + i16::from(take_number(rest, 99)?);
    let month = take_number(rest, 12)?;
    day_of(year, month, take_number(rest, 31)?)
}

fn day_of(year: i16, month: i8, day: i8) -> Result<i32, Problem> {
    let date = Date::new(year, month, day).map_err(|_| Problem::OutOfRange)?;
    Ok(days_since_epoch(date))
}

fn take_day(rest: &mut &[u8]) -> Result<i32, Problem> {
    let century = take_number(rest, 99)?;
    let year = i16::from(century) * 100 + i16::from(take_number(rest, 99)?);
    take(rest, b'-')?;
    let month = take_number(rest, 12)?;
    take(rest, b'-')?;
    day_of(year, month, take_number(rest, 31)?)
}

/// Exactly two digits, up to `highest`.
fn take_number(rest: &mut &[u8], highest: i8) -> Result<i8, Problem> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', after @ ..] = *rest else {
        return Err(Problem::NotWrittenAsOne);
    };
    *rest = after;
    let value = (tens - b'0') * 10 + (ones - b'0');
    let value = value.cast_signed();
    if value <= highest {
        Ok(value)
    } else {
        Err(Problem::OutOfRange)
    }
}

fn take(rest: &mut &[u8], expected: u8) -> Result<(), Problem> {
    match *rest {
        [byte, after @ ..] if *byte == expected => {
            *rest = after;
            Ok(())
        }
        _ => Err(Problem::NotWrittenAsOne),
    }
}

/// How many nanoseconds the last of so many digits behind the point counts.
const NANOSECONDS: [u32; 10] = [
    1_000_000_000,
    100_000_000,
    10_000_000,
    1_000_000,
    100_000,
    10_000,
    1_000,
    100,
    10,
    1,
];

/// A point or a comma and up to nine digits, as nanoseconds; nothing is zero.
fn take_fraction(rest: &mut &[u8]) -> Result<u32, Problem> {
    let [b'.' | b',', after @ ..] = *rest else {
        return Ok(0);
    };
    let count = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, after) = after.split_at(count);
    *rest = after;
    if count == 0 {
        return Err(Problem::NotWrittenAsOne);
    }
    let (kept, finer) = digits.split_at(count.min(9));
    if finer.iter().any(|digit| *digit != b'0') {
        return Err(Problem::TooPrecise);
    }
    let number = |number: u32, digit: &u8| number * 10 + u32::from(digit - b'0');
    Ok(kept.iter().fold(0, number) * NANOSECONDS[kept.len()])
}

/// The offset from UTC in seconds, where one is written.
#[inline]
fn take_offset(rest: &mut &[u8]) -> Result<Option<i64>, Problem> {
    let east = match *rest {
        [b'Z' | b'z', after @ ..] => {
            *rest = after;
            return Ok(Some(0));
        }
        [b'+', after @ ..] => {
            *rest = after;
            1
        }
        [b'-', after @ ..] => {
            *rest = after;
            -1
        }
        _ => return Ok(None),
    };
    let mut seconds = 3_600 * i64::from(take_number(rest, 23)?);
    if let [b':', after @ ..] = *rest {
        *rest = after;
        seconds += 60 * i64::from(take_number(rest, 59)?);
    } else if !rest.is_empty() {
        seconds += 60 * i64::from(take_number(rest, 59)?);
    }
    Ok(Some(east * seconds))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub(crate) fn days_since_epoch(date: Date) -> i32 {
    // The year is counted from March, so that the leap day is its last one.
    let months_from_march = (i32::from(date.month()) + 9) % 12;
    let year = i32::from(date.year()) - i32::from(date.month() <= 2);
    let day_of_year = (153 * months_from_march + 2) / 5 + i32::from(date.day()) - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::Problem::{NotWrittenAsOne, OutOfRange, TooPrecise};
    use super::*;

    fn milliseconds(text: &str) -> Result<i64, Problem> {
        instant(text.as_bytes())?.in_unit(TimeUnit::Milliseconds)
    }

    #[test]
    fn points_in_time_are_read_in_the_usual_layouts() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("1970-01-01 00:00", Ok(0)),
            ("1970-01-02", Ok(86_400_000)),
            ("2024-02-29T12:30:15.250+02:00", Ok(1_709_202_615_250)),
            ("2024-02-29t10:30:15.25z", Ok(1_709_202_615_250)),
            ("2024-02-29 10:30:15.250000000000", Ok(1_709_202_615_250)),
            ("2024-02-29T05:00:15.25-0530", Ok(1_709_202_615_250)),
            ("2024-02-29 13:30:15.25+03", Ok(1_709_202_615_250)),
            ("1969-12-31T23:59:59.999Z", Ok(-1)),
            ("0001-01-01T00:00:00Z", Ok(-62_135_596_800_000)),
            ("9999-12-31T23:59:59.999Z", Ok(253_402_300_799_999)),
            ("2024-02-29T10:30:15.2501Z", Err(TooPrecise)),
            ("2024-02-29T10:30:15.2500000000001Z", Err(TooPrecise)),
            ("2023-02-29T00:00:00Z", Err(OutOfRange)),
            ("2024-13-01T00:00:00Z", Err(OutOfRange)),
            ("2024-00-01T00:00:00Z", Err(OutOfRange)),
            ("2024-01-01T24:00:00Z", Err(OutOfRange)),
            ("2024-01-01T23:59:60Z", Err(OutOfRange)),
            ("2024-01-01T00:00:00+24:00", Err(OutOfRange)),
            ("2024-1-1T00:00:00Z", Err(NotWrittenAsOne)),
            ("2024-01-01T", Err(NotWrittenAsOne)),
            ("2024-01-01T00", Err(NotWrittenAsOne)),
            ("2024-01-01T00:00:00.", Err(NotWrittenAsOne)),
            ("2024-01-01T00:00:00 Z", Err(NotWrittenAsOne)),
            ("2024-01-01T00:00:00Zx", Err(NotWrittenAsOne)),
            ("2024-01-01x", Err(NotWrittenAsOne)),
            ("", Err(NotWrittenAsOne)),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
        let microseconds = instant(b"2024-02-29T10:30:15.250001Z")
            .unwrap()
            .in_unit(TimeUnit::Microseconds);
        assert_eq!(microseconds, Ok(1_709_202_615_250_001));
    }

    #[test]
    fn days_are_counted_from_1970() {
        for (text, expected) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2000-02-29", Ok(11_016)),
            ("1900-02-29", Err(OutOfRange)),
            ("2024-01-01T00:00", Err(NotWrittenAsOne)),
            ("20240101", Err(NotWrittenAsOne)),
        ] {
            assert_eq!(day(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn points_in_time_are_read_as_jiff_does(nanosecond in -62_135_596_800_000_000_000_i128..253_402_207_200_000_000_000) {
            let timestamp = Timestamp::from_nanosecond(nanosecond).unwrap();
            let read = instant(timestamp.to_string().as_bytes()).unwrap();
            prop_assert_eq!(i128::from(read.seconds) * 1_000_000_000 + i128::from(read.nanoseconds), nanosecond);
        }

        #[test]
        fn a_day_is_a_point_in_time_too(text in "[0-9]{3,5}-?[0-9]{1,2}-[0-9]{1,3}[T ]?") {
            let midnight = instant(text.as_bytes()).map(|instant| instant.seconds);
            prop_assert_eq!(day(text.as_bytes()).map(|days| i64::from(days) * 86_400), midnight);
        }
    }
}
