//! The standard output of a worker process.

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

#[test]
fn reserves_standard_output_for_events() {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_dat-trainer"))
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // While it waits for its assignment, standard output is already redirected to standard error.
    let descriptor = |number: u32| fs::read_link(format!("/proc/{}/fd/{number}", worker.id())).ok();
    let started = Instant::now();
    while descriptor(1).is_none() || descriptor(1) != descriptor(2) {
        assert!(started.elapsed() < Duration::from_secs(30), "{:?} {:?}", descriptor(1), descriptor(2));
        thread::sleep(Duration::from_millis(10));
    }
    worker.stdin.take().unwrap().write_all(b"no assignment\n").unwrap();
    let mut events = String::new();
    worker.stdout.take().unwrap().read_to_string(&mut events).unwrap();
    let event: Value = serde_json::from_str(&events).unwrap();
    assert!(event["Failed"]["message"].as_str().unwrap().contains("use `dat-trainer run`"), "{events}");
    assert_eq!(worker.wait().unwrap().code(), Some(1));
}
