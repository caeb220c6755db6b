//! Zstandard (RFC 8878): one frame written, any number read.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ErrorCode, compress_bound, get_error_name};

use crate::error::Error;

use super::grow;

/// The fastest of the regular levels.
const LEVEL: i32 = 1;

/// What the library answers when the output does not fit: `ZSTD_error_dstSize_tooSmall`, as a negative size.
const OUTPUT_TOO_SMALL: ErrorCode = 0_usize.wrapping_sub(70);

/// The compression context (some 600 KB at this level), reused from batch to batch.
pub(super) struct Encoder {
    context: CCtx<'static>,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, Error> {
        let mut context =
            CCtx::try_create().ok_or_else(|| Error::corrupt("zstd: no memory for a context"))?;
        context
            .set_parameter(CParameter::CompressionLevel(LEVEL))
            .map_err(unreadable)?;
        Ok(Self { context })
    }

    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        output.reserve(compress_bound(input.len()));
        self.context.compress2(output, input).map_err(unreadable)?;
        Ok(())
    }
}

/// Decompresses in one call, straight into `output`, which also serves as the window: a frame that asks
/// for a window of gigabytes gets none. A frame need not say its size, and one that does may lie, so the
/// room begins at a guess and doubles; all attempts together do at most twice the work of the last.
pub(super) fn decompress(input: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), Error> {
    let mut context =
        DCtx::try_create().ok_or_else(|| Error::corrupt("zstd: no memory for a context"))?;
    let mut room = grow(
        input.len().saturating_mul(4).max(output.capacity() / 2),
        limit,
    );
    loop {
        output.clear();
        output.reserve_exact(room);
        match context.decompress(output, input) {
            Ok(len) if len > limit => return Err(Error::over_limit(limit)),
            Ok(_) => return Ok(()),
            Err(OUTPUT_TOO_SMALL) if room == limit => return Err(Error::over_limit(limit)),
            Err(OUTPUT_TOO_SMALL) => room = grow(room, limit),
            Err(code) => return Err(unreadable(code)),
        }
    }
}

fn unreadable(code: ErrorCode) -> Error {
    Error::corrupt(format!("zstd: {}", get_error_name(code)))
}
