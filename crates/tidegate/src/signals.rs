//! SIGINT and SIGTERM: the first asks the run to end in order, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Failure, Kind};

/// Both signals, with what a shell reports for a process they ended.
const SIGNALS: [(i32, i32); 2] = [(SIGINT, 130), (SIGTERM, 143)];

/// Whether a signal came, and which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Installs the handlers for the process.
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self {
            flag: Arc::new(AtomicBool::new(false)),
            signal: Arc::new(AtomicUsize::new(0)),
        };
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
                    .and_then(|_| flag::register(signal, Arc::clone(&interrupt.flag)));
            installed.map_err(|error| {
                Failure::new(Kind::Internal, "cannot install the signal handlers").because(error)
            })?;
        }
        Ok(interrupt)
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
