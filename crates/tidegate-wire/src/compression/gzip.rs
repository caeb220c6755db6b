//! gzip (RFC 1952): one member written, any number read, as Java's `GZIPInputStream` does.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Crc, FlushCompress, Status};

use crate::error::Error;

use super::grow;

/// Magic, method "deflate", no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Bytes by which deflate may exceed its input in all: 5 for each stored block of 16 KiB or more, and some.
fn bound(input_len: usize) -> usize {
    input_len + (input_len / 16_384 + 1) * 5 + 64
}

/// The deflate state (some 300 KB), reused from batch to batch.
pub(super) struct Encoder {
    deflate: Compress,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            deflate: Compress::new(flate2::Compression::default(), false),
        }
    }

    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        output.reserve(HEADER.len() + bound(input.len()) + 8);
        output.extend_from_slice(&HEADER);
        self.deflate.reset();
        loop {
            let consumed = usize::try_from(self.deflate.total_in()).unwrap_or(input.len());
            let rest = input.get(consumed..).unwrap_or_default();
            let status = self
                .deflate
                .compress_vec(rest, output, FlushCompress::Finish)
                .map_err(|error| Error::corrupt(format!("gzip: {error}")))?;
            if status == Status::StreamEnd {
                break;
            }
            output.reserve(super::FIRST_ROOM);
        }
        let mut crc = Crc::new();
        crc.update(input);
        output.extend_from_slice(&crc.sum().to_le_bytes());
        output.extend_from_slice(&crc.amount().to_le_bytes());
        Ok(())
    }
}

pub(super) fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    let mut decoder = MultiGzDecoder::new(input);
    let mut filled = 0;
    loop {
        if filled == output.len() {
            if filled == limit {
                let more = decoder.read(&mut [0]).map_err(|error| unreadable(&error))?;
                return if more == 0 {
                    Ok(())
                } else {
                    Err(Error::over_limit(limit))
                };
            }
            let room = grow(filled.max(output.capacity().min(limit) / 2), limit);
            output.reserve_exact(room - filled);
            output.resize(room, 0);
        }
        match decoder
            .read(&mut output[filled..])
            .map_err(|error| unreadable(&error))?
        {
            0 => break,
            count => filled += count,
        }
    }
    output.truncate(filled);
    Ok(())
}

fn unreadable(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Error::truncated("gzip data");
    }
    Error::corrupt(format!("gzip: {error}"))
}
