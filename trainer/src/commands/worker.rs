//! `dat-trainer worker`: one rank of a world, as a separate process.
//!
//! It reads its [`Assignment`] from standard input, writes [`Event`]s to standard output and logs to standard error. It
//! exits with status 0 on success, and with status 1 after it has reported a failure. Only the agent restarts workers.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use datjob_api::report::{Failure, FailureReason};
use datjob_data::storage;

use crate::{
    engine,
    worker_protocol::{Assignment, Event},
};

/// How often a worker checks whether it waits for its storage.
const STORAGE_INTERVAL: Duration = Duration::from_millis(500);

/// Runs a worker until the training is complete or fails.
pub fn main() -> ExitCode {
    let events = match EventWriter::take_stdout() {
        Ok(events) => events,
        Err(error) => {
            tracing::error!(%error, "Cannot redirect standard output.");
            return ExitCode::FAILURE;
        }
    };
    let assignment = match read_assignment() {
        Ok(assignment) => assignment,
        Err(message) => {
            events.send(&Event::Failed(Failure::new(FailureReason::Configuration, message)));
            return ExitCode::FAILURE;
        }
    };
    exit_with_agent();
    report_storage(events.clone());
    // libtorch would log a C++ stack trace for errors that it also returns.
    datjob_c10d::set_log_level(datjob_c10d::LogLevel::Fatal);
    tch::set_num_threads(i32::try_from(assignment.threads).unwrap_or(1));
    match engine::run(&assignment, &mut |event| events.send(&event)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(rank = assignment.rank, generation = assignment.generation, %error, "Worker failed.");
            let failure = Failure::of_rank(error.reason(), assignment.rank, error.to_string());
            events.send(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn read_assignment() -> Result<Assignment, String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| format!("cannot read the assignment from standard input: {error}"))?;
    serde_json::from_str(&line).map_err(|error| {
        format!("invalid assignment on standard input: {error}; only an agent starts workers: use `dat-trainer run`")
    })
}

/// Exits when the agent exits: another worker takes over the rank.
fn exit_with_agent() {
    let watch = || {
        let mut line = String::new();
        while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {}
        std::process::exit(3);
    };
    if let Err(error) = thread::Builder::new().name("agent-watch".into()).spawn(watch) {
        tracing::warn!(%error, "Cannot watch the agent; this worker keeps running if the agent exits.");
    }
}

/// Reports the fault of storage that this worker waits for, from a thread that does not wait for it.
fn report_storage(events: EventWriter) {
    let watch = move || {
        let mut reported = None;
        loop {
            thread::sleep(STORAGE_INTERVAL);
            let trouble = storage::oldest_trouble();
            if trouble != reported {
                events.send(&Event::Storage(trouble.clone()));
                reported = trouble;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("storage-report".into()).spawn(watch) {
        tracing::warn!(%error, "Cannot report faults of storage; they are only logged.");
    }
}

/// Writes events to the pipe that was standard output at the start.
#[derive(Clone)]
struct EventWriter(Arc<Mutex<File>>);

impl EventWriter {
    /// Reserves standard output for events and redirects later output to standard error. Libraries print to standard output
    /// (NCCL with `NCCL_DEBUG`), in pieces that would corrupt the lines of events.
    fn take_stdout() -> io::Result<Self> {
        let pipe = io::stdout().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self(Arc::new(Mutex::new(pipe.into()))))
    }

    fn send(&self, event: &Event) {
        // A write fails if the agent has exited; then `exit_with_agent` ends this process.
        let _ = serde_json::to_vec(event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
    }
}
