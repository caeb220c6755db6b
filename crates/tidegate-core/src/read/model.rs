//! A reader written to be obviously right, for the tests: byte by byte over the whole input, without a buffer and with nothing clever.

use super::{BadRowKind, CsvFormat, Position};

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

/// A quoted field of the model, whose opening quote stands at `open`: its text, and where its closing quote stands.
fn model_quoted(
    window: &[u8],
    open: usize,
    cut: bool,
    quote: u8,
) -> Result<(Vec<u8>, usize), ModelEnd> {
    let mut field = Vec::new();
    let mut at = open + 1;
    loop {
        match (window.get(at), window.get(at + 1)) {
            (None, _) => return Err(ModelEnd::Broken(open)),
            (Some(byte), None) if *byte == quote && cut => return Err(ModelEnd::Cut(at)),
            (Some(byte), Some(next)) if *byte == quote && *next == quote => {
                field.push(quote);
                at += 2;
            }
            (Some(byte), _) if *byte == quote => return Ok((field, at)),
            (Some(byte), _) => {
                field.push(*byte);
                at += 1;
            }
        }
    }
}

/// One row of the model, from the start of `rest`: byte by byte, with nothing clever.
fn model_row(rest: &[u8], format: &CsvFormat) -> (ModelEnd, Vec<Vec<u8>>, bool) {
    let widest = format.max_row_size + 2;
    let cut = rest.len() >= widest;
    let window = &rest[..rest.len().min(widest)];
    let ends_field =
        |at: usize| window[at] == format.delimiter || window[at] == b'\n' || window[at] == b'\r';
    let (mut fields, mut fault, mut at) = (Vec::new(), false, 0);
    loop {
        let mut field = Vec::new();
        if window
            .get(at)
            .copied()
            .is_some_and(|byte| Some(byte) == format.quote)
        {
            let open = at;
            match model_quoted(window, open, cut, window[open]) {
                Ok((text, close)) => (field, at) = (text, close + 1),
                Err(end) => return (end, fields, fault),
            }
            if at < window.len() && !ends_field(at) {
                if window[open..at]
                    .iter()
                    .any(|byte| matches!(byte, b'\n' | b'\r'))
                {
                    return (ModelEnd::Broken(open), fields, fault);
                }
                fault = true;
            }
        }
        while at < window.len() && !ends_field(at) {
            fault |= Some(window[at]) == format.quote;
            field.push(window[at]);
            at += 1;
        }
        fields.push(field);
        if at == window.len() {
            return (
                if cut {
                    ModelEnd::Cut(at)
                } else {
                    ModelEnd::At(at)
                },
                fields,
                fault,
            );
        }
        if window[at] == format.delimiter {
            at += 1;
            continue;
        }
        let untold = window[at] == b'\r' && at + 1 == window.len() && cut;
        return (
            if untold {
                ModelEnd::Cut(at)
            } else {
                ModelEnd::At(at)
            },
            fields,
            fault,
        );
    }
}

fn model_line_end(rest: &[u8]) -> usize {
    match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

/// A reader written to be obviously right.
pub(super) fn model(
    input: &[u8],
    position: Position,
    columns: usize,
    format: &CsvFormat,
) -> (Vec<Outcome>, u64) {
    let mut outcomes = Vec::new();
    let mut blank_lines = 0;
    let mut at = usize::try_from(position.byte).unwrap();
    let (mut line, mut row) = (position.line, position.row);
    while at < input.len() {
        let start = Position {
            byte: at as u64,
            line,
            row,
        };
        let (end, fields, fault) = model_row(&input[at..], format);
        let end_of_line = |from: usize| {
            (at + from..input.len())
                .find(|at| model_line_end(&input[*at..]) > 0)
                .unwrap_or(input.len())
        };
        let (end, kind) = match end {
            ModelEnd::Broken(open) => (end_of_line(open), Some(BadRowKind::Quotes)),
            ModelEnd::Cut(from) => (end_of_line(from), Some(BadRowKind::TooLarge)),
            ModelEnd::At(end) if fault => (at + end, Some(BadRowKind::Quotes)),
            ModelEnd::At(end) if end > format.max_row_size => {
                (at + end, Some(BadRowKind::TooLarge))
            }
            ModelEnd::At(end) if fields.len() != columns => (at + end, Some(BadRowKind::Ragged)),
            ModelEnd::At(end) => (at + end, None),
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
            blank_lines += 1;
            continue;
        }
        row += 1;
        let kept = if raw.len() > format.max_row_size {
            raw.len().min(64 << 10)
        } else {
            raw.len()
        };
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
    (outcomes, blank_lines)
}
