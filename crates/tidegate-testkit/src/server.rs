//! A server process that never outlives the tests.
//!
//! The server runs under a small shell script that waits for two things: the server's end, and the end of its own standard input, which
//! this process holds. So the server is killed and its folder removed also where nobody can do it: a shared server sits in a `static` that
//! is never dropped, and a test process may itself be killed.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `$0` is the server's folder, "$@" its command. File descriptor 3 is the pipe from the owner. A signal to the guard is one to the
/// whole group, as a terminal or a time limit sends it: the owner is going too.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null >>"$0/log" 2>&1 3<&- &
server=$!
abandon() { : >"$0/.abandoned"; kill -9 "$server"; }
{ read -r _ <&3; abandon; } </dev/null >/dev/null 2>&1 &
watcher=$!
exec 3<&-
again=1
trap 'abandon; again=1' HUP INT TERM
echo "$server"
while [ "$again" = 1 ]; do again=0; wait "$server"; done
if [ -e "$0/.abandoned" ]; then cd / && rm -rf "$0"; fi
kill "$watcher" 2>/dev/null
exit 0
"#;

/// How long a server that was asked to stop may take before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub struct ServerProcess {
    guard: Child,
    /// The guard takes its end for ours; apart from `guard`, for waiting there would close it.
    owner: Option<ChildStdin>,
    pid: Pid,
    dir: PathBuf,
}

impl ServerProcess {
    /// Starts `command` with `arguments` in `work_dir`; what it prints goes to the file `log` in `dir`, which is removed if this process dies.
    ///
    /// # Errors
    /// The shell cannot be run.
    pub fn start<A: AsRef<OsStr>>(
        dir: &Path,
        work_dir: &Path,
        command: &Path,
        arguments: &[A],
    ) -> io::Result<Self> {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let mut guard = Command::new("sh")
            .arg("-c")
            .arg(GUARD)
            .arg(dir)
            .arg(command)
            .args(arguments)
            .current_dir(work_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Where the shell remarks that its child was killed.
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = guard.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid
            .ok_or_else(|| io::Error::other(format!("{} cannot be started", command.display())))?;
        Ok(Self {
            owner: guard.stdin.take(),
            guard,
            pid,
            dir: dir.to_owned(),
        })
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.guard.try_wait(), Ok(None))
    }

    /// Sends a signal; does nothing if the server has ended. (While the guard lives the server's id is its own and nobody else's.)
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // It may end at this very moment, which is fine.
            kill_process(self.pid, signal).ok();
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        drop(self.guard.wait());
        drop(self.owner.take());
    }

    /// Asks it to stop, and kills it if it does not.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let started = Instant::now();
        while self.is_running() {
            if started.elapsed() > STOP_PATIENCE {
                self.kill();
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The server ended, or `patience` did; the message has the end of the server's log.
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let started = Instant::now();
        while !ready() {
            let running = self.is_running();
            if running && started.elapsed() < patience {
                std::thread::sleep(POLL);
                continue;
            }
            let how = if running {
                "is not ready in time"
            } else {
                "ended"
            };
            return Err(io::Error::other(format!(
                "{what} {how}; the end of its log:\n{}",
                self.log_tail()
            )));
        }
        Ok(())
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let skip = log.lines().count().saturating_sub(30);
        log.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `N` ports that are free now. All are taken at once, so that they differ; another process may still be quicker.
///
/// # Errors
/// There is none to be had.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A minimal HTTP request, to find out whether a server is up. Answers the status.
///
/// # Errors
/// No connection, or no HTTP.
pub fn http_status(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head)
        .ok()
        .and_then(|head| head.get(9..12)?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> ServerProcess {
        ServerProcess::start(dir, dir, Path::new("sleep"), &["600"]).unwrap()
    }

    fn exists(pid: Pid) -> bool {
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[test]
    fn killed_is_gone_and_its_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = sleeper(dir.path());
        assert!(server.is_running());
        server.kill();
        assert!(!server.is_running() && !exists(server.pid));
        assert!(dir.path().join("log").exists());
    }

    #[test]
    fn abandoned_is_killed_and_its_folder_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.keep();
        let mut server = sleeper(&path);
        // What the end of this process would do.
        drop(server.owner.take());
        server.guard.wait().unwrap();
        assert!(!exists(server.pid));
        assert!(!path.exists());
    }

    #[test]
    fn a_signal_to_the_whole_group_removes_everything_too() {
        let path = tempfile::tempdir().unwrap().keep();
        let mut server = sleeper(&path);
        let guard = Pid::from_raw(i32::try_from(server.guard.id()).unwrap()).unwrap();
        kill_process(guard, Signal::TERM).unwrap();
        // Waiting must not be what closes the pipe here.
        let owner = server.owner.take();
        server.guard.wait().unwrap();
        drop(owner);
        assert!(!exists(server.pid) && !path.exists());
    }

    #[test]
    fn a_command_that_ends_at_once_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::start(
            dir.path(),
            dir.path(),
            Path::new("sh"),
            &["-c", "echo no such port; exit 1"],
        )
        .unwrap();
        let error = server
            .wait_until("it", Duration::from_secs(10), || false)
            .unwrap_err();
        assert!(error.to_string().contains("no such port"), "{error}");
    }

    #[test]
    fn ports_differ() {
        let ports: [u16; 8] = free_ports().unwrap();
        let distinct: std::collections::BTreeSet<u16> = ports.into_iter().collect();
        assert_eq!(distinct.len(), 8);
    }
}
