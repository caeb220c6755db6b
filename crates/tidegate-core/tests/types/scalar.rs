//! A generator for each type without parts: any value of it, a text that stands for the value, and the value as apache-avro and JSON have it.
//!
//! Texts are made of the values, by hand and by other crates, and never by the code under test.

use apache_avro::types::Value as Avro;
use apache_avro::{Days, Decimal, Duration, Millis, Months};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// How bytes are written in their cells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Coding {
    Raw,
    Hex,
    Base64,
}

/// How times are written in their cells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written {
    Iso,
    EpochMicros,
    Pattern,
}

/// Decimal digits of a second that a type holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis = 3,
    Micros = 6,
    Nanos = 9,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Millis => "millis",
            Self::Micros => "micros",
            Self::Nanos => "nanos",
        }
    }

    fn per_second(self) -> i64 {
        10_i64.pow(self as u32)
    }
}

/// A type without parts.
#[derive(Debug, Clone)]
pub(super) enum Type {
    Null,
    Boolean {
        has_words: bool,
    },
    Int,
    Long,
    Float,
    Double,
    String,
    Bytes(Coding),
    Fixed(usize, Coding),
    Enum(usize),
    Uuid,
    FixedUuid,
    Duration,
    Decimal {
        precision: usize,
        scale: usize,
        is_fixed: bool,
    },
    Date,
    TimeOfDay(Unit),
    Timestamp(Unit, Written),
    LocalTimestamp(Unit, Written),
}

/// A value of a type.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) text: Vec<u8>,
    pub(super) avro: Avro,
    pub(super) json: Json,
}

fn sample(text: impl Into<Vec<u8>>, avro: Avro, json: Json) -> Sample {
    let text = text.into();
    Sample { text, avro, json }
}

/// Any type but null.
pub(super) fn any_type() -> impl Strategy<Value = Type> {
    let coding = prop::sample::select(vec![Coding::Raw, Coding::Hex, Coding::Base64]);
    let unit = prop::sample::select(vec![Unit::Millis, Unit::Micros, Unit::Nanos]);
    let written = prop::sample::select(vec![Written::Iso, Written::EpochMicros, Written::Pattern]);
    let decimal = prop_oneof![3 => 1_usize..=38, 1 => 39_usize..150]
        .prop_flat_map(|precision| (Just(precision), 0..=precision, any::<bool>()));
    prop_oneof![
        any::<bool>().prop_map(|has_words| Type::Boolean { has_words }),
        Just(Type::Int),
        Just(Type::Long),
        Just(Type::Float),
        Just(Type::Double),
        Just(Type::String),
        coding.clone().prop_map(Type::Bytes),
        (1_usize..20, coding).prop_map(|(size, coding)| Type::Fixed(size, coding)),
        (1_usize..90).prop_map(Type::Enum),
        Just(Type::Uuid),
        Just(Type::FixedUuid),
        Just(Type::Duration),
        decimal.prop_map(|(precision, scale, is_fixed)| Type::Decimal {
            precision,
            scale,
            is_fixed
        }),
        Just(Type::Date),
        prop::sample::select(vec![Unit::Millis, Unit::Micros]).prop_map(Type::TimeOfDay),
        (unit.clone(), written.clone()).prop_map(|(unit, written)| Type::Timestamp(unit, written)),
        (unit, written).prop_map(|(unit, written)| Type::LocalTimestamp(unit, written)),
    ]
}

impl Type {
    /// Its schema; `@` stands for a number that makes names different.
    pub(super) fn schema(&self) -> String {
        let logical =
            |of: &str, name: &str| format!(r#"{{"type": "{of}", "logicalType": "{name}"}}"#);
        match self {
            Self::Null => r#""null""#.into(),
            Self::Boolean { .. } => r#""boolean""#.into(),
            Self::Int => r#""int""#.into(),
            Self::Long => r#""long""#.into(),
            Self::Float => r#""float""#.into(),
            Self::Double => r#""double""#.into(),
            Self::String => r#""string""#.into(),
            Self::Bytes(_) => r#""bytes""#.into(),
            Self::Fixed(size, _) => {
                format!(r#"{{"type": "fixed", "name": "Fixed@", "size": {size}}}"#)
            }
            Self::Enum(symbols) => {
                let symbols: Vec<String> = (0..*symbols).map(symbol).collect();
                format!(
                    r#"{{"type": "enum", "name": "Enum@", "symbols": {}}}"#,
                    json!(symbols)
                )
            }
            Self::Uuid => logical("string", "uuid"),
            Self::FixedUuid => {
                r#"{"type": "fixed", "name": "Uuid@", "size": 16, "logicalType": "uuid"}"#.into()
            }
            Self::Duration => {
                r#"{"type": "fixed", "name": "Duration@", "size": 12, "logicalType": "duration"}"#
                    .into()
            }
            Self::Decimal {
                precision,
                scale,
                is_fixed,
            } => {
                let of = match is_fixed {
                    // A byte more than so many digits need, two's complement and all, at two digits a byte.
                    true => format!(
                        r#""fixed", "name": "Decimal@", "size": {}"#,
                        precision / 2 + 1
                    ),
                    false => r#""bytes""#.into(),
                };
                format!(
                    r#"{{"type": {of}, "logicalType": "decimal", "precision": {precision}, "scale": {scale}}}"#
                )
            }
            Self::Date => logical("int", "date"),
            Self::TimeOfDay(Unit::Millis) => logical("int", "time-millis"),
            Self::TimeOfDay(unit) => logical("long", &format!("time-{}", unit.name())),
            Self::Timestamp(unit, _) => logical("long", &format!("timestamp-{}", unit.name())),
            Self::LocalTimestamp(unit, _) => {
                logical("long", &format!("local-timestamp-{}", unit.name()))
            }
        }
    }

    /// What a field of this type, or of one with it inside, says of its cells.
    pub(super) fn attributes(&self) -> &'static str {
        match self {
            Self::Boolean { has_words: true } => {
                r#", "tidegate.true": ["yes", "on"], "tidegate.false": ["no", "off"]"#
            }
            Self::Bytes(Coding::Hex) | Self::Fixed(_, Coding::Hex) => {
                r#", "tidegate.format": "hex""#
            }
            Self::Bytes(Coding::Base64) | Self::Fixed(_, Coding::Base64) => {
                r#", "tidegate.format": "base64""#
            }
            Self::Timestamp(_, Written::EpochMicros)
            | Self::LocalTimestamp(_, Written::EpochMicros) => {
                r#", "tidegate.format": "epoch-micros""#
            }
            Self::Timestamp(_, Written::Pattern) => {
                r#", "tidegate.format": "%d.%m.%Y %H:%M:%S%.f %z""#
            }
            Self::LocalTimestamp(_, Written::Pattern) => {
                r#", "tidegate.format": "%d.%m.%Y %H:%M:%S%.f""#
            }
            _ => "",
        }
    }

    /// Any of its values. `is_text` says that it must be written in UTF-8.
    pub(super) fn sample(&self, is_text: bool) -> BoxedStrategy<Sample> {
        match *self {
            Self::Null => Just(sample("", Avro::Null, Json::Null)).boxed(),
            Self::Boolean { has_words } => booleans(has_words).boxed(),
            Self::Int => (any::<i32>(), plus_or_zeros())
                .prop_map(|(number, sign)| integer(number.into(), &sign, Avro::Int(number)))
                .boxed(),
            Self::Long => (any::<i64>(), plus_or_zeros())
                .prop_map(|(number, sign)| integer(number, &sign, Avro::Long(number)))
                .boxed(),
            Self::Float => floats().boxed(),
            Self::Double => doubles().boxed(),
            // No bar, which stands between the items of arrays.
            Self::String => "[ -{}~é\n\u{1f600}]{0,70}"
                .prop_map(|text| sample(text.clone(), Avro::String(text.clone()), json!(text)))
                .boxed(),
            Self::Bytes(coding) => {
                let values = bytes(0..80, is_text && matches!(coding, Coding::Raw));
                (values, any::<bool>())
                    .prop_map(move |(bytes, upper)| {
                        coded(&bytes, coding, upper, Avro::Bytes(bytes.clone()))
                    })
                    .boxed()
            }
            Self::Fixed(size, coding) => {
                let values = bytes(size..size + 1, is_text && matches!(coding, Coding::Raw));
                (values, any::<bool>())
                    .prop_map(move |(bytes, upper)| {
                        coded(&bytes, coding, upper, Avro::Fixed(size, bytes.clone()))
                    })
                    .boxed()
            }
            Self::Enum(symbols) => (0..symbols)
                .prop_map(|at| {
                    let name = symbol(at);
                    sample(
                        name.clone(),
                        Avro::Enum(u32::try_from(at).unwrap(), name.clone()),
                        json!(name),
                    )
                })
                .boxed(),
            Self::Uuid => uuids(false).boxed(),
            Self::FixedUuid => uuids(true).boxed(),
            Self::Duration => durations().boxed(),
            Self::Decimal {
                precision, scale, ..
            } => decimals(precision, scale).boxed(),
            Self::Date => dates().boxed(),
            Self::TimeOfDay(unit) => times_of_day(unit).boxed(),
            Self::Timestamp(unit, written) => timestamps(unit, written, false).boxed(),
            Self::LocalTimestamp(unit, written) => timestamps(unit, written, true).boxed(),
        }
    }
}

fn symbol(at: usize) -> String {
    format!("{}_{at}", ["red", "Green", "BLUE"][at % 3])
}

fn booleans(has_words: bool) -> impl Strategy<Value = Sample> {
    let words = if has_words {
        [["yes", "oN"], ["NO", "off"]]
    } else {
        [["true", "1"], ["False", "0"]]
    };
    (any::<bool>(), 0_usize..2).prop_map(move |(value, which)| {
        sample(
            words[usize::from(!value)][which],
            Avro::Boolean(value),
            json!(value),
        )
    })
}

/// What may stand before the digits of a whole number.
fn plus_or_zeros() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[+]?0{0,30}"]
}

fn integer(number: i64, before: &str, avro: Avro) -> Sample {
    let text = match (number, before.strip_prefix('+')) {
        (..0, zeros) => format!("-{}{}", zeros.unwrap_or(before), number.unsigned_abs()),
        _ => format!("{before}{number}"),
    };
    sample(text, avro, json!(number))
}

fn doubles() -> impl Strategy<Value = Sample> {
    use prop::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    let finite = POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO;
    let values =
        prop_oneof![20 => finite, 1 => POSITIVE | NEGATIVE | INFINITE, 1 => Just(f64::NAN)];
    (values, 0..4_u8).prop_map(|(value, form)| {
        let text = match form {
            0 => value.to_string(),
            1 => format!("{value:e}"),
            2 => format!("{value:E}"),
            _ => format!("{value:.25e}"),
        };
        sample(text, Avro::Double(value), number(value))
    })
}

fn floats() -> impl Strategy<Value = Sample> {
    use prop::num::f32::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    let finite = POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO;
    let values =
        prop_oneof![20 => finite, 1 => POSITIVE | NEGATIVE | INFINITE, 1 => Just(f32::NAN)];
    (values, 0..3_u8).prop_map(|(value, form)| {
        let text = match form {
            0 => value.to_string(),
            1 => format!("{value:e}"),
            // All digits of the float as a double.
            _ => f64::from(value).to_string(),
        };
        // JSON has the shortest digits that are the float.
        let shortest = serde_json::to_string(&value).unwrap();
        sample(
            text,
            Avro::Float(value),
            number(shortest.parse().unwrap_or_else(|_| value.into())),
        )
    })
}

/// A number as the decoder shows it: words for what JSON does not have.
fn number(value: f64) -> Json {
    match value {
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        value if value.is_nan() => json!("NaN"),
        value => json!(value),
    }
}

/// Bytes of these lengths; of ASCII characters, without the bar that stands between the items of arrays, if asked for.
fn bytes(length: std::ops::Range<usize>, is_text: bool) -> impl Strategy<Value = Vec<u8>> {
    if is_text {
        vec(b' '..=b'z', length).boxed()
    } else {
        vec(any::<u8>(), length).boxed()
    }
}

fn coded(bytes: &[u8], coding: Coding, is_upper: bool, avro: Avro) -> Sample {
    let base64 = STANDARD.encode(bytes);
    let hex = || {
        bytes.iter().map(|byte| {
            if is_upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        })
    };
    let text = match coding {
        Coding::Raw => bytes.to_vec(),
        Coding::Hex => hex().collect::<String>().into_bytes(),
        Coding::Base64 => base64.clone().into_bytes(),
    };
    sample(text, avro, json!(base64))
}

fn uuids(is_fixed: bool) -> impl Strategy<Value = Sample> {
    (any::<u128>(), 0..3_u8).prop_map(move |(number, form)| {
        let digits = format!("{number:032x}");
        let parts = [
            &digits[..8],
            &digits[8..12],
            &digits[12..16],
            &digits[16..20],
            &digits[20..],
        ];
        let plain = parts.join("-");
        let text = match form {
            0 => plain.clone(),
            1 => plain.to_uppercase(),
            _ => digits.clone(),
        };
        let bytes = number.to_be_bytes();
        if is_fixed {
            sample(
                text,
                Avro::Fixed(16, bytes.to_vec()),
                json!(STANDARD.encode(bytes)),
            )
        } else {
            sample(
                text,
                Avro::Uuid(apache_avro::Uuid::from_u128(number)),
                json!(plain),
            )
        }
    })
}

fn durations() -> impl Strategy<Value = Sample> {
    (any::<[u32; 3]>(), any::<bool>()).prop_map(|([months, days, millis], is_split)| {
        let (seconds, rest) = (millis / 1_000, millis % 1_000);
        let json = format!("P{months}M{days}DT{seconds}.{rest:03}S");
        let text = if is_split {
            let (years, months, weeks, days) = (months / 12, months % 12, days / 7, days % 7);
            let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            format!("P{years}Y{months}M{weeks}W{days}DT{hours}H{minutes}M{seconds},{rest:03}S")
        } else {
            json.clone()
        };
        let avro = Duration::new(Months::new(months), Days::new(days), Millis::new(millis));
        sample(text, Avro::Duration(avro), json!(json))
    })
}

/// A decimal number of at most so many digits: digit by digit, for no integer of this language holds all of them.
fn decimals(precision: usize, scale: usize) -> impl Strategy<Value = Sample> {
    (vec(0..10_u8, 1..=precision), any::<bool>(), 0..4_u8).prop_map(
        move |(digits, negative, form)| {
            let zeros = std::iter::repeat_n(0, (scale + 1).saturating_sub(digits.len()));
            let digits: String = zeros
                .chain(digits)
                .map(|digit| char::from(b'0' + digit))
                .collect();
            let negative = negative && digits.bytes().any(|digit| digit != b'0');
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let whole = match whole.trim_start_matches('0') {
                "" => "0",
                whole => whole,
            };
            let sign = if negative { "-" } else { "" };
            let point = if scale > 0 { "." } else { "" };
            let plain = format!("{sign}{whole}{point}{fraction}");
            let text = match form {
                0 => format!("{sign}{digits}e-{scale}"),
                1 if scale > 0 => format!("{sign}0.{digits}E+{}", digits.len() - scale),
                2 if scale > 0 => format!("{plain}000"),
                _ => plain.clone(),
            };
            sample(
                text,
                Avro::Decimal(Decimal::from(two_s_complement(&digits, negative))),
                json!(plain),
            )
        },
    )
}

/// A whole number of these digits, big-endian, by long multiplication.
fn two_s_complement(digits: &str, negative: bool) -> Vec<u8> {
    // The lowest byte first.
    let mut bytes = vec![0_u8];
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut bytes {
            let sum = u16::from(*byte) * 10 + carry;
            *byte = u8::try_from(sum & 0xff).unwrap();
            carry = sum >> 8;
        }
        // Room for the next digit, and at the end for the sign.
        bytes.push(u8::try_from(carry).unwrap());
    }
    if negative {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let filler = if negative { 0xff } else { 0 };
    while let [.., before, last] = bytes.as_slice()
        && *last == filler
        && (before ^ filler) & 0x80 == 0
    {
        bytes.pop();
    }
    bytes.reverse();
    bytes
}

fn dates() -> impl Strategy<Value = Sample> {
    let written = (-719_528..2_932_896_i32).prop_map(|days| {
        let date = jiff::civil::date(1970, 1, 1)
            .checked_add(jiff::Span::new().days(days))
            .unwrap();
        (date.to_string(), days)
    });
    let counted = any::<i32>().prop_map(|days| (days.to_string(), days));
    prop_oneof![3 => written, 1 => counted]
        .prop_map(|(text, days)| sample(text, Avro::Date(days), json!(days)))
}

/// The digits of a fraction of a second, behind a point or a comma: none, all, or those that are no trailing zeros.
fn fraction(count: i64, unit: Unit, form: u8) -> String {
    let digits = format!("{count:0width$}", width = unit as usize);
    let digits = if form == 0 {
        &digits
    } else {
        digits.trim_end_matches('0')
    };
    match (digits, form) {
        ("", _) => String::new(),
        (digits, 2) => format!(",{digits}"),
        (digits, _) => format!(".{digits}"),
    }
}

fn times_of_day(unit: Unit) -> impl Strategy<Value = Sample> {
    (0..86_400 * unit.per_second(), 0..4_u8).prop_map(move |(count, form)| {
        let (seconds, rest) = (count / unit.per_second(), count % unit.per_second());
        let text = match form {
            3 => count.to_string(),
            _ => {
                let clock = format!(
                    "{:02}:{:02}:{:02}",
                    seconds / 3_600,
                    seconds / 60 % 60,
                    seconds % 60
                );
                clock + &fraction(rest, unit, form)
            }
        };
        let avro = match unit {
            Unit::Millis => Avro::TimeMillis(i32::try_from(count).unwrap()),
            _ => Avro::TimeMicros(count),
        };
        sample(text, avro, json!(count))
    })
}

/// Points in time, on a clock of some offset from UTC, or local times, on a clock that says none.
fn timestamps(unit: Unit, written: Written, is_local: bool) -> impl Strategy<Value = Sample> {
    let range = match unit {
        // 1677 to 2262, but for the days at the ends.
        Unit::Nanos => -106_750..106_750_i64,
        // The years 1 to 9998.
        _ => -719_162..2_932_530_i64,
    };
    // What is counted in microseconds has no finer part.
    let grain = match (written, unit) {
        (Written::EpochMicros, Unit::Nanos) => 1_000,
        _ => 1,
    };
    let in_day = 86_400 * unit.per_second() / grain;
    (range, 0..in_day, 0..4_u8, -14 * 60..=14 * 60_i64).prop_map(
        move |(day, part, form, offset)| {
            let count = day * 86_400 * unit.per_second() + part * grain;
            let avro = match (unit, is_local) {
                (Unit::Millis, false) => Avro::TimestampMillis(count),
                (Unit::Micros, false) => Avro::TimestampMicros(count),
                (Unit::Nanos, false) => Avro::TimestampNanos(count),
                (Unit::Millis, true) => Avro::LocalTimestampMillis(count),
                (Unit::Micros, true) => Avro::LocalTimestampMicros(count),
                (Unit::Nanos, true) => Avro::LocalTimestampNanos(count),
            };
            let offset = if is_local || matches!(form, 0) {
                0
            } else {
                offset
            };
            let text = match written {
                Written::EpochMicros => match unit {
                    Unit::Millis => (count * 1_000).to_string(),
                    Unit::Micros => count.to_string(),
                    Unit::Nanos => (count / 1_000).to_string(),
                },
                Written::Iso if form == 3 => count.to_string(),
                Written::Iso => iso(count, unit, form, (!is_local).then_some(offset)),
                Written::Pattern => pattern(count, unit, (!is_local).then_some(offset)),
            };
            sample(text, avro, json!(count))
        },
    )
}

/// What a clock at this offset from UTC, in minutes, shows; and the fraction of the second.
fn clock(count: i64, unit: Unit, offset: Option<i64>) -> (jiff::civil::DateTime, i64) {
    let (seconds, rest) = (
        count.div_euclid(unit.per_second()),
        count.rem_euclid(unit.per_second()),
    );
    let at = jiff::Timestamp::from_second(seconds + offset.unwrap_or(0) * 60).unwrap();
    (jiff::tz::TimeZone::UTC.to_datetime(at), rest)
}

fn iso(count: i64, unit: Unit, form: u8, offset: Option<i64>) -> String {
    let (shown, rest) = clock(count, unit, offset);
    let between = if form == 1 { ' ' } else { 'T' };
    let clock = shown.strftime("%H:%M:%S").to_string() + &fraction(rest, unit, form);
    let offset = match offset {
        None => String::new(),
        Some(0) if form == 0 => "Z".into(),
        Some(minutes) => zone(minutes, ":"),
    };
    format!(
        "{:04}-{:02}-{:02}{between}{clock}{offset}",
        shown.year(),
        shown.month(),
        shown.day()
    )
}

fn pattern(count: i64, unit: Unit, offset: Option<i64>) -> String {
    let (shown, rest) = clock(count, unit, offset);
    let clock = shown.strftime("%H:%M:%S").to_string() + &fraction(rest, unit, 0);
    let day = format!(
        "{:02}.{:02}.{:04}",
        shown.day(),
        shown.month(),
        shown.year()
    );
    match offset {
        None => format!("{day} {clock}"),
        Some(minutes) => format!("{day} {clock} {}", zone(minutes, "")),
    }
}

fn zone(minutes: i64, between: &str) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!(
        "{sign}{:02}{between}{:02}",
        minutes.abs() / 60,
        minutes.abs() % 60
    )
}
