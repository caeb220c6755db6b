//! Writing variable-length integers: 7 bits a byte, least significant first, signed ones zigzag-coded.
//!
//! Reading them is part of [`crate::cursor`].

/// Most bytes a 64-bit integer can take.
pub(crate) const MAX_LEN: usize = 10;

/// Maps small magnitudes of either sign to small unsigned numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Bytes that [`zigzag`] of `value` takes.
#[inline]
pub(crate) fn signed_len(value: i64) -> usize {
    unsigned_len(zigzag(value))
}

/// Bytes that `value` takes.
#[inline]
pub(crate) fn unsigned_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value`, zigzag-coded.
#[inline]
pub(crate) fn put_signed(output: &mut Vec<u8>, value: i64) {
    put_unsigned(output, zigzag(value));
}

/// Appends `value`.
#[inline]
pub(crate) fn put_unsigned(output: &mut Vec<u8>, value: u64) {
    let mut stack = StackBuffer::new();
    stack.put_unsigned(value);
    output.extend_from_slice(stack.filled());
}

/// A few integers and bytes gathered on the stack, so that a `Vec` is extended once for all of them.
///
/// It holds what stands before a record's key: four integers and a byte.
#[derive(Debug)]
pub(crate) struct StackBuffer {
    bytes: [u8; 4 * MAX_LEN + 1],
    len: usize,
}

impl StackBuffer {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; 4 * MAX_LEN + 1],
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn put_byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn put_signed(&mut self, value: i64) {
        self.put_unsigned(zigzag(value));
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 7 bits are what is wanted"
    )]
    pub(crate) fn put_unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_byte(value as u8);
    }

    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        let cases: [(i64, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MIN,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ];
        for (value, bytes) in cases {
            let mut output = Vec::new();
            put_signed(&mut output, value);
            assert_eq!(output, bytes, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: i64) {
            let mut output = Vec::new();
            put_signed(&mut output, value);
            prop_assert_eq!(output.len(), signed_len(value));
            let mut cursor = Cursor::new(&output);
            prop_assert_eq!(cursor.varlong("a value").unwrap(), value);
            prop_assert!(cursor.is_empty());
        }
    }
}
