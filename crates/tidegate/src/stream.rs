//! A stream that a signal can stop: standard input or a pipe may have nothing to give for ever, and a read of it does not come back.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::signals::Interrupt;

/// How late a signal may be seen: 100 ms.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A stream that is read only when it has something, so that signals are seen in between.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    interrupt: Interrupt,
}

impl Stream {
    /// The process's standard input.
    pub(crate) fn stdin(interrupt: &Interrupt) -> io::Result<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self::new(file, interrupt))
    }

    /// A pipe or a device that was opened.
    pub(crate) fn new(file: File, interrupt: &Interrupt) -> Self {
        Self {
            file,
            interrupt: interrupt.clone(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.interrupt.is_set() {
                // Not `ErrorKind::Interrupted`: that asks for the same read again.
                return Err(io::Error::other("a signal came"));
            }
            let mut watched = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut watched, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
