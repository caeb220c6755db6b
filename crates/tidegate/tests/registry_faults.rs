//! The registry is down, dies, fails, is slow, refuses, or has lost a schema (T20): a load that knows its ids goes on; one that begins tries again, and then
//! says what is wrong.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::load::{Load, PATIENCE, ROWS};
use common::{Exits, count, on, usage};
use tidegate_testkit::matrix::Cell;
use tidegate_testkit::proxy::Verb;
use tidegate_testkit::{Cluster, for_each_cluster};

/// What becomes of a request for the registry.
#[derive(Debug, Clone, PartialEq)]
enum Mode {
    Pass,
    /// The connection ends without a word.
    Dead,
    /// This status and body, for requests that begin with the text.
    Answer(&'static str, &'static str, &'static str),
    /// It passes after this time.
    Slow(Duration),
}

/// Stands in front of a registry. One request a connection.
struct Door {
    url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    /// How many requests are still to meet `mode`; the others pass.
    left: u64,
    fired: u64,
}

impl Door {
    fn new(registry: &str) -> Self {
        let behind = registry.strip_prefix("http://").unwrap();
        let (upstream, path) = behind.split_once('/').unwrap_or((behind, ""));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            mode: Mode::Pass,
            left: 0,
            fired: 0,
        }));
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&state));
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
                thread::spawn(move || serve(client, &upstream, &shared).ok());
            }
        });
        Self {
            url: format!("http://{address}/{path}"),
            state,
        }
    }

    /// From now on this happens to so many requests.
    fn set(&self, mode: Mode, times: u64) {
        let mut state = self.state.lock().unwrap();
        (state.mode, state.left) = (mode, times);
    }

    fn fired(&self) -> u64 {
        self.state.lock().unwrap().fired
    }
}

impl State {
    fn judge(&mut self, request: &str) -> Mode {
        let is_about = match &self.mode {
            Mode::Answer(begin, ..) => request.starts_with(begin),
            mode => *mode != Mode::Pass,
        };
        if !is_about || self.left == 0 {
            return Mode::Pass;
        }
        self.left -= 1;
        self.fired += 1;
        self.mode.clone()
    }
}

/// Reads one request and answers it, or has it answered.
fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let request = read_request(&mut client)?;
    let mode = state
        .lock()
        .unwrap()
        .judge(&String::from_utf8_lossy(&request));
    match mode {
        Mode::Dead => return client.shutdown(Shutdown::Both),
        Mode::Answer(_, status, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            return client.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
        }
        Mode::Slow(duration) => thread::sleep(duration),
        Mode::Pass => {}
    }
    let mut registry = TcpStream::connect(upstream)?;
    let text = String::from_utf8_lossy(&request).into_owned();
    // So that its answer ends with the connection.
    let closing = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    registry.write_all(closing.as_bytes())?;
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// Head and body of a request.
fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end]
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse().unwrap_or(0));
            if request.len() >= end + 4 + length {
                return Ok(request);
            }
        }
        match client.read(&mut buffer)? {
            0 => return Ok(request),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The command, with the door for a registry.
fn through(load: &Load<'_>, bootstrap: &str, door: &Door) -> tidegate_testkit::Tidegate {
    common::tidegate(["publish", &load.file, "-t", &load.topic, "--create-topic"])
        .args(["-b", bootstrap, "--registry", &door.url])
        .args(["--commit-interval", "0ms", "-o", "json"])
        .timeout(Duration::from_secs(60))
}

const FAILS: &str = r#"{"error_code": 50001, "message": "the store is gone"}"#;
const UNAUTHORIZED: &str = r#"{"error_code": 40101, "message": "who are you"}"#;
const INCOMPATIBLE: &str = r#"{"error_code": 409, "message": "it is incompatible"}"#;

/// What is wrong with the registry, for how many requests, and the exit code it gives.
fn faults_at_the_start() -> [(&'static str, Mode, u64, i32); 8] {
    let failing = Mode::Answer("", "500 Internal Server Error", FAILS);
    let unauthorized = Mode::Answer("", "401 Unauthorized", UNAUTHORIZED);
    let conflict = Mode::Answer("POST /", "409 Conflict", INCOMPATIBLE);
    let slow = |seconds| Mode::Slow(Duration::from_secs(seconds));
    let always = u64::MAX;
    [
        ("the registry fails once", failing.clone(), 1, 0),
        ("the registry ends a connection", Mode::Dead, 1, 0),
        ("the registry takes a second", slow(1), always, 0),
        ("the registry fails always", failing, always, 6),
        ("the registry ends all connections", Mode::Dead, always, 6),
        ("the registry is too slow", slow(90), always, 6),
        ("the registry answers 401", unauthorized, always, 5),
        (
            "the registry answers 409 to the schema",
            conflict,
            always,
            6,
        ),
    ]
}

#[test]
fn t20_a_registry_that_fails_at_the_start_is_asked_again_or_told() {
    for_each_cluster(|cluster| {
        // Side by side, for most of them wait.
        let cells: Vec<Cell> = thread::scope(|scope| {
            let loads = faults_at_the_start().map(|(fault, mode, times, code)| {
                scope.spawn(move || meet_at_the_start(cluster, fault, mode, times, code))
            });
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        for cell in cells {
            cell.record();
        }
    });
}

fn meet_at_the_start(cluster: &Cluster, fault: &str, mode: Mode, times: u64, code: i32) -> Cell {
    let load = Load::of(cluster, usage(50, 1));
    let door = Door::new(cluster.registry_url());
    door.set(mode, times);
    let ended = through(&load, cluster.bootstrap(), &door).run();
    assert_eq!(ended.code, Some(code), "{fault}\n{ended}");
    let cell = load.cell(20, fault).fired(door.fired()).code(ended.code);
    if code == 0 {
        return cell.counts(load.counts(50));
    }
    let url = door.url.trim_end_matches('/');
    assert!(ended.stderr.contains(url), "{fault}\n{ended}");
    let there = count(cluster, &load.topic);
    assert_eq!(there, -1, "{fault}: nothing was created");
    cell
}

/// A load that knows its schema's id needs the registry no more.
#[test]
fn t20_a_registry_that_dies_in_mid_run_is_not_missed() {
    for_each_cluster(|cluster| {
        let load = Load::new(cluster);
        let (proxy, door) = (load.proxy(), Door::new(cluster.registry_url()));
        let rows = proxy.inject(load.rows(Verb::Hold).nth(2));
        let running = through(&load, proxy.bootstrap(), &door).start();
        assert!(rows.wait_fired(1, PATIENCE));
        door.set(Mode::Dead, u64::MAX);
        // It is dead for whoever asks.
        let mut probe = TcpStream::connect(door.url[7..].split('/').next().unwrap()).unwrap();
        probe.write_all(b"GET /subjects HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(probe.read(&mut [0; 10]).unwrap_or(0), 0);
        rows.release();
        let ended = running.finish().exits(0);
        load.check();
        load.cell(20, "the registry dies in mid-run")
            .fired(door.fired())
            .counts(load.counts(ROWS))
            .code(ended.code)
            .record();
    });
}

/// A killed load whose subject is deleted goes on with the schema that it began with.
#[test]
fn t20_a_load_whose_subject_was_deleted_goes_on() {
    for_each_cluster(|cluster| {
        let load = Load::of(cluster, usage(100, 1));
        load.kill_after(20, &[]);
        delete_subject(cluster, &format!("{}-value", load.topic));
        let shown = on(cluster, ["schema", "show", "-t", &load.topic]).run();
        assert_eq!(shown.code, Some(6), "{shown}");
        let ended = load.publish().run();
        assert_eq!(ended.code, Some(0), "{ended}");
        assert_eq!(ended.json()["resumed_at_row"], 20, "{ended}");
        load.cell(20, "the subject is deleted between two runs")
            .fired(1)
            .counts(load.counts(100))
            .code(ended.code)
            .record();
    });
}

fn delete_subject(cluster: &Cluster, subject: &str) {
    let behind = cluster.registry_url().strip_prefix("http://").unwrap();
    let (address, path) = behind.split_once('/').unwrap_or((behind, ""));
    let path = format!("/{path}/subjects/{subject}").replace("//", "/");
    let address = address.parse().unwrap();
    let status = tidegate_testkit::server::http_status(address, "DELETE", &path, "");
    assert_eq!(status.unwrap(), 200, "{path}");
}
