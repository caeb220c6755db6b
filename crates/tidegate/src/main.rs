//! The `tidegate` program: parse what was typed, run the command, print its summary, exit with its code.
//!
//! The terminal, the environment and exit codes are known to this program and to no library below it.
//!
//! | step | where |
//! |---|---|
//! | what was typed | `args`, `values`, `properties` |
//! | what it means: opened, resolved, checked | `plan`, `options`, `job`, `input`, `subject_schema`, `topic`, `rights`, `service` |
//! | doing it | `commands`, `doctor` |
//! | saying what came of it | `report`, `failure`, `terminal`, `progress`, `record_output` |

mod args;
mod commands;
mod decompress;
mod doctor;
mod encoding;
mod failure;
mod groups;
mod input;
mod inputs;
mod job;
mod options;
mod plan;
mod progress;
mod properties;
mod receipts;
mod record_output;
mod report;
mod rights;
mod service;
mod signals;
mod stream;
mod subject_schema;
mod terminal;
mod timestamps;
mod topic;
mod values;

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, OutputForm};
use failure::{Failure, Kind};
use report::{Finished, Summary};
use service::Context;
use signals::Interrupt;
use terminal::Terminal;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => run(&arguments),
        Err(error) => refuse(&error),
    }
}

/// Runs the command, prints its summary, and serves the embedded broker's other clients to their end.
fn run(arguments: &Arguments) -> ExitCode {
    let terminal = Terminal::new(&arguments.output);
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(failure) => {
            terminal.fail(&failure);
            return ExitCode::from(failure.kind().exit_code());
        }
    };
    let mut context = Context::new(terminal, interrupt);
    let finished = match commands::run(&arguments.command, &mut context) {
        Ok(finished) => finished,
        Err(failure) => Finished {
            summary: Summary::Nothing,
            failure: Some(failure),
        },
    };
    let output = &arguments.output;
    print(
        &report::render(
            arguments.command.name(),
            &finished,
            output.output,
            output.quiet,
        ),
        terminal,
    );
    if let Some(failure) = &finished.failure {
        terminal.fail(failure);
    }
    let mut exit_code = finished.exit_code();
    if let Err(failure) = context.finish() {
        terminal.fail(&failure);
        if exit_code == 0 {
            exit_code = failure.kind().exit_code();
        }
    }
    ExitCode::from(exit_code)
}

/// Prints the closing summary. A closed stdout is no failure of what was done; any other problem is told, but changes nothing about it.
fn print(text: &str, terminal: Terminal) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            terminal.warn(&format!("cannot write the summary to stdout: {error}"));
        }
        _ => {}
    }
}

/// What cannot be parsed: clap's own words on stderr; help and version on stdout. Programs that asked for JSON get their one object.
fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody listens there is nothing else to do.
    error.print().ok();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if asks_for_json() {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        let failure = Failure::new(Kind::Usage, first.trim_start_matches("error: "))
            .hint("see tidegate --help");
        let finished = Finished {
            summary: Summary::Nothing,
            failure: Some(failure),
        };
        let text = report::render("tidegate", &finished, OutputForm::Json, false);
        drop(io::stdout().lock().write_all(text.as_bytes()));
    }
    ExitCode::from(Kind::Usage.exit_code())
}

/// Whether the command line, though it cannot be parsed, asks for JSON.
fn asks_for_json() -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    arguments
        .iter()
        .any(|argument| argument == OsStr::new("--output=json") || argument == OsStr::new("-ojson"))
        || arguments
            .windows(2)
            .any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
}
