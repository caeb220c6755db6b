//! Values as people type them: durations (`500ms`), sizes (`64MiB`), counts (`10k`), a limit of rejects (`100` or `1%`), a delimiter.
//!
//! Each parser is strict (a bare number is no duration), refuses what would overflow, and its error shows what a right value looks like.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::core::Error;
use tidegate::core::partition::Partitioner;

/// Units of time with their length in nanoseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Units of size with their length in bytes; binary units carry an `i`, as IEC 80000-13 has it.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Units of count.
const COUNT_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
];

/// A duration such as `500ms`, `30s`, `1.5m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = with_unit(text, TIME_UNITS)
        .map_err(|why| format!("{why}: a duration looks like 500ms, 30s, 10m or 2h"))?;
    Ok(Duration::from_nanos(nanos))
}

/// A size in bytes such as `64MiB` or `8kB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    with_unit(text, SIZE_UNITS)
        .map_err(|why| format!("{why}: a size looks like 512KiB, 64MiB or 1GB"))
}

/// A count such as `500`, `10k` or `2M`; zero is refused, for no flag that takes a count means something with it.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    match with_unit(text, COUNT_UNITS) {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(why) => Err(format!("{why}: a count looks like 500, 10k or 2M")),
    }
}

/// A name and a value with `=` between them; the value may be empty.
pub(crate) fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The name of a partitioner.
pub(crate) fn partitioner(text: &str) -> Result<Partitioner, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

/// Reads `<decimal number><unit>` into the smallest unit, exactly: a fraction that is no whole number of it is refused.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => "the unit is missing".to_owned(),
            _ => format!("unknown unit {unit:?}"),
        });
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err("not a number".to_owned());
    }
    let too_large = || "too large".to_owned();
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let base = whole.checked_mul(*factor).ok_or_else(too_large)?;
    if fraction.is_empty() {
        return Ok(base);
    }
    let digits = u32::try_from(fraction.len()).map_err(|_| too_large())?;
    let scale = 10u64
        .checked_pow(digits)
        .ok_or_else(|| "too many decimal places".to_owned())?;
    let numerator: u64 = fraction.parse().map_err(|_| too_large())?;
    let scaled = u128::from(numerator) * u128::from(*factor);
    if !scaled.is_multiple_of(u128::from(scale)) {
        return Err("too many decimal places for this unit".to_owned());
    }
    let part = u64::try_from(scaled / u128::from(scale)).map_err(|_| too_large())?;
    base.checked_add(part).ok_or_else(too_large)
}

/// How many rows may be rejected: a number, or a share of the rows read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaxRejects {
    /// At most this many rows.
    Rows(u64),
    /// At most this many percent of the rows read, 0 to 100.
    Percent(f64),
}

impl FromStr for MaxRejects {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let rows = with_unit(text, COUNT_UNITS)
                .map_err(|why| format!("{why}: a limit looks like 0, 100, 10k or 1%"))?;
            return Ok(Self::Rows(rows));
        };
        match percent.parse::<f64>() {
            Ok(value) if (0.0..=100.0).contains(&value) => Ok(Self::Percent(value)),
            _ => Err("a share of rows lies between 0% and 100%".to_owned()),
        }
    }
}

/// Two texts with a character between them, none of them empty: `FIELD=COLUMN`, `yes/no`. The first such character parts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Pair<const BETWEEN: char>(pub(crate) String, pub(crate) String);

impl<const BETWEEN: char> From<Pair<BETWEEN>> for String {
    fn from(Pair(one, other): Pair<BETWEEN>) -> Self {
        format!("{one}{BETWEEN}{other}")
    }
}

impl<const BETWEEN: char> TryFrom<String> for Pair<BETWEEN> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<const BETWEEN: char> FromStr for Pair<BETWEEN> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(BETWEEN) {
            Some((one, other)) if !one.is_empty() && !other.is_empty() => {
                Ok(Self(one.to_owned(), other.to_owned()))
            }
            _ => Err(format!("expected two texts with {BETWEEN} between them")),
        }
    }
}

/// One ASCII character other than a line end, as it is typed: itself, `\\t` or `tab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Character(pub(crate) u8);

impl FromStr for Character {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"\\t" | b"tab" => Ok(Self(b'\t')),
            [b'\r' | b'\n'] => Err("a line end ends rows".to_owned()),
            [byte] if byte.is_ascii() => Ok(Self(*byte)),
            _ => Err("expected one ASCII character, or \\t".to_owned()),
        }
    }
}

impl fmt::Display for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\t' => f.write_str("\\t"),
            byte => write!(f, "{}", char::from(byte)),
        }
    }
}

/// The byte that separates columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Delimiter {
    /// This one.
    Byte(u8),
    /// The one that the input's first rows show.
    Auto,
}

impl Default for Delimiter {
    fn default() -> Self {
        Self::Byte(b',')
    }
}

impl FromStr for Delimiter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "\"" => Err("a quote cannot separate columns".to_owned()),
            text => text.parse().map(|Character(byte)| Self::Byte(byte)),
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(byte) => Character(*byte).fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// The byte that encloses cells, if any does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Quote(pub(crate) Option<u8>);

impl FromStr for Quote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|Character(byte)| Self(Some(byte))),
        }
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(byte) => Character(byte).fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Values that are kept as they are typed.
macro_rules! kept_as_text {
    ($($kind:ty),*) => {$(
        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}

kept_as_text!(Character, Delimiter, Quote);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_are_exact() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "30",
            "s",
            "1.s",
            ".5s",
            "1.2.3s",
            "-1s",
            "1 s",
            "99999999999d",
            "1y",
        ] {
            let why = duration(wrong).unwrap_err();
            assert!(why.contains("a duration looks like"), "{wrong}: {why}");
        }
        assert!(duration("30").unwrap_err().contains("the unit is missing"));
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1kB"), Ok(1_000));
        assert_eq!(size("0.5KiB"), Ok(512));
        assert!(size("0.3B").unwrap_err().contains("decimal places"));
        assert!(size("1mb").unwrap_err().contains("unknown unit"));
    }

    #[test]
    fn counts_are_positive() {
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        assert_eq!(count("7"), Ok(7));
        assert!(count("0").is_err());
        assert!(count("ten").is_err());
    }

    #[test]
    fn limits_of_rejects_are_rows_or_a_share() {
        assert_eq!("0".parse(), Ok(MaxRejects::Rows(0)));
        assert_eq!("2k".parse(), Ok(MaxRejects::Rows(2_000)));
        assert_eq!("0.5%".parse(), Ok(MaxRejects::Percent(0.5)));
        for wrong in ["101%", "-1%", "%", "NaN%", "x"] {
            assert!(wrong.parse::<MaxRejects>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_are_parted_by_the_first_character_between() {
        assert_eq!(
            "a=b=c".parse(),
            Ok(Pair::<'='>("a".to_owned(), "b=c".to_owned()))
        );
        for wrong in ["", "=", "a=", "=b", "ab"] {
            assert!(wrong.parse::<Pair<'='>>().is_err(), "{wrong}");
        }
        let pair: Pair<'/'> = "yes/no".parse().unwrap();
        assert_eq!(String::from(pair), "yes/no");
    }

    #[test]
    fn delimiters_are_one_ascii_character() {
        assert_eq!(";".parse(), Ok(Delimiter::Byte(b';')));
        assert_eq!("\\t".parse(), Ok(Delimiter::Byte(b'\t')));
        assert_eq!("auto".parse(), Ok(Delimiter::Auto));
        assert_eq!("none".parse(), Ok(Quote(None)));
        assert_eq!("\"".parse(), Ok(Quote(Some(b'"'))));
        for wrong in ["", "ab", "\"", "\n", "é"] {
            assert!(wrong.parse::<Delimiter>().is_err(), "{wrong}");
        }
    }
}
