//! The LZ4 frame format, read and written here. Blocks are written by an encoder of ours ([`block`]), and read by `lz4_flex`'s block functions.
//!
//! A frame is a magic number, a descriptor (flags, block size, optional content size and dictionary id, a
//! checksum byte), blocks each preceded by their length, an end mark and an optional checksum. Kafka's
//! Java client reads frames whose blocks are independent of each other. The crate's block functions are used
//! directly because its frame reader reserves megabytes on the word of the descriptor.
//!
//! The optional xxHash checksums of a frame are skipped when reading: the batch's CRC-32C covers
//! every byte of it. Source: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.

mod block;

use lz4_flex::block::{DecompressError, decompress_into_with_dict};

use crate::cursor::Cursor;
use crate::error::Error;
use block::{BlockEncoder, MAX_BLOCK_LEN, room_for};

const MAGIC: u32 = 0x184D_2204;

/// Frames that decoders pass over: 16 magic numbers, these bits in common.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// Magic; version 1 with independent blocks and no checksums; blocks of at most 64 KiB; and the second byte
/// of the xxHash32 of these two bytes.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];

/// Set in a block's length where the block is stored as it is.
const STORED_BIT: u32 = 0x8000_0000;

/// How far back a match can reach, over block borders where blocks are linked.
const WINDOW_LEN: usize = 64 * 1024;

/// One byte of a block's length code makes at most 255 bytes of output.
const MAX_EXPANSION: usize = 255;

/// The tables of the block encoder and a block, used again from block to block.
pub(super) struct Encoder {
    blocks: BlockEncoder,
    block: Box<[u8]>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            blocks: BlockEncoder::new(),
            block: vec![0; room_for(MAX_BLOCK_LEN)].into(),
        }
    }

    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        output.extend_from_slice(&HEADER);
        for content in input.chunks(MAX_BLOCK_LEN) {
            let len = self.blocks.compress(content, &mut self.block);
            let (block, stored_bit) = if len < content.len() {
                (&self.block[..len], 0)
            } else {
                (content, STORED_BIT)
            };
            let length =
                u32::try_from(block.len()).map_err(|_| Error::over_limit(MAX_BLOCK_LEN))?;
            output.extend_from_slice(&(length | stored_bit).to_le_bytes());
            output.extend_from_slice(block);
        }
        output.extend_from_slice(&[0; 4]);
        Ok(())
    }
}

pub(super) fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    let mut cursor = Cursor::new(input);
    let mut output = Output {
        bytes: output,
        filled: 0,
        limit,
    };
    loop {
        let magic = cursor.u32_little_endian("an lz4 frame")?;
        if magic == MAGIC {
            read_frame(&mut cursor, &mut output)?;
        } else if magic & !0xf == SKIPPABLE_MAGIC {
            let len = cursor.u32_little_endian("an lz4 frame")?;
            cursor.take(usize::try_from(len).unwrap_or(usize::MAX), "an lz4 frame")?;
        } else {
            return Err(Error::corrupt(format!(
                "lz4: {magic:#010x} is no frame's magic number"
            )));
        }
        if cursor.is_empty() {
            output.bytes.truncate(output.filled);
            return Ok(());
        }
    }
}

/// What the descriptor of a frame says.
struct Descriptor {
    linked_blocks: bool,
    block_checksums: bool,
    content_checksum: bool,
    max_block_len: usize,
}

impl Descriptor {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Error> {
        const WHAT: &str = "an lz4 frame descriptor";
        let flags = cursor.byte(WHAT)?;
        let block_size = cursor.byte(WHAT)?;
        if flags >> 6 != 1 {
            return Err(Error::unsupported(format!(
                "lz4: frame version {} is not known",
                flags >> 6
            )));
        }
        if flags & 0b01 != 0 {
            return Err(Error::unsupported("lz4: a frame that needs a dictionary"));
        }
        let max_block_len = match block_size >> 4 & 0b111 {
            code @ 4..=7 => 1 << (8 + 2 * u32::from(code)),
            code => {
                return Err(Error::corrupt(format!(
                    "lz4: block size code {code} is not defined"
                )));
            }
        };
        if flags & 0b1000 != 0 {
            // The size of the content: a number that need not be trusted to read the blocks.
            cursor.take(8, WHAT)?;
        }
        cursor.byte(WHAT)?;
        Ok(Self {
            linked_blocks: flags & 0b10_0000 == 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            max_block_len,
        })
    }
}

fn read_frame(cursor: &mut Cursor<'_>, output: &mut Output<'_>) -> Result<(), Error> {
    let descriptor = Descriptor::read(cursor)?;
    let frame_start = output.filled;
    loop {
        let length = cursor.u32_little_endian("an lz4 block")?;
        if length == 0 {
            break;
        }
        let len = usize::try_from(length & !STORED_BIT).unwrap_or(usize::MAX);
        if len > descriptor.max_block_len {
            return Err(Error::corrupt(format!(
                "lz4: a block of {len} bytes, over the frame's own maximum"
            )));
        }
        let block = cursor.take(len, "an lz4 block")?;
        if length & STORED_BIT != 0 {
            output.store(block)?;
        } else {
            let window_start = if descriptor.linked_blocks {
                frame_start
            } else {
                output.filled
            };
            output.decompress(block, descriptor.max_block_len, window_start)?;
        }
        if descriptor.block_checksums {
            cursor.take(4, "an lz4 block's checksum")?;
        }
    }
    if descriptor.content_checksum {
        cursor.take(4, "an lz4 frame's checksum")?;
    }
    Ok(())
}

/// The output so far: `bytes` is at least as long as what is `filled`, and never longer than `limit`.
struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    filled: usize,
    limit: usize,
}

impl Output<'_> {
    /// Makes room for `len` more bytes.
    fn ensure(&mut self, len: usize) {
        let needed = self.filled + len;
        if self.bytes.capacity() < needed {
            let room = super::grow(self.bytes.capacity(), self.limit).max(needed);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
    }

    fn store(&mut self, block: &[u8]) -> Result<(), Error> {
        if block.len() > self.limit - self.filled {
            return Err(Error::over_limit(self.limit));
        }
        self.ensure(block.len());
        self.bytes[self.filled..self.filled + block.len()].copy_from_slice(block);
        self.filled += block.len();
        Ok(())
    }

    /// Decompresses one block behind what is there. Matches may reach back to `window_start`.
    fn decompress(
        &mut self,
        block: &[u8],
        max_block_len: usize,
        window_start: usize,
    ) -> Result<(), Error> {
        let most = max_block_len.min(block.len().saturating_mul(MAX_EXPANSION));
        let allowed = most.min(self.limit - self.filled);
        self.ensure(allowed);
        let (before, after) = self.bytes.split_at_mut(self.filled);
        let window = &before[window_start.max(self.filled.saturating_sub(WINDOW_LEN))..];
        match decompress_into_with_dict(block, &mut after[..allowed], window) {
            Ok(len) => {
                self.filled += len;
                Ok(())
            }
            Err(DecompressError::OutputTooSmall { .. }) if allowed < most => {
                Err(Error::over_limit(self.limit))
            }
            Err(error) => Err(Error::corrupt(format!("lz4: {error}"))),
        }
    }
}
