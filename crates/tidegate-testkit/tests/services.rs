//! The launchers, on what they launch: a real Kafka that is killed and comes back, and the `services` program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tidegate_testkit::kafka::answers_api_versions;
use tidegate_testkit::services;

#[test]
fn kafka_is_killed_and_comes_back() {
    let Some(mut kafka) = services::own_kafka("") else {
        return;
    };
    let address = kafka.address();
    assert!(answers_api_versions(address).unwrap());
    kafka.kill();
    assert!(!kafka.server().is_running());
    assert!(answers_api_versions(address).is_err());
    kafka.restart().unwrap();
    assert!(answers_api_versions(address).unwrap());
    kafka.stop();
    assert!(answers_api_versions(address).is_err());
}

#[test]
fn the_services_run_until_their_input_ends() {
    if !services::are_wanted() {
        return;
    }
    let mut program = Command::new(env!("CARGO_BIN_EXE_services"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut value = |name: &str| {
        let line = lines.next().unwrap().unwrap();
        line.strip_prefix(name).unwrap().to_owned()
    };
    let kafka: SocketAddr = value("TIDEGATE_TEST_KAFKA=").parse().unwrap();
    assert!(value("TIDEGATE_TEST_REGISTRY=").starts_with("http://127.0.0.1:"));
    assert_eq!(value("READY=1"), "");
    assert!(answers_api_versions(kafka).unwrap());
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    assert!(answers_api_versions(kafka).is_err());
}
