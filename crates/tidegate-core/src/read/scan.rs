//! Finds the bytes that mean something, a whole block at a time: the ends of fields and rows, quotes, and whether all is ASCII.
//!
//! On x86-64 a block is 64 bytes, tested by SSE2, which every processor of that kind has; elsewhere it is a word of eight. Both say the same, and the
//! tests hold them against each other.

/// How many bytes are looked at together.
pub(super) const BLOCK: usize = imp::BLOCK;

/// Where in a block the bytes in question stand: the first byte is the lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The delimiters before the first of `others`, and whatever is behind it.
    pub(super) delimiters: u64,
    /// Line ends and quotes.
    pub(super) others: u64,
    /// Bytes that are not ASCII.
    pub(super) high: u64,
}

/// Looks for these bytes.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Each again and again, as many times as the widest vector takes.
    delimiter: [u8; 16],
    /// A line feed, where there is no quote.
    quote: [u8; 16],
}

impl Scanner {
    /// A scanner for fields between `delimiter`, perhaps in quotes. It also finds line feeds and carriage returns.
    pub(super) fn new(delimiter: u8, quote: Option<u8>) -> Self {
        Self {
            delimiter: [delimiter; 16],
            quote: [quote.unwrap_or(b'\n'); 16],
        }
    }

    /// What is in a block.
    #[inline]
    pub(super) fn scan(&self, block: &[u8; BLOCK]) -> Found {
        imp::scan(self, block)
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
use vectors as imp;
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
use words as imp;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod vectors {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
    };

    use super::{Found, Scanner};

    pub(super) const BLOCK: usize = 64;

    #[inline]
    pub(super) fn scan(scanner: &Scanner, block: &[u8; BLOCK]) -> Found {
        #[expect(
            unsafe_code,
            reason = "the instructions are called by their names; they are there on each processor that this is compiled for, and no pointers are involved"
        )]
        // SAFETY: the module is compiled only where SSE2 is enabled for the whole program.
        unsafe {
            scan_with_vectors(scanner, block)
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn scan_with_vectors(scanner: &Scanner, block: &[u8; BLOCK]) -> Found {
        let (delimiter, quote) = (load(&scanner.delimiter), load(&scanner.quote));
        let (line_feed, carriage_return) = (load(&[b'\n'; 16]), load(&[b'\r'; 16]));
        let mut found = Found {
            delimiters: 0,
            others: 0,
            high: 0,
        };
        let (quarters, _) = block.as_chunks::<16>();
        for (index, quarter) in quarters.iter().enumerate() {
            let bytes = load(quarter);
            let is = |pattern| _mm_cmpeq_epi8(bytes, pattern);
            let others = _mm_or_si128(_mm_or_si128(is(line_feed), is(carriage_return)), is(quote));
            found.delimiters |= mask(is(delimiter)) << (16 * index);
            found.others |= mask(others) << (16 * index);
            found.high |= mask(bytes) << (16 * index);
        }
        found
    }

    /// The compiler makes one load of it.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        let number = u128::from_le_bytes(*bytes).cast_signed();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the halves of a number of 128 bits"
        )]
        _mm_set_epi64x((number >> 64) as i64, number as i64)
    }

    /// The high bits of all bytes.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn mask(bytes: __m128i) -> u64 {
        u64::from(_mm_movemask_epi8(bytes).cast_unsigned())
    }
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
mod words {
    use super::{Found, Scanner};

    pub(super) const BLOCK: usize = 8;

    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    /// Multiplied with the lowest bits of all bytes, these come to stand side by side in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;

    #[inline]
    pub(super) fn scan(scanner: &Scanner, block: &[u8; BLOCK]) -> Found {
        let word = u64::from_le_bytes(*block);
        // The high bit of each byte that is another one. Exact, unlike the usual test for a zero byte, which may also mark bytes behind the first hit.
        let is_not = |byte: u8| {
            let difference = word ^ (ONES * u64::from(byte));
            ((difference & LOW_BITS) + LOW_BITS) | difference
        };
        let gather = |bytes: u64| ((bytes & HIGH_BITS) >> 7).wrapping_mul(GATHER) >> 56;
        let others = is_not(b'\n') & is_not(b'\r') & is_not(scanner.quote[0]);
        Found {
            delimiters: gather(!is_not(scanner.delimiter[0])),
            others: gather(!others),
            high: gather(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(scanner: &Scanner, bytes: &[u8]) -> Found {
        let at = |is: &dyn Fn(u8) -> bool| {
            let bits = bytes.iter().enumerate();
            bits.fold(0, |bits, (index, byte)| {
                bits | u64::from(is(*byte)) << index
            })
        };
        Found {
            delimiters: at(&|byte| byte == scanner.delimiter[0]),
            others: at(&|byte| matches!(byte, b'\n' | b'\r') || byte == scanner.quote[0]),
            high: at(&|byte| byte > 0x7f),
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_found_where_it_stands(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b",;\"\n\r\x0b\x0c\x2b\x8a"[..])], 64),
            delimiter in proptest::sample::select(&b",;\t\x80"[..]),
            quote in proptest::option::of(Just(b'"')),
        ) {
            let scanner = Scanner::new(delimiter, quote);
            for block in bytes.as_chunks::<BLOCK>().0 {
                prop_assert_eq!(scanner.scan(block), naive(&scanner, block));
            }
            for word in bytes.as_chunks::<8>().0 {
                prop_assert_eq!(words::scan(&scanner, word), naive(&scanner, word));
            }
        }
    }
}
