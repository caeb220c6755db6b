//! Days that do not begin with their year, such as `31/12/2024` or `1.2.2024 14:30`: how they are written, and whether there is such a day.

use super::candidate::Obstacle;

/// How such a day is written, but for which of day and month comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DayForm {
    separator: u8,
    /// The time of day behind it.
    clock: Option<ClockForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockForm {
    /// What stands between day and time.
    between: char,
    has_seconds: bool,
    /// Hours up to 12, and AM or PM.
    is_twelve: bool,
}

/// A day, perhaps with a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) form: DayForm,
    date: jiff::civil::Date,
    time: jiff::civil::Time,
    /// Digits behind the seconds.
    pub(super) fraction: usize,
}

/// The years that nanoseconds since 1970 reach for sure.
const NEAR_YEARS: std::ops::RangeInclusive<i16> = 1678..=2261;

impl DayForm {
    /// The strptime pattern.
    pub(super) fn pattern(self, day_first: bool, has_fraction: bool) -> String {
        let separator = char::from(self.separator);
        let [first, second] = if day_first {
            ["%d", "%m"]
        } else {
            ["%m", "%d"]
        };
        let mut pattern = format!("{first}{separator}{second}{separator}%Y");
        if let Some(clock) = self.clock {
            pattern.push(clock.between);
            pattern.push_str(if clock.is_twelve { "%I:%M" } else { "%H:%M" });
            if clock.has_seconds {
                pattern.push_str(if has_fraction { ":%S%.f" } else { ":%S" });
            }
            if clock.is_twelve {
                pattern.push_str(" %p");
            }
        }
        pattern
    }

    pub(super) fn has_time(self) -> bool {
        self.clock.is_some()
    }
}

impl Day {
    /// Reads such a day. With points the day always comes first.
    pub(super) fn read(text: &[u8], day_first: bool) -> Result<Self, Obstacle> {
        let mut rest = text;
        let first = digits(&mut rest, 1..=2)?;
        let separator = take(&mut rest)?;
        let is_known = matches!(separator, b'/' | b'-') || separator == b'.' && day_first;
        if !is_known {
            return Err(Obstacle::Form);
        }
        let second = digits(&mut rest, 1..=2)?;
        if take(&mut rest)? != separator {
            return Err(Obstacle::Form);
        }
        let year = digits(&mut rest, 4..=4)?;
        let (clock, time, fraction) = match rest {
            [] => (None, jiff::civil::Time::midnight(), 0),
            [between @ (b' ' | b'T'), rest @ ..] => {
                let (clock, time, fraction) = read_clock(rest, char::from(*between))?;
                (Some(clock), time, fraction)
            }
            _ => return Err(Obstacle::Form),
        };
        let (day, month) = if day_first {
            (first, second)
        } else {
            (second, first)
        };
        let date = small(month)
            .zip(small(day))
            .and_then(|(month, day)| jiff::civil::Date::new(year, month, day).ok());
        Ok(Self {
            form: DayForm { separator, clock },
            date: date.ok_or(Obstacle::Range)?,
            time,
            fraction,
        })
    }

    /// Whether nanoseconds hold it.
    pub(super) fn is_near(&self) -> bool {
        NEAR_YEARS.contains(&self.date.year())
    }

    /// The same as ISO 8601 has it, to the second.
    pub(super) fn iso(&self) -> String {
        self.date
            .to_datetime(self.time)
            .strftime("%Y-%m-%dT%H:%M:%S")
            .to_string()
    }
}

fn read_clock(
    mut rest: &[u8],
    between: char,
) -> Result<(ClockForm, jiff::civil::Time, usize), Obstacle> {
    let mut hour = digits(&mut rest, 1..=2)?;
    expect(&mut rest, b':')?;
    let minute = digits(&mut rest, 2..=2)?;
    let (mut second, mut nanosecond, mut fraction) = (0, 0, 0);
    let has_seconds = rest.first() == Some(&b':');
    if has_seconds {
        expect(&mut rest, b':')?;
        second = digits(&mut rest, 2..=2)?;
        if rest.first() == Some(&b'.') {
            expect(&mut rest, b'.')?;
            (nanosecond, fraction) = nanoseconds(&mut rest)?;
        }
    }
    let is_twelve = !rest.is_empty();
    if is_twelve {
        let is_afternoon = match rest {
            [b' ', b'A' | b'a', b'M' | b'm'] => false,
            [b' ', b'P' | b'p', b'M' | b'm'] => true,
            _ => return Err(Obstacle::Form),
        };
        if !(1..=12).contains(&hour) {
            return Err(Obstacle::Range);
        }
        hour = hour % 12 + if is_afternoon { 12 } else { 0 };
    }
    let clock = ClockForm {
        between,
        has_seconds,
        is_twelve,
    };
    let time = match [hour, minute, second].map(small) {
        [Some(hour), Some(minute), Some(second)] => {
            jiff::civil::Time::new(hour, minute, second, nanosecond).ok()
        }
        _ => None,
    };
    Ok((clock, time.ok_or(Obstacle::Range)?, fraction))
}

/// Up to nine digits behind a point, as nanoseconds, and how many there are.
fn nanoseconds(rest: &mut &[u8]) -> Result<(i32, usize), Obstacle> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match count {
        0 => return Err(Obstacle::Form),
        1..=9 => {}
        _ => return Err(Obstacle::Precision),
    }
    let (fraction, behind) = rest.split_at(count);
    *rest = behind;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |number, digit| number * 10 + i32::from(digit - b'0'));
    Ok((nanoseconds, count))
}

/// A number of so many digits.
fn digits(rest: &mut &[u8], counts: std::ops::RangeInclusive<usize>) -> Result<i16, Obstacle> {
    let most = rest.iter().take(*counts.end());
    let count = most.take_while(|byte| byte.is_ascii_digit()).count();
    if !counts.contains(&count) {
        return Err(Obstacle::Form);
    }
    let (number, behind) = rest.split_at(count);
    *rest = behind;
    Ok(number
        .iter()
        .fold(0, |number, digit| number * 10 + i16::from(digit - b'0')))
}

fn take(rest: &mut &[u8]) -> Result<u8, Obstacle> {
    let (first, behind) = rest.split_first().ok_or(Obstacle::Form)?;
    *rest = behind;
    Ok(*first)
}

fn expect(rest: &mut &[u8], expected: u8) -> Result<(), Obstacle> {
    if take(rest)? == expected {
        Ok(())
    } else {
        Err(Obstacle::Form)
    }
}

fn small(number: i16) -> Option<i8> {
    i8::try_from(number).ok()
}
