//! Runs the `tidegate` binary as a user does, and never waits for it without end.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(10);

/// One command line of `tidegate`, to be run. The environment is kept but for what would change its behaviour from outside.
#[derive(Debug, Clone)]
pub struct Tidegate {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    input: Option<Vec<u8>>,
    timeout: Duration,
}

impl Tidegate {
    /// `program` is `env!("CARGO_BIN_EXE_tidegate")`, which only the tests of that package can know.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            dir: None,
            input: None,
            timeout: Duration::from_secs(120),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in that folder.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// What it reads from its standard input; otherwise that is empty.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// How long it may run. Default: 2 minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// It cannot be started, or takes longer than it may (it is killed, and the message has its output).
    #[must_use]
    pub fn run(&self) -> Finished {
        self.start().finish()
    }

    /// Starts it, to look at it, signal it or kill it while it runs.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "KAFKA_BOOTSTRAP_SERVERS",
            "SCHEMA_REGISTRY_URL",
            "NO_COLOR",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let line = self.command_line();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let input = self.input.clone().unwrap_or_default();
        let stdin = child.stdin.take();
        let writer = std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program may end without reading everything.
                drop(stdin.write_all(&input));
            }
        });
        Running {
            stdout: Some(collect(child.stdout.take())),
            stderr: Some(collect(child.stderr.take())),
            writer: Some(writer),
            child,
            line,
            started: Instant::now(),
            timeout: self.timeout,
        }
    }

    fn command_line(&self) -> String {
        let mut line = "tidegate".to_owned();
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(&argument.to_string_lossy());
        }
        line
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is still shown.
            drop(stream.read_to_end(&mut bytes));
        }
        bytes
    })
}

/// A `tidegate` that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    line: String,
    started: Instant,
    timeout: Duration,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal; does nothing if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && self.is_running()
        {
            // It may end at this very moment, which is fine.
            kill_process(pid, signal).ok();
        }
    }

    /// `kill -9`, and waits until it is gone.
    #[must_use]
    pub fn kill(mut self) -> Finished {
        self.signal(Signal::KILL);
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It takes longer than it may; it is killed, and the message has its output.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let mut in_time = true;
        while self.is_running() {
            if in_time && self.started.elapsed() > self.timeout {
                in_time = false;
                self.signal(Signal::KILL);
            }
            std::thread::sleep(POLL);
        }
        let finished = Finished {
            code: self.child.wait().ok().and_then(|status| status.code()),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            elapsed: self.started.elapsed(),
            line: self.line.clone(),
        };
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
        assert!(
            in_time,
            "it did not end within {:?}\n{finished}",
            self.timeout
        );
        finished
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn text(collector: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = collector
        .and_then(|collector| collector.join().ok())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A `tidegate` that has ended. `Display` shows the command line and all output, for messages.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed to stdout.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
    line: String,
}

impl Finished {
    /// Itself, if it ended with `code`.
    ///
    /// # Panics
    /// It did not; the message has its output.
    #[must_use]
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The one JSON object on stdout.
    ///
    /// # Panics
    /// There is none, or more than that; the message has its output.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one JSON object: {error}\n{self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
            elapsed,
            line,
        } = self;
        write!(
            f,
            "$ {line}\n[exit code {code:?} after {elapsed:.1?}]\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// It does not within `patience`.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> io::Result<()> {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > patience {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not within {patience:?}"),
            ));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_are_there() {
        let finished = Tidegate::new("sh")
            .args(["-c", "cat; echo oops >&2; exit 3"])
            .input("hello")
            .run();
        assert_eq!(
            (
                finished.code,
                finished.stdout.as_str(),
                finished.stderr.as_str()
            ),
            (Some(3), "hello", "oops\n")
        );
        let finished = finished.expect_code(3);
        assert!(finished.to_string().contains("oops"));
    }

    #[test]
    fn a_hanging_program_fails_with_its_output() {
        let hanging = Tidegate::new("sh")
            .args(["-c", "echo began; exec sleep 600"])
            .timeout(Duration::from_millis(300));
        let message = std::panic::catch_unwind(|| hanging.run()).unwrap_err();
        let message = message.downcast_ref::<String>().unwrap();
        assert!(
            message.contains("began") && message.contains("did not end"),
            "{message}"
        );
    }

    #[test]
    fn killed_has_no_code() {
        let running = Tidegate::new("sleep").arg("600").start();
        assert_eq!(running.kill().code, None);
    }
}
