//! A stream that does not hold up what it feeds: standard input or a pipe may have nothing to give for ever, and a read of it would not come back.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::signals::Interrupt;

/// No waiting at all.
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// How long a quiet stream is waited for at a time, and so how late a signal may be seen: 100 ms.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A stream that is read only when it has something. When it has nothing it answers [`WouldBlock`](io::ErrorKind::WouldBlock): at once the first
/// time, so that what was read goes on its way, and then after a while each time it is asked again.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    interrupt: Interrupt,
    is_quiet: bool,
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
            is_quiet: false,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            // Not `ErrorKind::Interrupted`: that asks for the same read again.
            return Err(io::Error::other("a signal came"));
        }
        let patience = if self.is_quiet { LOOK } else { AT_ONCE };
        let mut watched = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut watched, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {
                self.is_quiet = true;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok(_) => {
                self.is_quiet = false;
                self.file.read(buffer)
            }
            Err(error) => Err(error.into()),
        }
    }
}
