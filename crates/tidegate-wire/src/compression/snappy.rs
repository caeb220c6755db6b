//! Snappy in the framing of the xerial Java library, which is what Kafka means by snappy.
//!
//! A stream is a header of 16 bytes (magic, version, lowest version able to read it), then blocks, each
//! preceded by its compressed length in 4 bytes. Some clients send one bare block without all that; it
//! is told apart by the missing magic.

use crate::cursor::Cursor;
use crate::error::Error;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

/// Version 1, readable by version 1.
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// Input bytes of one block, as the Java library has it by default.
const BLOCK_LEN: usize = 32 * 1024;

/// Snappy's densest element makes 64 bytes of 3; a block that announces more than this times its length lies.
const MAX_EXPANSION: usize = 22;

/// Snappy's hash table, reused from block to block.
pub(super) struct Encoder {
    snap: snap::raw::Encoder,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            snap: snap::raw::Encoder::new(),
        }
    }

    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        output.extend_from_slice(&MAGIC);
        output.extend_from_slice(&VERSIONS);
        for block in input.chunks(BLOCK_LEN) {
            let length_at = output.len();
            let block_at = length_at + 4;
            output.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
            let len = self
                .snap
                .compress(block, &mut output[block_at..])
                .map_err(|error| Error::corrupt(format!("snappy: {error}")))?;
            let length = u32::try_from(len).map_err(|_| Error::over_limit(BLOCK_LEN))?;
            output[length_at..block_at].copy_from_slice(&length.to_be_bytes());
            output.truncate(block_at + len);
        }
        Ok(())
    }
}

pub(super) fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    if !input.starts_with(&MAGIC) {
        return decompress_block(input, limit, output);
    }
    let mut cursor = Cursor::new(input);
    while !cursor.is_empty() {
        // Streams may be concatenated: a header can stand wherever a block can. No length begins with 0x82.
        if cursor.rest().starts_with(&MAGIC) {
            cursor.take(MAGIC.len() + VERSIONS.len(), "a snappy header")?;
            continue;
        }
        let length = cursor.u32("a snappy block's length")?;
        let block = cursor.take(
            usize::try_from(length).unwrap_or(usize::MAX),
            "a snappy block",
        )?;
        decompress_block(block, limit, output)?;
    }
    Ok(())
}

/// Appends one block to `output`, which may grow to `limit` bytes.
fn decompress_block(block: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    let corrupt = |error: snap::Error| Error::corrupt(format!("snappy: {error}"));
    let start = output.len();
    let len = snap::raw::decompress_len(block).map_err(corrupt)?;
    if len > block.len().saturating_mul(MAX_EXPANSION) {
        return Err(Error::corrupt(format!(
            "snappy: {len} bytes cannot come of {}",
            block.len()
        )));
    }
    if len > limit - start {
        return Err(Error::over_limit(limit));
    }
    if block.is_empty() {
        return Err(Error::truncated("a snappy block"));
    }
    if output.capacity() < start + len {
        let room = super::grow(output.capacity(), limit).max(start + len);
        output.reserve_exact(room - start);
    }
    output.resize(start + len, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut output[start..])
        .map_err(corrupt)?;
    Ok(())
}
