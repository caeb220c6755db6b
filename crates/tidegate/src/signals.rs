//! SIGINT and SIGTERM: the first asks the run to end in order, the second ends it at once. One that cannot end in order, for it waits for somebody who says
//! nothing, ends half a minute later all the same: a run may be killed at any moment, and the next one goes on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::{Failure, Kind};

/// Both signals, with what a shell reports for a process they ended.
const SIGNALS: [(i32, i32); 2] = [(SIGINT, 130), (SIGTERM, 143)];
/// How long a run may take to end in order.
const PATIENCE: Duration = Duration::from_secs(28);

/// Whether a signal came, and which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Installs the handlers for the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let uninstalled = |error| {
            Failure::new(Kind::Internal, "cannot install the signal handlers").because(error)
        };
        let interrupt = Self {
            flag: Arc::new(AtomicBool::new(false)),
            signal: Arc::new(AtomicUsize::new(0)),
        };
        let (told, tell) = UnixStream::pair().map_err(uninstalled)?;
        for (signal, exit_code) in SIGNALS {
            // Order matters: handlers run in the order they were registered, so the first signal finds the flag still
            // down and passes, and the second finds it up and ends the process.
            let installed =
                flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&interrupt.flag))
                    .and_then(|_| {
                        flag::register_usize(
                            signal,
                            Arc::clone(&interrupt.signal),
                            signal.unsigned_abs() as usize,
                        )
                    })
                    .and_then(|_| flag::register(signal, Arc::clone(&interrupt.flag)))
                    .and_then(|_| low_level::pipe::register(signal, tell.try_clone()?));
            installed.map_err(uninstalled)?;
        }
        interrupt.clone().watch(told).map_err(uninstalled)?;
        Ok(interrupt)
    }

    /// Starts the thread that ends the process where it has not ended in time after a signal.
    fn watch(self, mut told: UnixStream) -> std::io::Result<()> {
        let watch = move || {
            if told.read_exact(&mut [0]).is_err() {
                return;
            }
            thread::sleep(PATIENCE);
            let seconds = PATIENCE.as_secs();
            let message = self.failure().full_message();
            let said = format!("error: {message}, and not ended in order within {seconds} s\n");
            // Whoever does not read it knows the exit code.
            drop(std::io::stderr().write_all(said.as_bytes()));
            low_level::exit(self.failure().kind().exit_code().into());
        };
        let thread = thread::Builder::new().name("tidegate-signals".to_owned());
        thread.spawn(watch).map(drop)
    }

    /// The flag that long-running parts look at.
    pub(crate) fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The failure that says which signal ended the run.
    pub(crate) fn failure(&self) -> Failure {
        let number = u8::try_from(self.signal.load(Ordering::Relaxed)).unwrap_or(0);
        let name = if i32::from(number) == SIGTERM {
            "SIGTERM"
        } else {
            "SIGINT"
        };
        Failure::new(Kind::Signal(number), format!("interrupted by {name}"))
    }
}
