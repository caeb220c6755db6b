//! The reader's window into the input: one contiguous stretch of bytes from the row at hand on.

use std::io::{self, Read};

use crate::limits::READ_BUFFER;

/// Readable bytes behind the window, so that whole words may be loaded up to its end. Their content means nothing.
pub(super) const PADDING: usize = 8;

/// A window that moves over the input and grows with the row at hand.
#[derive(Debug)]
pub(super) struct Buffer {
    /// `PADDING` longer than what may be filled.
    data: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where `data[0]` stands in the input.
    base: u64,
    end_of_input: bool,
}

impl Buffer {
    /// An empty window at byte `base` of the input.
    pub(super) fn new(base: u64) -> Self {
        Self {
            data: vec![0; READ_BUFFER + PADDING],
            start: 0,
            filled: 0,
            base,
            end_of_input: false,
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

    /// True when nothing follows the window.
    #[inline]
    pub(super) fn at_end_of_input(&self) -> bool {
        self.end_of_input
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
        if self.start > 0 {
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
                    self.end_of_input = true;
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
