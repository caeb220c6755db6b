//! The reader: any bytes, in any dialect, in any pieces. What it gives depends on the bytes alone; rows and positions account for all of
//! them; and from each position on it gives the rest.

use std::io::{self, Read};

use tidegate_core::read::{CsvFormat, Position, Ragged, ReadRow, RowReader};

use crate::given;

#[derive(Debug, PartialEq)]
enum Given {
    Row(Vec<Vec<u8>>, Vec<u8>, Position),
    Bad(String, u64, u64, Position),
}

/// Gives at most so many bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buffer.len()).min(self.rest.len());
        let (now, rest) = self.rest.split_at(size);
        buffer[..size].copy_from_slice(now);
        self.rest = rest;
        Ok(size)
    }
}

fn rest<R: Read>(reader: &mut RowReader<R>) -> Vec<Given> {
    let mut all = Vec::new();
    loop {
        let given = match reader.next().expect("a slice can be read") {
            ReadRow::Row(row) => Given::Row(
                row.fields().map(<[u8]>::to_vec).collect(),
                row.raw().to_vec(),
                row.end(),
            ),
            ReadRow::Bad(bad) => {
                let (reason, row, byte) = (bad.reason, bad.row, bad.byte);
                Given::Bad(reason, row, byte, reader.position())
            }
            ReadRow::Idle => continue,
            ReadRow::End => return all,
        };
        all.push(given);
    }
}

fn position(given: &Given) -> Position {
    match given {
        Given::Row(.., end) | Given::Bad(.., end) => *end,
    }
}

/// The dialect that two bytes stand for.
fn dialect(what: u16) -> CsvFormat {
    let has = |bit: u16| what & 1 << bit != 0;
    CsvFormat {
        delimiter: b",;\t|"[usize::from(what & 3)],
        quote: [Some(b'"'), Some(b'\''), None, Some(b'"')][usize::from(what >> 2 & 3)],
        max_row_size: if has(4) { 16 } else { 8 << 20 },
        escape: has(5).then_some(b'\\'),
        comment: has(6).then_some(b'#'),
        trim: has(7),
        has_header: !has(8),
        ragged: [Ragged::Error, Ragged::Pad, Ragged::DropExtra, Ragged::Error]
            [usize::from(what >> 9 & 3)],
        ..CsvFormat::default()
    }
}

/// Checks it with whatever these bytes stand for.
pub fn check(data: &[u8]) {
    let Some(input) = given::<(u16, u8, u8, &[u8])>(data) else {
        return;
    };
    let (what, size, at, bytes) = input;
    let format = dialect(what);
    let Ok(mut reader) = RowReader::open(bytes, format.clone()) else {
        return;
    };
    let header = reader.header().clone();
    let columns = header.len();
    let whole = rest(&mut reader);
    let pieces = Pieces {
        rest: bytes,
        size: usize::from(size).max(1),
    };
    let mut reader = RowReader::open(pieces, format.clone()).expect("it could be opened before");
    assert_eq!(rest(&mut reader), whole, "in pieces of {size} bytes");
    let mut rows = 0;
    for given in &whole {
        let end = position(given);
        rows += 1;
        assert_eq!(end.row, rows);
        assert!(end.byte <= bytes.len() as u64);
        if let Given::Row(fields, ..) = given {
            assert_eq!(fields.len(), columns);
        }
    }
    if whole.is_empty() {
        return;
    }
    let at = usize::from(at) % whole.len();
    let from = position(&whole[at]);
    if from.byte == 0 {
        // A row of nothing, before which nothing was read.
        return;
    }
    let behind = usize::try_from(from.byte).expect("it is in the slice");
    let mut reader =
        RowReader::resume(&bytes[behind..], format, &header, from).expect("it is a position");
    assert_eq!(rest(&mut reader), whole[at + 1..], "from {from:?}");
}
