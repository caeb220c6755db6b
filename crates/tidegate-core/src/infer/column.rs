//! What is known about a column, and what it comes to.

use serde_json::{Map, Value, json};

use super::ColumnReport;
use super::candidate::{Candidate, Candidates, Obstacle, SHORT_NUMBER, Tests, decimal_digits};
use super::day::DayForm;
use crate::encode::scalar;
use crate::encode::value::TimeType;
use crate::encode::{CellFormat, NARROW_DIGITS, NullTokens, TimeAmbiguity};
use crate::read::{Row, show_text};
use crate::schema::{
    FALSE_ATTRIBUTE, FORMAT_ATTRIBUTE, NULL_ATTRIBUTE, TIME_AMBIGUITY_ATTRIBUTE,
    TIME_ZONE_ATTRIBUTE, TRUE_ATTRIBUTE,
};

/// Texts that stand for null in a column whose other values are of a narrower type than string, unless others are named.
pub const USUAL_NULL_TOKENS: [&str; 8] = ["NA", "N/A", "n/a", "#N/A", "NULL", "null", "\\N", "-"];

/// Words that make a boolean of a column in which both stand, and nothing else.
const WORDS: [[&str; 2]; 3] = [["yes", "no"], ["y", "n"], ["t", "f"]];

/// The cell that ruled a candidate out.
#[derive(Debug, Clone)]
struct Evidence {
    row: u64,
    text: String,
    obstacle: Obstacle,
}

impl Evidence {
    fn sentence(&self, candidate: Candidate) -> String {
        let Self {
            row,
            text,
            obstacle,
        } = self;
        let what = match obstacle {
            Obstacle::Form => format!("is no {}", candidate.name()),
            Obstacle::LeadingZero => "has a leading zero, as codes have".into(),
            Obstacle::PlusSign => "has a plus sign, as telephone numbers have".into(),
            Obstacle::Range => format!("is out of the range of a {}", candidate.name()),
            Obstacle::Digits => "has more digits than a double holds".into(),
            Obstacle::NonFinite => "is a number that JSON cannot hold".into(),
            Obstacle::Precision => format!("is more precise than a {}", candidate.name()),
            Obstacle::NoOffset => "has no offset from UTC".into(),
            Obstacle::Offset => "has an offset from UTC".into(),
            Obstacle::NoClock => "is shown twice or never by the clocks of its time zone".into(),
        };
        format!("{text} in row {row} {what}")
    }
}

/// So many cells, and the row of the first.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    count: u64,
    first: u64,
}

impl Seen {
    fn add(&mut self, row: u64) {
        if self.count == 0 {
            self.first = row;
        }
        self.count += 1;
    }

    /// These and others.
    fn and(self, others: Self) -> Self {
        let first = match (self.count, others.count) {
            (_, 0) => self.first,
            (0, _) => others.first,
            _ => self.first.min(others.first),
        };
        Self {
            count: self.count + others.count,
            first,
        }
    }

    fn sentence(self) -> String {
        let Self { count, first } = self;
        match count {
            1 => format!("; 1 cell is null, the first in row {first}"),
            _ => format!("; {count} cells are null, the first in row {first}"),
        }
    }
}

/// What is known of days that do not begin with their year.
#[derive(Debug, Default)]
struct Days {
    form: Option<DayForm>,
    /// The most digits behind the seconds.
    fraction: usize,
    /// Whether nanoseconds do not reach all of them.
    are_far: bool,
}

impl Days {
    /// The unit that holds their times.
    fn unit(&self) -> &'static str {
        match self.fraction {
            0..=3 => "millis",
            4..=6 => "micros",
            _ => "nanos",
        }
    }
}

/// What is known about a column.
#[derive(Debug)]
pub(super) struct Column {
    null_tokens: NullTokens,
    /// Whether the usual texts for null are looked for.
    looks_for_nulls: bool,
    ruled_out: [Option<Evidence>; Candidate::ALL.len()],
    /// The first value.
    example: Vec<u8>,
    values: u64,
    empty: Seen,
    /// Cells that hold a null token that was named.
    tokens: Seen,
    /// Cells that hold one of the usual ones.
    usual: [Seen; USUAL_NULL_TOKENS.len()],
    /// A number was seen that is no NaN and no infinity: these words alone do not make a number of a column.
    has_finite: bool,
    /// The most digits before the point, and behind it.
    digits: (usize, usize),
    days: Days,
    /// The words of a boolean, while there is nothing else.
    words: Option<(usize, [bool; 2])>,
    has_other_words: bool,
    /// Which of the words that were named for booleans were seen, while there is nothing else.
    named_words: Option<[bool; 2]>,
    /// Cells that are no UTF-8, and the first of them.
    binary: Seen,
    first_binary: String,
}

impl Column {
    pub(super) fn new(cells: &CellFormat, looks_for_nulls: bool) -> Self {
        Self {
            null_tokens: cells.into(),
            looks_for_nulls: looks_for_nulls && cells.null_tokens.is_empty(),
            ruled_out: std::array::from_fn(|_| None),
            example: Vec::new(),
            values: 0,
            empty: Seen::default(),
            tokens: Seen::default(),
            usual: [Seen::default(); USUAL_NULL_TOKENS.len()],
            has_finite: false,
            digits: (0, 0),
            days: Days::default(),
            words: None,
            has_other_words: false,
            named_words: (!cells.booleans.is_empty()).then_some([false; 2]),
            binary: Seen::default(),
            first_binary: String::new(),
        }
    }

    pub(super) fn look_at(&mut self, row: &Row<'_>, index: usize, tests: &mut Tests) {
        let text = row.field(index);
        if text.is_empty() {
            self.empty.add(row.number());
            return;
        }
        if self.null_tokens.contain(text) {
            self.tokens.add(row.number());
            return;
        }
        if self.looks_for_nulls
            && text.len() <= 4
            && let Some(at) = USUAL_NULL_TOKENS
                .iter()
                .position(|token| token.as_bytes() == text)
        {
            self.usual[at].add(row.number());
            return;
        }
        self.take(text, row, tests);
    }

    fn take(&mut self, text: &[u8], row: &Row<'_>, tests: &mut Tests) {
        if self.values == 0 {
            self.example.extend_from_slice(text);
        }
        self.values += 1;
        let mut held = self.try_number(text);
        for candidate in Candidate::ALL {
            if !self.is_open(candidate) {
                continue;
            }
            if held.has(candidate) {
                debug_assert_eq!(candidate.test(text, tests), Ok(()));
                continue;
            }
            let tested = if candidate.is_written_day() {
                self.test_day(candidate, text, tests)
            } else {
                candidate.test(text, tests)
            };
            match tested {
                Ok(()) => held.add_all(candidate.implies(text, tests)),
                Err(obstacle) => {
                    self.ruled_out[candidate as usize] = Some(Evidence {
                        row: row.number(),
                        text: show_text(text),
                        obstacle,
                    });
                }
            }
        }
        if self.is_open(Candidate::Double) && !self.has_finite {
            self.has_finite = !scalar::is_non_finite_word(text);
        }
        if !self.has_other_words {
            self.look_for_words(text);
        }
        if let Some([yes, no]) = &mut self.named_words {
            match tests.named_word(text) {
                Some(true) => *yes = true,
                Some(false) => *no = true,
                None => self.named_words = None,
            }
        }
        if !row.is_ascii() && str::from_utf8(text).is_err() {
            if self.binary.count == 0 {
                self.first_binary = show_text(text);
            }
            self.binary.add(row.number());
        }
    }

    /// Tests a day that does not begin with its year. One pattern is for all of them.
    fn test_day(
        &mut self,
        candidate: Candidate,
        text: &[u8],
        tests: &mut Tests,
    ) -> Result<(), Obstacle> {
        let day = candidate.read_day(text, tests)?;
        if *self.days.form.get_or_insert(day.form) != day.form {
            return Err(Obstacle::Form);
        }
        self.days.fraction = self.days.fraction.max(day.fraction);
        self.days.are_far |= !day.is_near();
        Ok(())
    }

    /// Counts the digits of a number, whose form alone tells which of the types of numbers hold it if it is short.
    pub(super) fn try_number(&mut self, text: &[u8]) -> Candidates {
        let mut held = Candidates::default();
        if self.is_open(Candidate::Decimal)
            && let Ok((whole, fraction)) = decimal_digits(text)
        {
            self.digits = (self.digits.0.max(whole), self.digits.1.max(fraction));
            held.add_all(&[Candidate::Decimal]);
            if text.len() <= SHORT_NUMBER && fraction > 0 {
                held.add_all(&[Candidate::Double]);
            } else if text.len() <= SHORT_NUMBER && text.last() != Some(&b'.') {
                held.add_all(&[Candidate::Long, Candidate::Double]);
            }
        }
        held
    }

    fn look_for_words(&mut self, text: &[u8]) {
        for (pair, words) in WORDS.iter().enumerate() {
            for (side, word) in words.iter().enumerate() {
                let is_new = self.words.is_none_or(|(known, _)| known == pair);
                if is_new && text.eq_ignore_ascii_case(word.as_bytes()) {
                    let (_, sides) = self.words.get_or_insert((pair, [false; 2]));
                    sides[side] = true;
                    return;
                }
            }
        }
        (self.words, self.has_other_words) = (None, true);
    }

    fn is_open(&self, candidate: Candidate) -> bool {
        self.ruled_out[candidate as usize].is_none()
    }

    /// The narrowest type that nothing speaks against.
    fn candidate(&self) -> Option<Candidate> {
        if self.values == 0 {
            return None;
        }
        let fits = |candidate: &Candidate| {
            self.is_open(*candidate)
                && match candidate {
                    Candidate::Double => self.has_finite,
                    Candidate::Decimal => self.digits.0 + self.digits.1 <= NARROW_DIGITS,
                    day if day.is_written_day() => {
                        !self.is_ambiguous() && (self.days.fraction <= 6 || !self.days.are_far)
                    }
                    _ => true,
                }
        };
        Candidate::ALL.into_iter().find(fits)
    }

    /// Days that could be written either way.
    fn is_ambiguous(&self) -> bool {
        let days = [Candidate::DayFirst, Candidate::MonthFirst];
        let times = [Candidate::DayFirstTime, Candidate::MonthFirstTime];
        [days, times]
            .iter()
            .any(|either| either.iter().all(|candidate| self.is_open(*candidate)))
    }

    /// The words of the booleans it holds, where both were seen: those that were named come before any other type, as nobody guessed them.
    fn boolean_words(
        &self,
        candidate: Option<Candidate>,
        cells: &CellFormat,
    ) -> Option<[Vec<String>; 2]> {
        if self.named_words == Some([true, true]) {
            let (yes, no) = cells.booleans.iter().cloned().unzip();
            return Some([yes, no]);
        }
        match (candidate, self.words) {
            (None, Some((pair, [true, true]))) if !self.has_other_words => {
                Some(WORDS[pair].map(|word| vec![word.to_owned()]))
            }
            // The words that were named would stand for these too.
            (Some(Candidate::Boolean), _) if !cells.booleans.is_empty() => {
                Some(["true", "false"].map(|word| vec![word.to_owned()]))
            }
            _ => None,
        }
    }

    /// How many cells are no UTF-8, the row of the first, and its text.
    pub(super) fn binary(&self) -> (u64, u64, &str) {
        (self.binary.count, self.binary.first, &self.first_binary)
    }

    /// What became of the column. Its field says all that an option says of it, so that its schema alone reads it the same.
    pub(super) fn report(&self, column: &str, field: String, cells: &CellFormat) -> ColumnReport {
        let candidate = self.candidate();
        let words = self.boolean_words(candidate, cells);
        let is_narrow = candidate.is_some() || words.is_some();
        // With a null token an empty string is an empty string.
        let empty_is_null = is_narrow || self.null_tokens.is_empty() || self.values == 0;
        let seen_usual: Vec<usize> = (0..self.usual.len())
            .filter(|at| self.usual[*at].count > 0)
            .collect();
        let mut nulls = self.tokens;
        if empty_is_null {
            nulls = nulls.and(self.empty);
        }
        let mut why = match &words {
            Some([yes, no]) => {
                let words: Vec<&str> = yes.iter().chain(no).map(String::as_str).collect();
                format!("all {} values are {}", self.values, words.join(" or "))
            }
            None => self.why(candidate),
        };
        let usual: Vec<&str> = seen_usual.iter().map(|at| USUAL_NULL_TOKENS[*at]).collect();
        let mut tokens: Vec<&str> = cells.null_tokens.iter().map(String::as_str).collect();
        match usual.as_slice() {
            [] => {}
            names if is_narrow => {
                nulls = seen_usual
                    .iter()
                    .fold(nulls, |nulls, at| nulls.and(self.usual[*at]));
                tokens.extend(names);
                let verb = if names.len() == 1 { "stands" } else { "stand" };
                why.push_str(&format!("; {} {verb} for null", names.join(", ")));
            }
            names => why.push_str(&format!("; {} is text as well", names.join(", "))),
        }
        if nulls.count > 0 && self.values > 0 {
            why.push_str(&nulls.sentence());
        }
        let mut attributes = Map::new();
        if nulls.count > 0 && !tokens.is_empty() {
            let empty = empty_is_null.then_some("");
            let all: Vec<&str> = empty.into_iter().chain(tokens).collect();
            attributes.insert(NULL_ATTRIBUTE.into(), json!(all));
        }
        let (avro_type, schema) = match (words, candidate) {
            (Some([yes, no]), _) => {
                attributes.insert(TRUE_ATTRIBUTE.into(), json!(yes));
                attributes.insert(FALSE_ATTRIBUTE.into(), json!(no));
                ("boolean".to_owned(), json!("boolean"))
            }
            (None, Some(candidate)) => self.typed(candidate, cells, &mut attributes),
            (None, None) => ("string".to_owned(), json!("string")),
        };
        let usual_only = self.values == 0 && !usual.is_empty();
        ColumnReport {
            column: column.to_owned(),
            field,
            avro_type,
            schema,
            attributes,
            nullable: nulls.count > 0 || self.values == 0 && !usual_only,
            why,
        }
    }

    /// The name of a type and its schema; what else must be said goes to the attributes.
    fn typed(
        &self,
        candidate: Candidate,
        cells: &CellFormat,
        attributes: &mut Map<String, Value>,
    ) -> (String, Value) {
        let name = candidate.name();
        if let Some(of) = candidate.time_type() {
            attributes.extend(written_as(of, cells));
        }
        let logical = |plain: &str| json!({"type": plain, "logicalType": name});
        match candidate {
            Candidate::Boolean | Candidate::Long | Candidate::Double => {
                (name.to_owned(), json!(name))
            }
            Candidate::Decimal => {
                let (precision, scale) = (self.digits.0 + self.digits.1, self.digits.1);
                let schema = json!({
                    "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale,
                });
                (format!("decimal({precision}, {scale})"), schema)
            }
            day if day.is_written_day() => {
                let has_fraction = self.days.fraction > 0;
                let pattern = self
                    .days
                    .form
                    .map(|form| form.pattern(day.is_day_first(), has_fraction));
                attributes.insert(FORMAT_ATTRIBUTE.into(), json!(pattern));
                if !day.has_clock() {
                    return (name.to_owned(), logical("int"));
                }
                let local = if cells.time_zone.is_some() {
                    ""
                } else {
                    "local-"
                };
                let name = format!("{local}timestamp-{}", self.days.unit());
                attributes.extend(zone_of(cells));
                let schema = json!({"type": "long", "logicalType": name});
                (name, schema)
            }
            Candidate::Date | Candidate::TimeMillis => (name.to_owned(), logical("int")),
            Candidate::Uuid => (name.to_owned(), logical("string")),
            _ => (name.to_owned(), logical("long")),
        }
    }

    fn why(&self, candidate: Option<Candidate>) -> String {
        if self.values == 0 {
            return "no cell holds a value".into();
        }
        let Some(candidate) = candidate else {
            if self.is_open(Candidate::Double) {
                return "no cell holds a number, only words such as NaN".into();
            }
            if self.is_ambiguous() {
                let text = show_text(&self.example);
                return format!(
                    "day and month cannot be told apart in {text} and all others: --time-format says which comes first"
                );
            }
            // The type that held out longest is the one a reader would have expected.
            let ruled_out = Candidate::ALL.into_iter().zip(&self.ruled_out);
            let last = ruled_out
                .filter(|(candidate, _)| *candidate != Candidate::Decimal)
                .filter_map(|(candidate, evidence)| Some((candidate, evidence.as_ref()?)));
            let last = last
                .max_by_key(|(_, evidence)| (evidence.row, evidence.obstacle != Obstacle::Form));
            return match last {
                Some((_, evidence))
                    if evidence.row == self.first_row() && evidence.obstacle == Obstacle::Form =>
                {
                    format!("{} in row {} is text", evidence.text, evidence.row)
                }
                Some((candidate, evidence)) => evidence.sentence(candidate),
                None => "no other type fits".into(),
            };
        };
        let mut why = match self.values {
            1 => format!("its one value is a {}", candidate.name()),
            values => format!("all {values} values are {}", candidate.all_values()),
        };
        if let Some(narrower) = candidate.narrower()
            && let Some(evidence) = &self.ruled_out[narrower as usize]
            && (evidence.obstacle != Obstacle::Form
                || matches!(candidate, Candidate::Double | Candidate::Decimal))
        {
            why.push_str("; ");
            why.push_str(&evidence.sentence(narrower));
        }
        why
    }

    /// The row of the first evidence: that of the first value.
    fn first_row(&self) -> u64 {
        let rows = self.ruled_out.iter().flatten().map(|evidence| evidence.row);
        rows.min().unwrap_or_default()
    }
}

/// What a field says of times that are written as the options have it.
fn written_as(of: TimeType, cells: &CellFormat) -> Map<String, Value> {
    let mut said = Map::new();
    match cells.time_formats.as_slice() {
        [] => {}
        [only] => drop(said.insert(FORMAT_ATTRIBUTE.into(), json!(only))),
        several => drop(said.insert(FORMAT_ATTRIBUTE.into(), json!(several))),
    }
    if !matches!(of, TimeType::TimeOfDay(_)) {
        said.extend(zone_of(cells));
    }
    said
}

/// What a field says of a time zone that the options have.
fn zone_of(cells: &CellFormat) -> Map<String, Value> {
    let mut said = Map::new();
    if let Some(zone) = &cells.time_zone {
        said.insert(TIME_ZONE_ATTRIBUTE.into(), json!(zone));
        if cells.time_ambiguity != TimeAmbiguity::Error {
            said.insert(TIME_AMBIGUITY_ATTRIBUTE.into(), json!(cells.time_ambiguity));
        }
    }
    said
}
