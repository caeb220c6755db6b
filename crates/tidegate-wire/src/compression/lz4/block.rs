//! Writing LZ4 blocks: fast rather than small.
//!
//! A block is a row of sequences: some bytes as they are (literals), and a match, which repeats bytes that came before. Matches are found by a
//! table of the places where six bytes stood last. What it costs to compress records, and for a broker to decompress them, depends on the number of
//! places that are tried and of sequences that come out more than on the number of bytes. So a match has to be worth its sequence, which takes
//! three bytes itself, and where none is found, the next place to try is some bytes further on; a match found in its middle is extended to both sides.
//!
//! Source: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

/// A block is never longer: its places are 16-bit numbers.
pub(super) const MAX_BLOCK_LEN: usize = 65_534;

/// The table has 2 to the power of this many places: 8 KiB, a part of a processor's first cache.
const TABLE_BITS: u32 = 12;

/// The shortest match that the format knows.
const MIN_MATCH: usize = 4;

/// Bits that must agree at a place that is tried: a match of six bytes saves three or more.
const NEEDED_BITS: u32 = 48;

/// The format wants so many literals at the end of a block, and no match to begin later than that.
const LAST_LITERALS: usize = 5;
const LAST_MATCH_FROM_END: usize = 12;

/// How far apart places are that are tried, at first; and after how many without a match it is one byte more.
const FIRST_STEP: usize = 2;
const PATIENCE: usize = 32;

/// Literals are copied in pieces of these lengths, and what is too much is written over.
const SHORT: usize = 16;
const LONG: usize = 48;

/// Bytes that a block of `len` bytes may take, with room to write pieces of a fixed length up to the end.
pub(super) const fn room_for(len: usize) -> usize {
    len + len / 255 + 16 + LONG
}

/// The table, used again for each block.
pub(super) struct BlockEncoder {
    /// Where six bytes of this hash stood last; 0 for nowhere, so that what stands at 0 is a place to try for all of them.
    places: Box<[u16; 1 << TABLE_BITS]>,
}

impl BlockEncoder {
    pub(super) fn new() -> Self {
        Self {
            places: Box::new([0; 1 << TABLE_BITS]),
        }
    }

    /// Writes `input`, of [`MAX_BLOCK_LEN`] bytes at most, as a block into `output`, which has [`room_for`] it. Returns the block's length.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> usize {
        let mut block = Block {
            input,
            output,
            filled: 0,
            anchor: 0,
        };
        if input.len() > LAST_MATCH_FROM_END {
            self.find_matches(&mut block);
        }
        block.finish()
    }

    fn find_matches(&mut self, block: &mut Block<'_>) {
        let places = &mut *self.places;
        places.fill(0);
        let input = block.input;
        let last_start = input.len() - LAST_MATCH_FROM_END;
        let mut at = 1;
        let mut tries = FIRST_STEP * PATIENCE;
        while at <= last_start {
            let word = load(input, at);
            let place = &mut places[hash(word)];
            let before = usize::from(*place);
            *place = short(at);
            let difference = load(input, before) ^ word;
            if difference.trailing_zeros() < NEEDED_BITS {
                at += tries / PATIENCE;
                tries += 1;
                continue;
            }
            tries = FIRST_STEP * PATIENCE;
            block.put_match(at, before, difference);
            at = block.anchor;
            if at <= last_start {
                // What the match ends with often begins the next one.
                let near = at - 2;
                places[hash(load(input, near))] = short(near);
            }
        }
    }
}

/// A block that is being written.
struct Block<'a> {
    input: &'a [u8],
    output: &'a mut [u8],
    filled: usize,
    /// The input before is written.
    anchor: usize,
}

impl Block<'_> {
    /// Writes the literals before a match, and the match: the bytes `at` and `before` agree, as far as `difference` is zero from its lowest bit on.
    #[inline]
    fn put_match(&mut self, mut at: usize, mut before: usize, difference: u64) {
        let input = self.input;
        let end = input.len() - LAST_LITERALS;
        let agreeing = match difference.trailing_zeros() as usize / 8 {
            8 => 8 + agreeing(input, before + 8, at + 8, end),
            some => some,
        };
        let match_end = (at + agreeing).min(end);
        while at > self.anchor && before > 0 && input[at - 1] == input[before - 1] {
            (at, before) = (at - 1, before - 1);
        }
        let (literals, extra) = (at - self.anchor, match_end - at - MIN_MATCH);
        self.put_literals(literals, extra.min(15));
        self.put(&short(at - before).to_le_bytes());
        if extra >= 15 {
            self.put_length(extra - 15);
        }
        self.anchor = match_end;
    }

    /// Writes a token and so many literals; `low` is the token's other half.
    #[inline]
    fn put_literals(&mut self, literals: usize, low: usize) {
        self.put(&[byte(literals.min(15) << 4 | low)]);
        if literals >= 15 {
            self.put_length(literals - 15);
        }
        let (from, to) = (&self.input[self.anchor..], &mut self.output[self.filled..]);
        self.filled += literals;
        if literals <= SHORT
            && let (Some(from), Some(to)) = (from.first_chunk(), to.first_chunk_mut())
        {
            let piece: &[u8; SHORT] = from;
            *to = *piece;
        } else if literals <= LONG
            && let (Some(from), Some(to)) = (from.first_chunk(), to.first_chunk_mut())
        {
            let piece: &[u8; LONG] = from;
            *to = *piece;
        } else {
            to[..literals].copy_from_slice(&from[..literals]);
        }
    }

    /// The rest of a length that does not fit into its half of the token.
    #[inline]
    fn put_length(&mut self, mut rest: usize) {
        while rest >= 255 {
            self.put(&[255]);
            rest -= 255;
        }
        self.put(&[byte(rest)]);
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.output[self.filled..self.filled + N].copy_from_slice(bytes);
        self.filled += N;
    }

    /// Ends the block with what is left, as literals.
    fn finish(mut self) -> usize {
        self.put_literals(self.input.len() - self.anchor, 0);
        self.filled
    }
}

/// The eight bytes from `at` on.
#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes[at..].first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => unreachable!("no match begins in the last bytes of a block"),
    }
}

/// A place in the table for the lower six bytes of a word.
#[inline]
fn hash(word: u64) -> usize {
    const FACTOR: u64 = 0x9e37_79b1_85eb_ca87;
    ((word << 16).wrapping_mul(FACTOR) >> (u64::BITS - TABLE_BITS)) as usize
}

/// How many bytes agree from two places on, up to `end` of the latter.
#[inline]
fn agreeing(input: &[u8], mut before: usize, mut at: usize, end: usize) -> usize {
    let start = at;
    while at + 8 <= end {
        let difference = load(input, before) ^ load(input, at);
        if difference != 0 {
            return at - start + difference.trailing_zeros() as usize / 8;
        }
        (at, before) = (at + 8, before + 8);
    }
    while at < end && input[at] == input[before] {
        (at, before) = (at + 1, before + 1);
    }
    at - start
}

/// A place or an offset in a block.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "blocks are shorter than 64 KiB"
)]
fn short(number: usize) -> u16 {
    number as u16
}

/// A part of a length.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the callers give what fits"
)]
fn byte(number: usize) -> u8 {
    number as u8
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::decompress;
    use proptest::prelude::*;

    use super::*;

    fn compress(input: &[u8]) -> Vec<u8> {
        let mut output = vec![0; room_for(input.len())];
        let len = BlockEncoder::new().compress(input, &mut output);
        output.truncate(len);
        output
    }

    /// Bytes that repeat what came before, near and far, in pieces of all lengths.
    fn repetitive() -> impl Strategy<Value = Vec<u8>> {
        let piece = (any::<u64>(), 0..300_usize, 0..40_usize);
        proptest::collection::vec(piece, 0..400).prop_map(|pieces| {
            let mut bytes: Vec<u8> = Vec::new();
            for (seed, repeated, new) in pieces {
                let from = usize::try_from(seed).unwrap() % (bytes.len() + 1);
                for at in from..bytes.len().min(from + repeated) {
                    bytes.push(bytes[at]);
                }
                bytes.extend((0..new).map(|at| seed.to_le_bytes()[at % 8] ^ byte(at / 8)));
            }
            bytes.truncate(MAX_BLOCK_LEN);
            bytes
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_another_reader(input in prop_oneof![
            repetitive(),
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::collection::vec(0..2_u8, 0..2000),
        ]) {
            let block = compress(&input);
            prop_assert_eq!(decompress(&block, input.len()).unwrap(), input);
        }
    }

    #[test]
    fn blocks_of_all_small_lengths_and_of_the_largest_are_sound() {
        for len in (0..600).chain([MAX_BLOCK_LEN - 1, MAX_BLOCK_LEN]) {
            let zeros = vec![0; len];
            assert_eq!(decompress(&compress(&zeros), len).unwrap(), zeros);
            let counted: Vec<u8> = (0..len).map(|at| byte((at * at / 7) % 256)).collect();
            assert_eq!(decompress(&compress(&counted), len).unwrap(), counted);
        }
    }

    /// What cannot be compressed takes no more than the room for it, and is not written past.
    #[test]
    fn noise_fits_into_its_room() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[3]
        })
        .take(MAX_BLOCK_LEN)
        .collect();
        let block = compress(&noise);
        assert!(block.len() > noise.len() && block.len() < room_for(noise.len()) - LONG);
        assert_eq!(decompress(&block, noise.len()).unwrap(), noise);
    }

    /// Records like those of a load take little more than by the usual encoder.
    #[test]
    fn records_are_made_smaller() {
        let mut records = Vec::new();
        for number in 0..900_u32 {
            let container = format!("c_{}", number % 500);
            records.extend_from_slice(b"1700000000000\0\0\0\0\x07");
            records.extend_from_slice(container.as_bytes());
            records.extend_from_slice(
                &(f64::from(number.wrapping_mul(7919) % 40_000) / 1e4).to_le_bytes(),
            );
        }
        let usual = lz4_flex::block::compress(&records).len();
        let ours = compress(&records).len();
        assert!(
            ours < records.len() / 2 && ours < usual * 5 / 4,
            "{ours} and {usual} bytes"
        );
    }
}
