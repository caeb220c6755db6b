//! The five codecs of a record batch, in the containers Kafka's own clients read and write.
//!
//! | codec | container |
//! |---|---|
//! | gzip | one or more gzip members (RFC 1952) |
//! | snappy | "xerial": a 16-byte header, then length-prefixed snappy blocks; readers take a bare block too |
//! | lz4 | the LZ4 frame format, blocks independent |
//! | zstd | one or more zstd frames (RFC 8878) |

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy in xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of its number on the wire.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The name, as in Kafka's `compression.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec's number in the attributes of a record batch.
    #[must_use]
    pub fn attribute_bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec with this number.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if there is none.
    pub fn from_attribute_bits(bits: i16) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.attribute_bits() == bits)
            .ok_or_else(|| Error::unsupported(format!("compression codec {bits} is not known")))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Error::unsupported(format!(
                    "no compression is called {name:?}; there are {known}"
                ))
            })
    }
}

/// Compresses batch after batch and keeps each codec's tables in between. One per thread.
#[derive(Default)]
pub struct Compressor {
    gzip: Option<gzip::Encoder>,
    snappy: Option<snappy::Encoder>,
    lz4: Option<lz4::Encoder>,
    zstd: Option<zstd::Encoder>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor for every codec. A codec's tables are made when it is first used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the content of `output` by `input`, compressed. With [`Compression::None`], a copy.
    ///
    /// gzip runs at level 6, its usual one, and zstd at level 1, the fastest of its regular ones.
    ///
    /// # Errors
    /// Only if a codec fails in itself (no memory, or an input of 4 GiB); `output` is then not meaningful.
    pub fn compress(
        &mut self,
        codec: Compression,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        output.clear();
        match codec {
            Compression::None => output.extend_from_slice(input),
            Compression::Gzip => self
                .gzip
                .get_or_insert_with(gzip::Encoder::new)
                .compress(input, output)?,
            Compression::Snappy => self
                .snappy
                .get_or_insert_with(snappy::Encoder::new)
                .compress(input, output)?,
            Compression::Lz4 => self
                .lz4
                .get_or_insert_with(lz4::Encoder::new)
                .compress(input, output)?,
            Compression::Zstd => match &mut self.zstd {
                Some(encoder) => encoder.compress(input, output)?,
                none => none.insert(zstd::Encoder::new()?).compress(input, output)?,
            },
        }
        Ok(())
    }
}

/// Replaces the content of `output` by `input`, decompressed. With [`Compression::None`], a copy.
///
/// Memory grows with what really comes out, and never beyond `limit`, whatever `input` announces.
///
/// # Errors
/// [`Kind::TooLarge`](crate::Kind::TooLarge) if more than `limit` bytes come out;
/// [`Kind::Corrupt`](crate::Kind::Corrupt), [`Kind::Truncated`](crate::Kind::Truncated) or
/// [`Kind::Unsupported`](crate::Kind::Unsupported) if `input` is not what the codec expects. `output` is then
/// not meaningful.
pub fn decompress(
    codec: Compression,
    input: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    output.clear();
    match codec {
        Compression::None if input.len() > limit => Err(Error::over_limit(limit)),
        Compression::None => {
            output.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::decompress(input, limit, output),
        Compression::Snappy => snappy::decompress(input, limit, output),
        Compression::Lz4 => lz4::decompress(input, limit, output),
        Compression::Zstd => zstd::decompress(input, limit, output),
    }
}

/// The smallest room given to output of unknown size.
const FIRST_ROOM: usize = 4096;

/// The next larger room for output: twice as much, at least `FIRST_ROOM`, and never more than `limit`.
fn grow(room: usize, limit: usize) -> usize {
    room.saturating_mul(2).max(FIRST_ROOM).min(limit)
}
