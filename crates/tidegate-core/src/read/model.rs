//! A reader written to be obviously right, for the tests: byte by byte over the whole input, without a buffer and with nothing clever.

use super::{BadRowKind, CsvFormat, Position, Ragged, ReadCounts};

/// What became of a row, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Good {
        start: Position,
        fields: Vec<Vec<u8>>,
        raw: Vec<u8>,
    },
    Bad {
        start: Position,
        kind: BadRowKind,
        raw: Vec<u8>,
        raw_len: u64,
    },
}

/// How a row ends in the model.
enum ModelEnd {
    /// Before this byte.
    At(usize),
    /// Where the line ends on which this byte stands, because a quoted field that opens there does not end properly.
    Broken(usize),
    /// Where the line ends on which this byte stands, because the row is too large.
    Cut(usize),
}

/// A byte, or what an escape has taken the meaning of.
struct Symbol<'a> {
    text: &'a [u8],
    is_escaped: bool,
    /// Where the next one stands.
    end: usize,
}

/// A row in the making. It is read symbol by symbol, so that whatever is behind an escape is seen to mean nothing.
struct ModelRow<'a> {
    window: &'a [u8],
    /// Whether the window ends before the input does.
    cut: bool,
    format: &'a CsvFormat,
}

impl<'a> ModelRow<'a> {
    fn symbol(&self, at: usize) -> Option<Symbol<'a>> {
        let byte = *self.window.get(at)?;
        let behind = &self.window[at + 1..];
        let meaning = [
            Some(self.format.delimiter),
            self.format.quote,
            self.format.escape,
        ];
        let taken = match behind.first() {
            _ if Some(byte) != self.format.escape => 0,
            Some(b'\n' | b'\r') => model_line_end(behind),
            Some(byte) if meaning.contains(&Some(*byte)) => 1,
            _ => 0,
        };
        let is_escaped = taken > 0;
        Some(Symbol {
            text: if is_escaped {
                &behind[..taken]
            } else {
                &self.window[at..=at]
            },
            is_escaped,
            end: at + 1 + taken,
        })
    }

    /// Whether a symbol stands there which means this byte.
    fn is(&self, at: usize, byte: Option<u8>) -> bool {
        let symbol = self.symbol(at);
        symbol.is_some_and(|symbol| !symbol.is_escaped && Some(symbol.text[0]) == byte)
    }

    fn is_blank(&self, at: usize) -> bool {
        let is_blank = self.is(at, Some(b' ')) || self.is(at, Some(b'\t'));
        is_blank && !self.is(at, Some(self.format.delimiter))
    }

    fn ends_field(&self, at: usize) -> bool {
        let ends = [self.format.delimiter, b'\n', b'\r'];
        at >= self.window.len() || ends.iter().any(|byte| self.is(at, Some(*byte)))
    }

    /// Behind the blanks that may be left out.
    fn past_blanks(&self, mut at: usize) -> usize {
        while self.format.trim && self.is_blank(at) {
            at += 1;
        }
        at
    }

    /// A quoted field, whose opening quote stands at `open`: its text, and where its closing quote stands.
    fn quoted(&self, open: usize) -> Result<(Vec<u8>, usize), ModelEnd> {
        let quote = self.format.quote;
        let mut field = Vec::new();
        let mut at = open + 1;
        while let Some(symbol) = self.symbol(at) {
            let is_quote = self.is(at, quote);
            if is_quote && symbol.end == self.window.len() && self.cut {
                return Err(ModelEnd::Cut(at));
            }
            if is_quote && !self.is(symbol.end, quote) {
                return Ok((field, at));
            }
            field.extend(symbol.text);
            at = symbol.end + usize::from(is_quote);
        }
        Err(ModelEnd::Broken(open))
    }

    /// The text from `start` to `end`, which no quotes enclose.
    fn bare(&self, start: usize, end: usize) -> Vec<u8> {
        let mut at = self.past_blanks(start).min(end);
        let (mut field, mut last_text) = (Vec::new(), 0);
        while at < end
            && let Some(symbol) = self.symbol(at)
        {
            field.extend(symbol.text);
            if !(self.format.trim && self.is_blank(at)) {
                last_text = field.len();
            }
            at = symbol.end;
        }
        field.truncate(last_text);
        field
    }

    /// One row, from the start of the window: its end, its fields, and whether its quotes do not add up.
    fn read(&self) -> (ModelEnd, Vec<Vec<u8>>, bool) {
        let (mut fields, mut fault, mut at) = (Vec::new(), false, 0);
        loop {
            let start = at;
            at = self.past_blanks(at);
            let mut enclosed = None;
            if self.format.quote.is_some() && self.is(at, self.format.quote) {
                let open = at;
                let close = match self.quoted(open) {
                    Ok((text, close)) => {
                        enclosed = Some(text);
                        close
                    }
                    Err(end) => return (end, fields, fault),
                };
                at = self.past_blanks(close + 1);
                if !self.ends_field(at) {
                    let within = &self.window[open..close];
                    if within.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
                        return (ModelEnd::Broken(open), fields, fault);
                    }
                    fault = true;
                }
            }
            while !self.ends_field(at)
                && let Some(symbol) = self.symbol(at)
            {
                fault |= self.format.quote.is_some() && self.is(at, self.format.quote);
                at = symbol.end;
            }
            fields.push(enclosed.unwrap_or_else(|| self.bare(start, at)));
            if self.is(at, Some(self.format.delimiter)) {
                at += 1;
                continue;
            }
            let untold = self.is(at, Some(b'\r')) && at + 1 == self.window.len();
            let end = if self.cut && (untold || at == self.window.len()) {
                ModelEnd::Cut(at)
            } else {
                ModelEnd::At(at)
            };
            return (end, fields, fault);
        }
    }
}

/// One row of the model, from the start of `rest`: byte by byte, with nothing clever.
fn model_row(rest: &[u8], format: &CsvFormat) -> (ModelEnd, Vec<Vec<u8>>, bool) {
    let widest = format.max_row_size + 2;
    let row = ModelRow {
        window: &rest[..rest.len().min(widest)],
        cut: rest.len() >= widest,
        format,
    };
    row.read()
}

fn model_line_end(rest: &[u8]) -> usize {
    match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// Where the line ends on which this byte stands.
fn model_line_to(input: &[u8], from: usize) -> usize {
    let is_end = |at: &usize| model_line_end(&input[*at..]) > 0;
    (from..input.len()).find(is_end).unwrap_or(input.len())
}

/// A row of another number of fields than there are columns, evened out where that is allowed.
fn evened(fields: &mut Vec<Vec<u8>>, columns: usize, ragged: Ragged) -> bool {
    let is_allowed = match ragged {
        Ragged::Error => false,
        Ragged::Pad => fields.len() < columns,
        Ragged::DropExtra => fields.len() > columns,
    };
    if is_allowed {
        fields.resize(columns, Vec::new());
    }
    is_allowed
}

/// A reader written to be obviously right.
pub(super) fn model(
    input: &[u8],
    position: Position,
    columns: usize,
    format: &CsvFormat,
) -> (Vec<Outcome>, ReadCounts) {
    let mut outcomes = Vec::new();
    let mut counts = ReadCounts::default();
    let mut at = usize::try_from(position.byte).unwrap();
    let (mut line, mut row) = (position.line, position.row);
    while at < input.len() {
        let start = Position {
            byte: at as u64,
            line,
            row,
        };
        if Some(input[at]) == format.comment {
            let end = model_line_to(input, at);
            let line_end = model_line_end(&input[end..]);
            line += u64::from(line_end > 0);
            at = end + line_end;
            counts.comment_lines += 1;
            continue;
        }
        let (end, mut fields, fault) = model_row(&input[at..], format);
        let end_of_line = |from: usize| model_line_to(input, at + from);
        let (end, kind) = match end {
            ModelEnd::Broken(open) => (end_of_line(open), Some(BadRowKind::Quotes)),
            ModelEnd::Cut(from) => (end_of_line(from), Some(BadRowKind::TooLarge)),
            ModelEnd::At(end) if fault => (at + end, Some(BadRowKind::Quotes)),
            ModelEnd::At(end) if end > format.max_row_size => {
                (at + end, Some(BadRowKind::TooLarge))
            }
            ModelEnd::At(0) if columns != 1 => (at, None),
            ModelEnd::At(end) if fields.len() == columns => (at + end, None),
            ModelEnd::At(end) if evened(&mut fields, columns, format.ragged) => {
                counts.evened_rows += 1;
                (at + end, None)
            }
            ModelEnd::At(end) => (at + end, Some(BadRowKind::Ragged)),
        };
        let raw = &input[at..end];
        let line_end = model_line_end(&input[end..]);
        while at < end {
            let step = model_line_end(&input[at..]);
            line += u64::from(step > 0);
            at += step.max(1);
        }
        at = end + line_end;
        line += u64::from(line_end > 0);
        if raw.is_empty() && columns != 1 {
            counts.blank_lines += 1;
            continue;
        }
        row += 1;
        let is_too_large = raw.len() > format.max_row_size;
        let kept = raw
            .len()
            .min(if is_too_large { 64 << 10 } else { raw.len() });
        outcomes.push(match kind {
            None => Outcome::Good {
                start,
                fields,
                raw: raw.to_vec(),
            },
            Some(kind) => Outcome::Bad {
                start,
                kind,
                raw: raw[..kept].to_vec(),
                raw_len: raw.len() as u64,
            },
        });
    }
    (outcomes, counts)
}
