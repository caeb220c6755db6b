//! How a value is written: one parser for each type gives it, and a writer for each format takes it.

use crate::encode::decimal::Unscaled;
use crate::encode::scalar::Problem;
use crate::encode::time::TimeUnit;
use crate::encode::wide_decimal::WideUnscaled;
use crate::encode::{put_bytes, put_long};

/// What a count of time counts from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeType {
    /// Days since 1970-01-01.
    Date,
    /// Units since midnight.
    TimeOfDay(TimeUnit),
    /// Units since 1970-01-01T00:00:00Z.
    Timestamp(TimeUnit),
    /// Units since 1970-01-01T00:00:00 on whatever clock.
    LocalTimestamp(TimeUnit),
}

/// Takes the parts of a value, one behind the other.
pub(crate) trait ValueWriter {
    /// The branch of a union, as its encoded index.
    fn branch(&mut self, index: u8);
    /// Null.
    fn null(&mut self);
    /// A boolean.
    fn boolean(&mut self, value: bool);
    /// An int or a long.
    fn integer(&mut self, value: i64);
    /// A single float.
    fn float(&mut self, value: f32) -> Result<(), Problem>;
    /// A double.
    fn double(&mut self, value: f64) -> Result<(), Problem>;
    /// A string, known to be UTF-8.
    fn text(&mut self, text: &[u8]);
    /// A symbol of an enum.
    fn symbol(&mut self, index: i32, name: &[u8]);
    /// A day, a time of day or a point in time.
    fn time(&mut self, count: i64, of: TimeType);
    /// Bytes; `fixed` says that their length is known to the reader.
    fn bytes(&mut self, bytes: &[u8], fixed: bool);
    /// A decimal number, whose length in bytes is known to the reader where it is `fixed`.
    fn decimal(&mut self, value: Unscaled, fixed: Option<usize>);
    /// The same, of a type of more digits than 128 bits hold.
    fn wide_decimal(&mut self, value: WideUnscaled<'_>, fixed: Option<usize>);
    /// A length of time, as its months, days and milliseconds.
    fn duration(&mut self, parts: [u32; 3]);
    /// The beginning of an array of so many items.
    fn begin_array(&mut self, items: usize);
    /// What stands between two items of an array or entries of a map.
    fn next_item(&mut self);
    /// The end of an array of so many items.
    fn end_array(&mut self, items: usize);
    /// The beginning of a map of so many entries.
    fn begin_map(&mut self, entries: usize);
    /// The name of an entry, known to be UTF-8.
    fn entry(&mut self, name: &[u8]);
    /// The end of a map of so many entries.
    fn end_map(&mut self, entries: usize);
    /// How much was written, to go back to.
    fn mark(&self) -> usize;
    /// Forgets all that was written behind a mark.
    fn go_back(&mut self, mark: usize);
}

/// Avro's binary form.
pub(crate) struct AvroWriter<'a>(pub(crate) &'a mut Vec<u8>);

impl ValueWriter for AvroWriter<'_> {
    #[inline]
    fn branch(&mut self, index: u8) {
        self.0.push(index);
    }

    #[inline]
    fn null(&mut self) {}

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    #[inline]
    fn integer(&mut self, value: i64) {
        put_long(self.0, value);
    }

    #[inline]
    fn float(&mut self, value: f32) -> Result<(), Problem> {
        self.0.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn double(&mut self, value: f64) -> Result<(), Problem> {
        self.0.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        put_bytes(self.0, text);
    }

    #[inline]
    fn symbol(&mut self, index: i32, _name: &[u8]) {
        put_long(self.0, i64::from(index));
    }

    #[inline]
    fn time(&mut self, count: i64, _of: TimeType) {
        put_long(self.0, count);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8], fixed: bool) {
        if fixed {
            self.0.extend_from_slice(bytes);
        } else {
            put_bytes(self.0, bytes);
        }
    }

    fn decimal(&mut self, value: Unscaled, fixed: Option<usize>) {
        let bytes = value.number.to_be_bytes();
        match fixed {
            None => put_bytes(self.0, value.significant(&bytes)),
            Some(size) => {
                let filler = if value.number < 0 { 0xff } else { 0 };
                let significant = value.significant(&bytes);
                let missing = size.saturating_sub(significant.len());
                self.0.extend(std::iter::repeat_n(filler, missing));
                self.0.extend_from_slice(significant);
            }
        }
    }

    fn wide_decimal(&mut self, value: WideUnscaled<'_>, fixed: Option<usize>) {
        let significant = value.significant();
        match fixed {
            None => put_bytes(self.0, &significant),
            Some(size) => {
                let missing = size.saturating_sub(significant.len());
                self.0.extend(std::iter::repeat_n(value.filler(), missing));
                self.0.extend_from_slice(&significant);
            }
        }
    }

    fn duration(&mut self, parts: [u32; 3]) {
        for part in parts {
            self.0.extend_from_slice(&part.to_le_bytes());
        }
    }

    fn begin_array(&mut self, items: usize) {
        if items > 0 {
            put_long(self.0, items.cast_signed() as i64);
        }
    }

    fn next_item(&mut self) {}

    fn end_array(&mut self, _items: usize) {
        self.0.push(0);
    }

    fn begin_map(&mut self, entries: usize) {
        self.begin_array(entries);
    }

    fn entry(&mut self, name: &[u8]) {
        put_bytes(self.0, name);
    }

    fn end_map(&mut self, entries: usize) {
        self.end_array(entries);
    }

    fn mark(&self) -> usize {
        self.0.len()
    }

    fn go_back(&mut self, mark: usize) {
        self.0.truncate(mark);
    }
}
