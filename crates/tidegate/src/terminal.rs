//! What the program says on stderr: the plan, notes, warnings, failures. Colours and quietness are decided here, once.

use std::io::Write;

use anstyle::{AnsiColor, Style};

use crate::args::{ColorChoice, OutputArgs};
use crate::failure::Failure;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// The program's voice on stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    quiet: bool,
    verbose: bool,
    progress: bool,
}

impl Terminal {
    /// Takes the choice of colours for the whole process and remembers the rest.
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let choice = match args.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Self {
            quiet: args.quiet,
            verbose: args.verbose,
            progress: !args.no_progress && !args.quiet,
        }
    }

    /// Whether progress is shown at all.
    pub(crate) fn shows_progress(self) -> bool {
        self.progress
    }

    /// Whether details are asked for.
    pub(crate) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Something worth knowing, as the plan line.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            line(text);
        }
    }

    /// Something that is probably not meant.
    pub(crate) fn warn(self, text: &str) {
        if !self.quiet {
            line(&format!("{WARNING}warning:{WARNING:#} {text}"));
        }
    }

    /// Why the run ends, and how to go on.
    pub(crate) fn fail(self, failure: &Failure) {
        line(&format!("{ERROR}error:{ERROR:#} {failure}"));
        let reasons = failure.reasons();
        let shown = if self.verbose {
            reasons.len()
        } else {
            reasons.len().min(2)
        };
        for reason in reasons.iter().take(shown) {
            line(&format!("  because: {reason}"));
        }
        for hint in failure.hints() {
            line(&format!("  {HINT}hint:{HINT:#} {hint}"));
        }
    }
}

/// Writes one line to stderr; a closed stderr is nobody's failure.
fn line(text: &str) {
    drop(writeln!(anstream::stderr().lock(), "{text}"));
}
