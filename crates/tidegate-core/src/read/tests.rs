//! The reader against tables of cases, against csv-core on well-formed input, and against a naive model on any input, at every buffer boundary.

use std::io::Read;

use proptest::prelude::*;

use super::model::{Outcome, model};
use super::*;
use crate::ErrorKind;
use crate::position::LineEnd;

/// Gives at most `size` bytes at a time, and before each of these pieces has nothing.
struct Dribble<'a> {
    bytes: &'a [u8],
    size: usize,
    is_ready: bool,
}

impl<'a> Dribble<'a> {
    fn new(bytes: &'a [u8], size: usize) -> Self {
        Self {
            bytes,
            size,
            is_ready: false,
        }
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let count = self.size.min(self.bytes.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        Ok(count)
    }
}

struct Whole {
    outcomes: Vec<Outcome>,
    ends: Vec<Position>,
    counts: ReadCounts,
    end: Position,
}

fn read_all<R: Read>(mut reader: RowReader<R>) -> Whole {
    let mut outcomes = Vec::new();
    let mut ends = Vec::new();
    loop {
        let outcome = match reader.next().unwrap() {
            ReadRow::Row(row) => Outcome::Good {
                start: row.start(),
                fields: row.fields().map(<[u8]>::to_vec).collect(),
                raw: row.raw().to_vec(),
            },
            ReadRow::Bad(bad) => Outcome::Bad {
                start: Position {
                    byte: bad.byte,
                    line: bad.line,
                    row: bad.row - 1,
                },
                kind: bad.kind,
                raw: bad.raw,
                raw_len: bad.raw_len,
            },
            ReadRow::Idle => continue,
            ReadRow::End => break,
        };
        outcomes.push(outcome);
        ends.push(reader.position());
    }
    Whole {
        outcomes,
        ends,
        counts: reader.counts(),
        end: reader.position(),
    }
}

fn read_text(input: &str) -> Whole {
    read_all(RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap())
}

/// The outcomes in short: fields joined by `|`, or the kind and the raw bytes of a bad row.
fn short(whole: &Whole) -> Vec<String> {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    whole
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Good { fields, .. } => fields
                .iter()
                .map(|field| show(field))
                .collect::<Vec<_>>()
                .join("|"),
            Outcome::Bad { kind, raw, .. } => format!("{kind:?}: {}", show(raw)),
        })
        .collect()
}

fn check(input: &str, expected: &[&str]) {
    for size in 1..=9 {
        let dribble = Dribble::new(input.as_bytes(), size);
        let whole = read_all(RowReader::open(dribble, CsvFormat::default()).unwrap());
        assert_eq!(
            short(&whole),
            expected,
            "{size} bytes at a time of {input:?}"
        );
    }
    assert_eq!(short(&read_text(input)), expected, "{input:?}");
}

fn open_error(input: &[u8]) -> crate::Error {
    RowReader::open(input, CsvFormat::default()).unwrap_err()
}

#[test]
fn rows_end_with_any_line_end_or_the_input() {
    for line_end in ["\n", "\r\n", "\r"] {
        for last in ["", line_end] {
            check(
                &format!("a,b{line_end}1,2{line_end}3,4{last}"),
                &["1|2", "3|4"],
            );
        }
    }
    check("a,b\n1,\n,2\n,\n", &["1|", "|2", "|"]);
    check("a,b\n1,", &["1|"]);
    check("a,b", &[]);
    check("a,b\n", &[]);
}

#[test]
fn quotes_hold_delimiters_line_ends_and_quotes() {
    check("a,b\n\"1,2\",\"x\ny\"\n3,4\n", &["1,2|x\ny", "3|4"]);
    check("a,b\n\"1\r\n2\",\"\"\"q\"\"\"\r\n", &["1\r\n2|\"q\""]);
    check("a,b\n\"\",\"\"", &["|"]);
    check("a,b\n\"\"\"\",x", &["\"|x"]);
    check("a,b\nx,\"y\"", &["x|y"]);
    check("a,b\n\"\"\"a\"\"b\"\"\",\"c\"\r3,4", &["\"a\"b\"|c", "3|4"]);
}

#[test]
fn faulty_quotes_are_bad_rows_up_to_the_end_of_their_line() {
    check("a,b\n5\" pipe,x\n1,2\n", &["Quotes: 5\" pipe,x", "1|2"]);
    check("a,b\n1,\"q\"z\n1,2\n", &["Quotes: 1,\"q\"z", "1|2"]);
    check("a,b\n1,\"q\" \n1,2\n", &["Quotes: 1,\"q\" ", "1|2"]);
    check("a,b\n1, \"q\"\n1,2\n", &["Quotes: 1, \"q\"", "1|2"]);
    // A line end inside sound quotes of the same row still belongs to it.
    check(
        "a,b\nx\"y,\"p\nq\"\n1,2\n",
        &["Quotes: x\"y,\"p\nq\"", "1|2"],
    );
}

#[test]
fn an_unclosed_quote_costs_its_line_only() {
    check(
        "a,b\n1,\"oops\n2,x\n3,y\n",
        &["Quotes: 1,\"oops", "2|x", "3|y"],
    );
    check("a,b\n1,\"oops\r\n2,x\r\n", &["Quotes: 1,\"oops", "2|x"]);
    check("a,b\n1,\"", &["Quotes: 1,\""]);
    // The next quoted field of the file is no reason to take what lies between for a field.
    check(
        "a,b\n1,\"oops\n2,\"fine\"\n3,y\n",
        &["Quotes: 1,\"oops", "2|fine", "3|y"],
    );
    // The line with the open quote is the second one of its row.
    check(
        "a,b\n\"x\ny\",\"oops\n2,z\n",
        &["Quotes: \"x\ny\",\"oops", "2|z"],
    );
    // An escaped quote does not close.
    check("a,b\n1,\"oops\"\"\n2,z\n", &["Quotes: 1,\"oops\"\"", "2|z"]);
}

#[test]
fn rows_with_another_number_of_fields_are_bad() {
    check(
        "a,b\n1\n1,2,3\n1,2\n",
        &["Ragged: 1", "Ragged: 1,2,3", "1|2"],
    );
    let reason = |input: &str| {
        let mut reader = RowReader::open(input.as_bytes(), CsvFormat::default()).unwrap();
        match reader.next().unwrap() {
            ReadRow::Bad(bad) => bad.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        reason("a,b,c\n1\n"),
        "row 1 (line 2), column `b`: expected 3 fields, found 1: `b` is the first column without one"
    );
    assert_eq!(
        reason("a,b\n1,2,x,4\n"),
        "row 1 (line 2), column `b`: expected 2 fields, found 4: the first one too many, behind `b`, is `x`"
    );
    assert_eq!(
        reason("a,b\n1,5\" pipe\n"),
        "row 1 (line 2), column `b`: expected no `\\\"` inside a field that does not begin with one, found `1,5\" pipe` on line 2: \
         enclose the field in quotes and double the quotes in it"
    );
    assert_eq!(
        reason("a,b\n1,\"oops\n2,x\n"),
        "row 1 (line 2), column `b`: expected a closing `\\\"` for the one opened on line 2 (`1,\"oops`), found none"
    );
}

#[test]
fn blank_lines_are_skipped_and_counted_but_in_one_column() {
    let whole = read_text("\n\r\na,b\n\n1,2\r\r\n\n3,4\n\n");
    assert_eq!(short(&whole), ["1|2", "3|4"]);
    assert_eq!(whole.counts.blank_lines, 4);
    check("a\n1\n\n2\n", &["1", "", "2"]);
    check("\na\n\n", &[""]);
    check("a\n\"\"\n", &[""]);
    // A line of blanks is not blank.
    check("a,b\n \n", &["Ragged:  "]);
}

#[test]
fn positions_count_bytes_lines_and_rows() {
    let whole = read_text("a,b\r\n1,\"x\r\ny\"\r\n\r\n3,4\r5,6");
    let starts: Vec<_> = whole
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Good { start, .. } | Outcome::Bad { start, .. } => {
                (start.byte, start.line, start.row)
            }
        })
        .collect();
    assert_eq!(starts, [(5, 2, 0), (17, 5, 1), (21, 6, 2)]);
    assert_eq!(
        whole.end,
        Position {
            byte: 24,
            line: 6,
            row: 3
        }
    );
}

#[test]
fn a_byte_order_mark_is_skipped_and_counted() {
    check("\u{feff}a,b\n1,2\n", &["1|2"]);
    check("\u{feff}\"a\",b\n1,2\n", &["1|2"]);
    let reader = RowReader::open("\u{feff}a,b\n".as_bytes(), CsvFormat::default()).unwrap();
    assert_eq!(reader.header().names(), ["a", "b"]);
    assert_eq!(
        reader.position(),
        Position {
            byte: 7,
            line: 2,
            row: 0
        }
    );
    // Only at the start.
    check("a,b\n\u{feff}1,2\n", &["\u{feff}1|2"]);
}

#[test]
fn any_byte_may_stand_in_a_field() {
    let input = b"a,b\n\0,\xff\n\"\0\",x\n";
    let whole = read_all(RowReader::open(&input[..], CsvFormat::default()).unwrap());
    let fields = |index: usize| match &whole.outcomes[index] {
        Outcome::Good { fields, .. } => fields.clone(),
        bad => panic!("{bad:?}"),
    };
    assert_eq!(fields(0), [b"\0".to_vec(), b"\xff".to_vec()]);
    assert_eq!(fields(1), [b"\0".to_vec(), b"x".to_vec()]);
}

#[test]
fn an_input_without_a_usable_header_is_refused() {
    for input in [&b""[..], b"\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"] {
        assert_eq!(open_error(input).kind(), ErrorKind::EmptyInput, "{input:?}");
    }
    for (input, part) in [
        (
            &b"a,a#2,a\n1,2,3\n"[..],
            "header (line 1): the header names `a#2` more than once",
        ),
        (
            b"\na,\xff\n",
            "header (line 2): the name of column 2 is not UTF-8",
        ),
        (
            b"a,\"b\n1,2\n",
            "header (line 1), column \"b\": the header cannot be read",
        ),
        (
            b"\xff\xfea\0,\0b\0",
            "header (line 1): the input is in UTF-16",
        ),
        (b"\xfe\xff\0a", "header (line 1): the input is in UTF-16"),
    ] {
        let error = open_error(input);
        assert_eq!(error.kind(), ErrorKind::BadRow);
        let close = error.to_string();
        assert!(
            close.contains(part)
                || part.contains("cannot be read") && close.contains("cannot be read"),
            "{close}"
        );
    }
}

#[test]
fn reading_errors_say_where() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(std::io::ErrorKind::Interrupted.into()),
                2 => {
                    buffer[..8].copy_from_slice(b"a,b\n1,2\n");
                    Ok(8)
                }
                _ => Err(std::io::Error::other("the disk is gone")),
            }
        }
    }
    let mut reader = RowReader::open(Broken(0), CsvFormat::default()).unwrap();
    assert!(matches!(reader.next().unwrap(), ReadRow::Row(_)));
    let error = reader.next().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(error.to_string(), "cannot read the input at byte 8");
}

/// In a file of one column a blank line is a row; the second half of a line end is none.
#[test]
fn a_line_end_that_comes_late_is_no_row() {
    let header = Header::new(["a"]).unwrap();
    for (line_end, rest, rows) in [
        (LineEnd::Whole, "\n7\n", &["", "7"][..]),
        (LineEnd::CarriageReturn, "\n7\n", &["7"]),
        (LineEnd::CarriageReturn, "\r7\n", &["", "7"]),
        (LineEnd::Missing, "\r\n7\n", &["7"]),
        (LineEnd::Missing, "\r7\n", &["7"]),
        (LineEnd::Missing, "\n\n7", &["", "7"]),
        (LineEnd::Missing, "", &[]),
    ] {
        let start = || Start {
            position: Position {
                byte: 3,
                line: 2,
                row: 1,
            },
            end: InputEnd {
                line_end,
                ..InputEnd::default()
            },
            ..Start::default()
        };
        for size in 1..4 {
            let bytes = Dribble::new(rest.as_bytes(), size);
            let format = CsvFormat::default();
            let whole = read_all(RowReader::go_on(bytes, &format, &header, start()).unwrap());
            assert_eq!(short(&whole), rows, "{line_end:?}, {rest:?}");
        }
    }
}

#[test]
fn another_header_than_before_is_refused() {
    let header = Header::new(["a", "b"]).unwrap();
    let resume = |input: &'static str, position| {
        RowReader::resume(input.as_bytes(), CsvFormat::default(), &header, position)
    };
    assert!(resume("a,b\n1,2\n", Position::START).is_ok());
    assert_eq!(
        resume("a,c\n1,2\n", Position::START).unwrap_err().kind(),
        ErrorKind::InputChanged
    );
    let reader = resume(
        "1,2\n3,4\n",
        Position {
            byte: 4,
            line: 2,
            row: 0,
        },
    )
    .unwrap();
    assert_eq!(short(&read_all(reader)), ["1|2", "3|4"]);
}

fn small(max_row_size: usize) -> CsvFormat {
    CsvFormat {
        max_row_size,
        ..CsvFormat::default()
    }
}

#[test]
fn rows_over_the_size_limit_are_bad_and_the_next_line_is_read() {
    let read = |input: &str, size| {
        let dribble = Dribble::new(input.as_bytes(), size);
        short(&read_all(RowReader::open(dribble, small(10)).unwrap()))
    };
    for size in 1..40 {
        assert_eq!(
            read("a,b\n123456,890\r\n1,2\n", size),
            ["123456|890", "1|2"]
        );
        assert_eq!(
            read("a,b\n123456,8901\r\n1,2\n", size),
            ["TooLarge: 123456,8901", "1|2"]
        );
        assert_eq!(
            read("a,b\n123456,89012345678901234567890\r1,2\n", size)[1..],
            ["1|2"]
        );
        assert_eq!(read("a,b\n123456,89012345678901234567890", size).len(), 1);
        // A quote that does not close within the limit is an unclosed one.
        assert_eq!(
            read("a,b\n\"1\n2,3\n4,5\n6,7\",8\n", size),
            ["Quotes: \"1", "2|3", "4|5", "Quotes: 6,7\",8"]
        );
        assert_eq!(
            read("a,b\n1,\"2345678901234\n5,6\n", size),
            ["Quotes: 1,\"2345678901234", "5|6"]
        );
    }
}

/// An endless field of one byte, then a line end and a sound row.
struct HugeField {
    left: u64,
    head: &'static [u8],
    tail: &'static [u8],
}

impl Read for HugeField {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let source = if !self.head.is_empty() {
            &mut self.head
        } else if self.left > 0 {
            let count = usize::try_from(self.left).unwrap().min(buffer.len());
            buffer[..count].fill(b'x');
            self.left -= count as u64;
            return Ok(count);
        } else {
            &mut self.tail
        };
        let count = source.len().min(buffer.len());
        buffer[..count].copy_from_slice(&source[..count]);
        *source = &source[count..];
        Ok(count)
    }
}

#[test]
fn t27_memory_is_bounded_for_a_field_of_a_gigabyte() {
    for (head, tail) in [
        (&b"a,b\n1,"[..], &b"\n5,6\n"[..]),
        (b"a,b\n1,\"", b"\"\n5,6\n"),
    ] {
        let mut reader = RowReader::open(
            HugeField {
                left: 1 << 30,
                head,
                tail,
            },
            CsvFormat::default(),
        )
        .unwrap();
        match reader.next().unwrap() {
            ReadRow::Bad(bad) => {
                assert_eq!(bad.raw.len(), 64 << 10);
                assert!(bad.raw_len > 1 << 30);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(reader.next().unwrap(), ReadRow::Row(_)));
        assert!(matches!(reader.next().unwrap(), ReadRow::End));
        assert!(
            reader.buffer_size() <= 2 * crate::limits::MAX_ROW_SIZE + 64,
            "{}",
            reader.buffer_size()
        );
    }
}

#[test]
fn a_hundred_thousand_columns_are_read() {
    let names: Vec<String> = (0..100_000).map(|index| format!("c{index}")).collect();
    let cells: Vec<String> = (0..100_000).map(|index| index.to_string()).collect();
    let input = format!(
        "{}\n{}\n{}\n",
        names.join(","),
        cells.join(","),
        ",".repeat(300_000)
    );
    let whole = read_text(&input);
    match &whole.outcomes[..] {
        [
            Outcome::Good { fields, .. },
            Outcome::Bad {
                kind: BadRowKind::Ragged,
                ..
            },
        ] => assert_eq!(fields[99_999], b"99999"),
        other => panic!("{} outcomes", other.len()),
    }
}

/// Bytes as nasty as they come: mostly those that mean something.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b",".to_vec()),
        3 => Just(b"\"".to_vec()),
        2 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\"\"".to_vec()),
        2 => Just(b",\"".to_vec()),
        2 => Just(b"\",".to_vec()),
        1 => Just(b"\"\n".to_vec()),
        4 => "[a-z]{1,12}".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => "[ä€]{1,3}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn header_of(columns: usize) -> (String, Header) {
    let names: Vec<String> = (0..columns).map(|index| format!("c{index}")).collect();
    (
        format!("{}\n", names.join(",")),
        Header::new(names).unwrap(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn t26_any_bytes_give_what_the_model_says(body in nasty(), columns in 1_usize..4, size in 1_usize..80, limit in 1_usize..60) {
        let (text, _) = header_of(columns);
        let input = [text.as_bytes(), &body].concat();
        let max_row_size = limit.max(text.len());
        let dribble = Dribble::new(&input, size);
        let whole = read_all(RowReader::open(dribble, small(max_row_size)).unwrap());
        let position = Position { byte: text.len() as u64, line: 2, row: 0 };
        let (outcomes, counts) = model(&input, position, columns, &small(max_row_size));
        prop_assert_eq!(whole.outcomes, outcomes);
        prop_assert_eq!(whole.counts, counts);
        prop_assert_eq!(whole.end.byte, input.len() as u64);
    }

    #[test]
    fn every_byte_belongs_to_a_row_or_a_line_end(body in nasty(), columns in 1_usize..4) {
        let (text, _) = header_of(columns);
        let input = [text.as_bytes(), &body].concat();
        let whole = read_all(RowReader::open(&input[..], CsvFormat::default()).unwrap());
        let mut left = input.clone();
        left.drain(..text.len());
        for outcome in &whole.outcomes {
            let (Outcome::Good { start, raw, .. } | Outcome::Bad { start, raw, .. }) = outcome;
            let at = usize::try_from(start.byte).unwrap();
            prop_assert_eq!(&input[at..at + raw.len()], &raw[..]);
            left[at - text.len()..at - text.len() + raw.len()].fill(b'\n');
        }
        prop_assert!(left.iter().all(|byte| matches!(byte, b'\r' | b'\n')));
    }

    #[test]
    fn reading_from_any_row_on_gives_exactly_the_rest(body in nasty(), columns in 1_usize..4, size in 1_usize..80) {
        let (text, header) = header_of(columns);
        let input = [text.as_bytes(), &body].concat();
        let whole = read_all(RowReader::open(&input[..], CsvFormat::default()).unwrap());
        for (index, end) in whole.ends.iter().enumerate() {
            let bytes = &input[usize::try_from(end.byte).unwrap()..];
            let rest = RowReader::resume(Dribble::new(bytes, size), CsvFormat::default(), &header, *end).unwrap();
            prop_assert_eq!(read_all(rest).outcomes, &whole.outcomes[index + 1..]);
        }
    }

    #[test]
    fn well_formed_input_is_read_as_csv_core_does(
        rows in prop::collection::vec(prop::collection::vec("[a-z,\"\r\n ä]{0,9}", 2), 0..12),
        quote_all: bool,
        line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        size in 1_usize..60,
    ) {
        let mut input = format!("a,b{line_end}");
        for row in &rows {
            let fields: Vec<String> = row.iter().map(|field| written(field, quote_all)).collect();
            input.push_str(&fields.join(","));
            input.push_str(line_end);
        }
        let whole = read_all(RowReader::open(Dribble::new(input.as_bytes(), size), CsvFormat::default()).unwrap());
        let ours: Vec<Vec<Vec<u8>>> = whole.outcomes.into_iter().map(|outcome| match outcome {
            Outcome::Good { fields, .. } => fields,
            bad => panic!("{bad:?}"),
        }).collect();
        let written: Vec<Vec<Vec<u8>>> = rows.iter().map(|row| row.iter().map(|field| field.clone().into_bytes()).collect()).collect();
        prop_assert_eq!(&ours, &written);
        prop_assert_eq!(&ours, &csv_core_rows(input.as_bytes())[1..]);
    }

    #[test]
    fn input_without_quotes_is_read_as_csv_core_does(body in "[a-z,\r\n]{0,80}", size in 1_usize..60) {
        let input = format!("a,b\n{body}");
        let whole = read_all(RowReader::open(Dribble::new(input.as_bytes(), size), CsvFormat::default()).unwrap());
        let theirs = csv_core_rows(input.as_bytes());
        prop_assert_eq!(whole.outcomes.len(), theirs.len() - 1);
        for (ours, theirs) in whole.outcomes.iter().zip(&theirs[1..]) {
            match ours {
                Outcome::Good { fields, .. } => prop_assert_eq!(fields, theirs),
                Outcome::Bad { .. } => prop_assert_ne!(theirs.len(), 2),
            }
        }
    }
}

fn written(field: &str, quote: bool) -> String {
    if quote || field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// All rows, the header too, as csv-core reads them.
fn csv_core_rows(mut input: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut reader = csv_core::Reader::new();
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), Vec::new());
    let mut output = [0; 16];
    loop {
        let (result, read, written) = reader.read_field(input, &mut output);
        input = &input[read..];
        field.extend_from_slice(&output[..written]);
        match result {
            csv_core::ReadFieldResult::InputEmpty | csv_core::ReadFieldResult::OutputFull => {}
            csv_core::ReadFieldResult::Field { record_end } => {
                row.push(std::mem::take(&mut field));
                if record_end {
                    rows.push(std::mem::take(&mut row));
                }
            }
            csv_core::ReadFieldResult::End => return rows,
        }
    }
}

/// Rows of all lengths around the size of the read buffer, so that it is moved and grown in the middle of each kind of row.
#[test]
fn rows_across_the_ends_of_the_buffer_are_whole() {
    let mut input = b"c0,c1\n".to_vec();
    let mut state = 1_u32;
    while input.len() < 5 << 20 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let kind = state >> 24;
        let len = if kind == 0 {
            300_000
        } else {
            (state >> 8) as usize % 5_000
        };
        match kind % 4 {
            0 => input.extend_from_slice(&[&vec![b'a'; len], &b",b\r\n"[..]].concat()),
            1 => input
                .extend_from_slice(&[&b"\"x\r\n\"\""[..], &vec![b'q'; len], b"\",b\r"].concat()),
            2 => input.extend_from_slice(&[&b"a,"[..], &vec![b'z'; len], b"\n\n"].concat()),
            _ => input.extend_from_slice(&[&vec![b'r'; len], &b"\n"[..]].concat()),
        }
    }
    let position = Position {
        byte: 6,
        line: 2,
        row: 0,
    };
    let (outcomes, counts) = model(&input, position, 2, &CsvFormat::default());
    for size in [usize::MAX, 65_521, 262_144] {
        let dribble = Dribble::new(&input, size);
        let whole = read_all(RowReader::open(dribble, CsvFormat::default()).unwrap());
        assert!(whole.outcomes == outcomes, "{size} bytes at a time");
        assert_eq!(whole.counts, counts);
    }
}

/// Some way to write a CSV file.
fn any_dialect() -> impl Strategy<Value = CsvFormat> {
    let ragged = prop_oneof![
        Just(Ragged::Error),
        Just(Ragged::Pad),
        Just(Ragged::DropExtra)
    ];
    let options = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        ragged,
    );
    options.prop_map(
        |(quote, escape, comment, trim, has_header, ragged)| CsvFormat {
            quote: quote.then_some(b'"'),
            escape: escape.then_some(b'\\'),
            comment: comment.then_some(b'#'),
            trim,
            has_header,
            ragged,
            ..CsvFormat::default()
        },
    )
}

#[test]
fn a_blank_that_is_escaped_is_not_left_out() {
    let format = CsvFormat {
        delimiter: b'\t',
        escape: Some(b'\\'),
        trim: true,
        ..CsvFormat::default()
    };
    let input = &b"a\tb\n x\\\t \t\\\t\n"[..];
    let whole = read_all(RowReader::open(input, format).unwrap());
    match &whole.outcomes[..] {
        [Outcome::Good { fields, .. }] => assert_eq!(fields, &[&b"x\t"[..], b"\t"]),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_dialect_gives_what_the_model_says(
        format in any_dialect(),
        delimiter in prop::sample::select(&b",;\t|"[..]),
        quote in prop::sample::select(&b"\"'"[..]),
        body in "[ab,;|\"'\\\\# \t\r\n]{0,60}",
        columns in 1_usize..4,
        size in 1_usize..9,
    ) {
        let format = CsvFormat { delimiter, quote: format.quote.map(|_| quote), has_header: true, ..format };
        let names: Vec<String> = (0..columns).map(|index| format!("c{index}")).collect();
        let header = names.join(std::str::from_utf8(&[delimiter]).unwrap()) + "\n";
        let input = [header.as_bytes(), body.as_bytes()].concat();
        let whole = read_all(RowReader::open(Dribble::new(&input, size), format.clone()).unwrap());
        let position = Position { byte: header.len() as u64, line: 2, row: 0 };
        let (outcomes, counts) = model(&input, position, columns, &format);
        prop_assert_eq!(whole.outcomes, outcomes);
        prop_assert_eq!(whole.counts, counts);
    }

    /// In any dialect what is read depends on the bytes alone, and from each position on comes the rest.
    #[test]
    fn any_dialect_is_read_the_same_in_pieces_and_from_anywhere(
        format in any_dialect(),
        input in "[ab,\"\\\\# \t\r\n]{1,60}",
        size in 1_usize..9,
    ) {
        let bytes = input.as_bytes();
        let Ok(reader) = RowReader::open(bytes, format.clone()) else {
            return Ok(());
        };
        let header = reader.header().clone();
        let whole = read_all(reader);
        let pieces = RowReader::open(Dribble::new(bytes, size), format.clone()).unwrap();
        prop_assert_eq!(&read_all(pieces).outcomes, &whole.outcomes);
        let mut reader = RowReader::open(bytes, format.clone()).unwrap();
        for given in 0..=whole.outcomes.len() {
            let position = reader.position();
            let behind = &bytes[usize::try_from(position.byte).unwrap()..];
            let rest = RowReader::resume(behind, format.clone(), &header, position).unwrap();
            if position.byte > 0 {
                prop_assert_eq!(&read_all(rest).outcomes[..], &whole.outcomes[given..]);
            }
            if matches!(reader.next().unwrap(), ReadRow::End) {
                break;
            }
        }
    }
}
