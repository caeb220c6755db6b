//! The reader's window into the input: one contiguous stretch of bytes from the row at hand on.

use std::io::{self, Read};

use super::scan::BLOCK;
use crate::limits::READ_BUFFER;

/// Readable bytes behind the window, so that whole blocks may be loaded up to its end. Their content means nothing.
pub(super) const PADDING: usize = BLOCK;

/// A window that moves over the input and grows with the row at hand.
#[derive(Debug)]
pub(super) struct Buffer {
    /// `PADDING` longer than what may be filled.
    data: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where `data[0]` stands in the input.
    base: u64,
    /// The byte before `data[0]`, where that is known.
    before: Option<u8>,
    /// The input has ended.
    has_ended: bool,
    /// What stands at the end of the input is complete there.
    is_final: bool,
    /// What stands at the end of the input is never taken for complete.
    holds_last: bool,
}

impl Buffer {
    /// An empty window at byte `base` of the input, behind the byte `before`, where that is known.
    pub(super) fn new(base: u64, before: Option<u8>) -> Self {
        Self {
            data: vec![0; READ_BUFFER + PADDING],
            start: 0,
            filled: 0,
            base,
            before,
            has_ended: false,
            is_final: false,
            holds_last: false,
        }
    }

    /// Where the window starts, in bytes of the input.
    #[inline]
    pub(super) fn byte(&self) -> u64 {
        self.base + self.start as u64
    }

    /// How many bytes there is room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.data.len()
    }

    /// How many bytes are in the window.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.filled - self.start
    }

    /// True when nothing follows the window, and a row that ends with it has ended.
    #[inline]
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    /// True when nothing follows the window.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What stands at the end of the input is complete there after all.
    pub(super) fn make_final(&mut self) {
        self.is_final = true;
    }

    /// From now on the end of the input ends no row.
    pub(super) fn hold_last(&mut self) {
        (self.holds_last, self.is_final) = (true, false);
    }

    /// The bytes of the window, followed by [`PADDING`] more.
    #[inline]
    pub(super) fn padded(&self) -> &[u8] {
        &self.data[self.start..self.filled + PADDING]
    }

    /// The bytes of the window.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.filled]
    }

    /// Bytes before the window's start that are still held: `len` of them that were consumed last, starting `back` before the window.
    #[inline]
    pub(super) fn behind(&self, back: usize, len: usize) -> &[u8] {
        let from = self.start - back;
        &self.data[from..from + len]
    }

    /// All bytes before the window's start that are still held, and where the first of them stands in the input.
    pub(super) fn consumed(&self) -> (&[u8], u64) {
        (&self.data[..self.start], self.base)
    }

    /// The byte before the window, where that is known.
    pub(super) fn byte_before(&self) -> Option<u8> {
        match self.data[..self.start].last() {
            Some(byte) => Some(*byte),
            None => self.before,
        }
    }

    /// Ends the input at byte `end`, which was read already: what follows is forgotten.
    pub(super) fn end_at(&mut self, end: u64) {
        match end
            .checked_sub(self.base)
            .and_then(|start| usize::try_from(start).ok())
        {
            Some(start) => self.start = start.min(self.filled),
            None => (self.base, self.start, self.before) = (end, 0, None),
        }
        self.filled = self.start;
        (self.has_ended, self.is_final) = (true, true);
    }

    /// Moves the window's start forward.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(
            count <= self.len(),
            "only bytes of the window can be consumed"
        );
        self.start += count;
    }

    /// Reads more bytes into the window, at least one unless the input ends. What was consumed is given up.
    pub(super) fn fill(&mut self, input: &mut impl Read) -> io::Result<()> {
        if self.has_ended {
            return Ok(());
        }
        if self.start > 0 {
            self.before = self.byte_before();
            self.data.copy_within(self.start..self.filled, 0);
            self.base += self.start as u64;
            self.filled -= self.start;
            self.start = 0;
        }
        let mut room = self.data.len() - PADDING;
        if self.filled == room {
            room *= 2;
            self.data.resize(room + PADDING, 0);
        }
        loop {
            match input.read(&mut self.data[self.filled..room]) {
                Ok(0) => {
                    (self.has_ended, self.is_final) = (true, !self.holds_last);
                    return Ok(());
                }
                Ok(count) => {
                    self.filled += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
