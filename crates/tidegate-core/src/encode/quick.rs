//! The quick way for the common record: an Avro record of numbers and texts, each from a column of its own.
//!
//! It does what the operations do (see [`encode`](super)), in one pass over a list that holds nothing else, and gives up on whatever is rare: a cell
//! that is no value, a number it cannot read at once, a text that is not UTF-8. Then the operations are run over the row, so that all that is said
//! of errors is said there; what both write is the same.

use super::{Cell, Kind, Op, scalar, zigzag};
use crate::read::Row;

/// A record that can be written the quick way.
#[derive(Debug, Clone)]
pub(crate) struct Quick {
    cells: Box<[QuickCell]>,
}

#[derive(Debug, Clone, Copy)]
struct QuickCell {
    column: usize,
    take: Take,
    /// The encoded branch of null, which the empty text stands for.
    null: Option<u8>,
    /// The encoded branch of the value.
    branch: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Take {
    Long,
    Double,
    Text,
}

/// What a cell takes at most besides its text: a branch, and a number or a length.
const CELL_ROOM: usize = 11;

/// So that pieces of a fixed size may be written up to the end.
const SLACK: usize = 16;

impl Quick {
    /// The same as `ops`, where texts that stand for null are the empty ones alone; `None` where there is anything out of the common.
    pub(crate) fn of(ops: &[Op]) -> Option<Self> {
        let cells = ops.iter().map(|op| match op {
            Op::Cell(cell) => QuickCell::of(cell),
            Op::Constant(_) | Op::Optional(_) => None,
        });
        Some(Self {
            cells: cells.collect::<Option<_>>()?,
        })
    }

    /// Writes the record of a row into `out`, from byte `start` on, and gives where it ends; what is behind that means nothing. `None`: it takes the
    /// operations to tell what becomes of the row.
    #[inline]
    pub(crate) fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>, start: usize) -> Option<usize> {
        let room = start + self.cells.len() * CELL_ROOM + row.len_of_text() + SLACK;
        if out.len() < room {
            make_room(out, room);
        }
        let mut writer = Writer {
            out: &mut out[..],
            at: start,
        };
        for cell in &self.cells {
            let (text, from) = row.field_and_rest(cell.column);
            if let Some(null) = cell.null
                && text.is_empty()
            {
                writer.byte(null)?;
                continue;
            }
            if let Some(branch) = cell.branch {
                writer.byte(branch)?;
            }
            match cell.take {
                Take::Long => writer.long(scalar::long(text).ok()?)?,
                Take::Double => writer.array(scalar::short_double(text)?.to_le_bytes())?,
                Take::Text => {
                    if !row.is_ascii() && str::from_utf8(text).is_err() {
                        return None;
                    }
                    writer.text(text, from)?;
                }
            }
        }
        Some(writer.at)
    }
}

#[cold]
fn make_room(out: &mut Vec<u8>, room: usize) {
    out.resize(room.next_power_of_two(), 0);
}

impl QuickCell {
    fn of(cell: &Cell) -> Option<Self> {
        let take = match cell.kind {
            Kind::Long => Take::Long,
            Kind::Double => Take::Double,
            Kind::String => Take::Text,
            _ => return None,
        };
        let is_plain = cell.joined.is_empty() && cell.own_nulls.is_none();
        let is_null_plain = cell.null.is_none() || cell.empty_is_null;
        (is_plain && is_null_plain).then_some(Self {
            column: cell.column,
            take,
            null: cell.null,
            branch: cell.branch,
        })
    }
}

/// Writes one value behind the other into bytes that are there. `None` where they end, which [`Quick::encode`] has made room against.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) -> Option<()> {
        *self.out.get_mut(self.at)? = byte;
        self.at += 1;
        Some(())
    }

    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.out.get_mut(self.at..)?.first_chunk_mut::<N>()? = bytes;
        self.at += N;
        Some(())
    }

    /// A number in groups of seven bits, the lowest first; all of up to eight groups at once.
    #[inline]
    fn long(&mut self, value: i64) -> Option<()> {
        let value = zigzag(value);
        if value < 0x80 {
            return self.byte(u8::try_from(value).ok()?);
        }
        if value >> 56 != 0 {
            return self.long_groups(value);
        }
        // The groups move apart in halves: of 28 bits, of 14, of 7, each in a byte of its own.
        let halves = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
        let quarters = halves & 0x0000_3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
        let groups = quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
        let len = 8 - groups.leading_zeros() as usize / 8;
        let more_follow = 0x0080_8080_8080_8080 >> (8 * (8 - len));
        *self.out.get_mut(self.at..)?.first_chunk_mut::<8>()? =
            (groups | more_follow).to_le_bytes();
        self.at += len;
        Some(())
    }

    #[cold]
    fn long_groups(&mut self, mut value: u64) -> Option<()> {
        while value >= 0x80 {
            self.byte((value & 0x7f) as u8 | 0x80)?;
            value >>= 7;
        }
        self.byte((value & 0x7f) as u8)
    }

    /// A text behind its length; `from` is what the row has from there on.
    #[inline]
    fn text(&mut self, text: &[u8], from: &[u8]) -> Option<()> {
        self.long(text.len().cast_signed() as i64)?;
        let out = self.out.get_mut(self.at..)?;
        // Most texts are short, and a call of the general copy costs more than to copy a piece of them and whatever follows.
        if text.len() <= SLACK
            && let Some(piece) = from.first_chunk::<SLACK>()
        {
            *out.first_chunk_mut::<SLACK>()? = *piece;
        } else {
            out.get_mut(..text.len())?.copy_from_slice(text);
        }
        self.at += text.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::{NullTokens, encode_row, value::AvroWriter};
    use crate::read::{CsvFormat, ReadRow, RowReader};

    fn cell(column: usize, kind: Kind, nullable: bool) -> Op {
        Op::Cell(Cell {
            column,
            joined: Box::new([]),
            kind,
            null: nullable.then_some(2),
            branch: nullable.then_some(0),
            empty_is_null: nullable,
            own_nulls: None,
        })
    }

    fn kind() -> impl Strategy<Value = (Kind, bool)> {
        let kinds = prop_oneof![Just(Kind::Long), Just(Kind::Double), Just(Kind::String)];
        (kinds, any::<bool>())
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{0,20}",
            "-?[0-9]{1,9}[.][0-9]{0,9}",
            "[a-zü]{0,70}",
            any::<i64>().prop_map(|value| value.to_string()),
            any::<f64>().prop_map(|value| value.to_string()),
        ]
    }

    /// What the quick way may leave to the operations: an exponent or no number at all, and more digits than it reads at once, of which a double has 15.
    fn is_rare(kind: &Kind, text: &str) -> bool {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let is_long = text.len() > 16 || (*kind == Kind::Double && digits > 15);
        is_long || text.contains(['e', 'E', 'N', 'i'])
    }

    #[test]
    fn the_longest_numbers_are_read_by_the_operations() {
        assert_eq!(scalar::short_double(b"0000000000000000"), None);
        assert_eq!(scalar::short_double(b"000000000000001"), Some(1.0));
        assert_eq!(
            scalar::short_double(b"12345678901234.5"),
            Some(12_345_678_901_234.5)
        );
    }

    proptest! {
        #[test]
        fn the_quick_way_writes_what_the_operations_write(
            columns in proptest::collection::vec((kind(), text()), 1..9),
            start in 0_usize..9,
        ) {
            let ops: Vec<Op> = columns
                .iter()
                .enumerate()
                .map(|(column, ((kind, nullable), _))| cell(column, kind.clone(), *nullable))
                .collect();
            let texts: Vec<&str> = columns.iter().map(|(_, text)| text.as_str()).collect();
            let line = format!("{}\n7", texts.join(","));
            let format = CsvFormat { has_header: false, ..CsvFormat::default() };
            let mut reader = RowReader::open(line.as_bytes(), format).unwrap();
            let ReadRow::Row(row) = reader.next().unwrap() else {
                // One column with nothing in it, or two rows of another number of fields.
                return Ok(());
            };
            let mut expected = Vec::new();
            let written = encode_row(&ops, &NullTokens::default(), &row, &mut AvroWriter(&mut expected));
            let mut out = vec![0xee; start];
            let end = Quick::of(&ops).unwrap().encode(&row, &mut out, start);
            match end {
                Some(end) => {
                    prop_assert!(written.is_ok());
                    prop_assert_eq!(&out[start..end], &expected[..]);
                    prop_assert!(out[..start].iter().all(|byte| *byte == 0xee));
                }
                // It may give up, but not on what is common.
                None => prop_assert!(written.is_err() || columns.iter().any(|((kind, _), text)| is_rare(kind, text))),
            }
        }
    }

    #[test]
    fn what_is_rare_is_left_to_the_operations() {
        let plain = cell(0, Kind::Long, false);
        assert!(Quick::of(&[plain.clone(), Op::Constant(Box::new([1]))]).is_none());
        assert!(Quick::of(&[cell(0, Kind::Boolean, false)]).is_none());
        let Op::Cell(mut rare) = plain else {
            panic!("it is a cell")
        };
        rare.own_nulls = Some(NullTokens::default());
        assert!(Quick::of(&[Op::Cell(rare)]).is_none());
    }
}
