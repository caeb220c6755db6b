//! Writing variable-length integers: 7 bits a byte, least significant first, signed ones zigzag-coded.
//!
//! Reading them is part of [`crate::cursor`].

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
    // Comparisons that the processor learns to foresee beat counting bits: 12 against 17 ns a record.
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => (64 - value.leading_zeros() as usize).div_ceil(7),
    }
}

/// Appends `value`.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 7 bits are what is wanted"
)]
pub(crate) fn put_unsigned(output: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

/// Writes one value after another into bytes that are large enough: what a record is written with.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Slot<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline(always)]
    pub(crate) fn put_byte(&mut self, byte: u8) {
        self.bytes[self.at] = byte;
        self.at += 1;
    }

    #[inline(always)]
    pub(crate) fn put_signed(&mut self, value: i64) {
        self.put_unsigned(zigzag(value));
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 7 bits are what is wanted"
    )]
    pub(crate) fn put_unsigned(&mut self, mut value: u64) {
        match value {
            0..0x80 => self.put_byte(value as u8),
            0x80..0x4000 => self.put_array([value as u8 | 0x80, (value >> 7) as u8]),
            0x4000..0x20_0000 => {
                let low = [value as u8 | 0x80, (value >> 7) as u8 | 0x80];
                self.put_array([low[0], low[1], (value >> 14) as u8]);
            }
            _ => {
                while value >= 0x80 {
                    self.put_byte(value as u8 | 0x80);
                    value >>= 7;
                }
                self.put_byte(value as u8);
            }
        }
    }

    #[inline(always)]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// Puts `bytes` behind their length, or -1 for none.
    #[inline(always)]
    pub(crate) fn put_nullable(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => {
                self.put_signed(bytes.len() as i64);
                copy(&mut self.bytes[self.at..self.at + bytes.len()], bytes);
                self.at += bytes.len();
            }
            None => self.put_signed(-1),
        }
    }
}

/// Copies `source` to `target`, which is as long.
///
/// Keys and values are short, and the call of the general copy costs more than copying them: up to 64 bytes
/// go in pieces of a fixed size, the last of which overlaps the one before.
#[inline]
fn copy(target: &mut [u8], source: &[u8]) {
    match source.len() {
        16..=64 => copy_pieces::<16>(target, source),
        8..16 => copy_pieces::<8>(target, source),
        4..8 => copy_pieces::<4>(target, source),
        0..4 => target
            .iter_mut()
            .zip(source)
            .for_each(|(target, source)| *target = *source),
        _ => target.copy_from_slice(source),
    }
}

#[inline]
fn copy_pieces<const N: usize>(target: &mut [u8], source: &[u8]) {
    for (target, source) in target.chunks_exact_mut(N).zip(source.chunks_exact(N)) {
        target.copy_from_slice(source);
    }
    if let (Some(target), Some(source)) = (target.last_chunk_mut::<N>(), source.last_chunk::<N>()) {
        *target = *source;
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
            assert_eq!(signed(value), bytes, "{value}");
            let mut output = Vec::new();
            put_unsigned(&mut output, zigzag(value));
            assert_eq!(output, bytes, "{value}");
        }
    }

    fn signed(value: i64) -> Vec<u8> {
        let mut output = vec![0; signed_len(value)];
        let mut slot = Slot::new(&mut output);
        slot.put_signed(value);
        assert_eq!(slot.at, output.len());
        output
    }

    /// Numbers of every length alike.
    fn number() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn bytes_of_any_length_are_copied(source: Vec<u8>) {
            let mut target = vec![0; source.len()];
            copy(&mut target, &source);
            prop_assert_eq!(target, source);
        }

        #[test]
        fn what_is_written_is_read(value in number()) {
            let output = signed(value);
            prop_assert_eq!(output.len(), signed_len(value));
            let mut cursor = Cursor::new(&output);
            prop_assert_eq!(cursor.varlong("a value").unwrap(), value);
            prop_assert!(cursor.is_empty());
        }
    }
}
