//! Faults of storage that pass: a run waits for them, and its outcome is that of a run without them.

use std::{
    fs::{self, File},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use super::{
    data,
    interposer::interposer,
    outcome,
    run::{Run, manifest},
    uninterrupted_outcome,
};

/// A run whose calls of one kind fail on one file while a marker exists.
struct FaultyRun {
    run: Run,
    process: Child,
}

impl FaultyRun {
    /// Starts a run. The fault begins with [`begin`](Self::begin), or at once.
    fn start(call: &str, path: &str, error: rustix::io::Errno, at_once: bool) -> Self {
        let run = Run::new(&manifest());
        let file = |name: &str| run.directory.path().join(name);
        if at_once {
            fs::write(file("marker"), "").unwrap();
        }
        let process = run
            .command(data())
            .env("LD_PRELOAD", interposer())
            .env("FAULT_CALL", call)
            .env("FAULT_PATH", path)
            .env("FAULT_ERRNO", error.raw_os_error().to_string())
            .env("FAULT_WHILE", file("marker"))
            .env("FAULT_STRUCK", file("struck"))
            .stdout(File::create(file("stdout")).unwrap())
            .stderr(File::create(file("stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { run, process }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.run.directory.path().join(name)).unwrap_or_default()
    }

    fn begin(&self) {
        fs::write(self.run.directory.path().join("marker"), "").unwrap();
    }

    /// Waits until the run has met the fault and printed this text; then the fault ends.
    fn end_after(&self, printed: &str) {
        let started = Instant::now();
        while self.text("struck").len() < 2 || !self.text("stdout").contains(printed) {
            assert!(
                started.elapsed() < Duration::from_mins(2),
                "{}{}",
                self.text("stdout"),
                self.text("stderr")
            );
            thread::sleep(Duration::from_millis(50));
        }
        fs::remove_file(self.run.directory.path().join("marker")).unwrap();
    }

    /// Waits for the end of the run. It is one world, and its outcome is that of a run without a fault.
    fn finish(mut self) {
        let status = self.process.wait().unwrap();
        let (stdout, stderr) = (self.text("stdout"), self.text("stderr"));
        assert!(status.success(), "{stdout}\n{stderr}");
        assert!(stdout.contains("storage          works again"), "{stdout}");
        assert!(stderr.contains("retrying"), "{stderr}");
        assert_eq!(fs::read_to_string(self.run.file("generation")).unwrap(), "1", "{stderr}");
        assert_eq!(&outcome(&self.run), uninterrupted_outcome());
    }
}

#[test]
fn an_image_that_cannot_be_opened_for_a_while_is_waited_for() {
    let run = FaultyRun::start("open", "train/1/0011.jpg", rustix::io::Errno::STALE, false);
    run.run.wait_for("checkpoint-0001.json");
    run.begin();
    run.end_after("train/1/0011.jpg: Stale file handle (ESTALE); waiting until it works again");
    run.finish();
}

#[test]
fn a_full_volume_is_waited_for() {
    let run = FaultyRun::start("write", "/checkpoint-0002-", rustix::io::Errno::NOSPC, true);
    // Training goes on meanwhile, through its third and last epoch.
    let started = Instant::now();
    let validated = || {
        let history = fs::read_to_string(run.run.file("history.json")).unwrap_or_default();
        history.matches("\"accuracy\": {").count()
    };
    while validated() < 3 {
        assert!(started.elapsed() < Duration::from_mins(2), "{}{}", run.text("stdout"), run.text("stderr"));
        thread::sleep(Duration::from_millis(50));
    }
    run.end_after("No space left on device (ENOSPC); the volume is full; waiting until it works again");
    run.finish();
}

#[test]
fn a_world_forms_once_its_generation_can_be_recorded() {
    let run = FaultyRun::start("write", "/checkpoints/test/generation", rustix::io::Errno::IO, true);
    run.end_after("generation: Input/output error (EIO); waiting until it works again");
    run.finish();
}
