//! Reading from a byte slice, where every length is checked against what is there.
//!
//! `what` names the value being read, for the error message.

use crate::error::Error;

/// The bytes not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// All bytes left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| Error::truncated(what))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| Error::truncated(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, Error> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(crate) fn u32_little_endian(&mut self, what: &'static str) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, Error> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// An unsigned variable-length integer of at most 64 bits.
    #[inline]
    fn unsigned(&mut self, what: &'static str) -> Result<u64, Error> {
        // Nearly every integer of a record is one byte long.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_unsigned(what)
    }

    fn long_unsigned(&mut self, what: &'static str) -> Result<u64, Error> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::corrupt(format!(
            "{what} is an integer of more than 64 bits"
        )))
    }

    /// An unsigned variable-length integer of at most 32 bits.
    pub(crate) fn unsigned_varint(&mut self, what: &'static str) -> Result<u32, Error> {
        let value = self.unsigned(what)?;
        u32::try_from(value)
            .map_err(|_| Error::corrupt(format!("{what} is an integer of more than 32 bits")))
    }

    /// A zigzag-coded variable-length integer of at most 64 bits.
    #[inline]
    pub(crate) fn varlong(&mut self, what: &'static str) -> Result<i64, Error> {
        let zigzag = self.unsigned(what)?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// A zigzag-coded variable-length integer of at most 32 bits.
    #[inline]
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<i32, Error> {
        let value = self.varlong(what)?;
        i32::try_from(value)
            .map_err(|_| Error::corrupt(format!("{what} is an integer of more than 32 bits")))
    }

    /// A record's length-prefixed bytes, where -1 stands for null.
    #[inline]
    pub(crate) fn nullable_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, Error> {
        let len = self.varint(what)?;
        match usize::try_from(len) {
            Ok(len) => self.take(len, what).map(Some),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(Error::corrupt(format!("{what} has the length {len}"))),
        }
    }

    /// A record's count or length that must not be negative.
    #[inline]
    pub(crate) fn count(&mut self, what: &'static str) -> Result<usize, Error> {
        let count = self.varint(what)?;
        usize::try_from(count).map_err(|_| Error::corrupt(format!("{what} is {count}")))
    }
}
