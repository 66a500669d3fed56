//! `dat-trainer worker`: one rank of a world, as a separate process.
//!
//! It reads its [`Assignment`] from standard input, writes [`Event`]s to standard output and logs to standard error. It
//! exits with status 0 on success, and with status 1 after it has reported a failure. Only the agent restarts workers.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use datjob_api::report::{Failure, FailureReason};
use datjob_data::{pulse, storage};

use crate::{
    engine::{self, TrainError},
    worker_protocol::{Assignment, Command, Event, LEFT, Pulse},
};

/// How often a worker checks whether it waits for its storage.
const STORAGE_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two pulses.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker that hangs may take to print its stack.
const STACK_TIMEOUT: Duration = Duration::from_secs(3);

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
    let leave = Arc::new(AtomicBool::new(false));
    follow_agent(Arc::clone(&leave));
    report_storage(events.clone());
    send_pulses(events.clone());
    // libtorch would log a C++ stack trace for errors that it also returns.
    datjob_c10d::set_log_level(datjob_c10d::LogLevel::Fatal);
    tch::set_num_threads(i32::try_from(assignment.threads).unwrap_or(1));
    match engine::run(&assignment, &leave, &mut |event| events.send(&event)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (rank, generation) = (assignment.rank, assignment.generation);
            let failure = Failure::of_rank(error.reason(), rank, error.to_string());
            if let TrainError::Left { step } = error {
                tracing::info!(rank, generation, step, "Left the world after a checkpoint.");
                events.send(&Event::Left);
                events.send(&Event::Failed(failure));
                return ExitCode::from(LEFT);
            }
            tracing::error!(rank, generation, %error, "Worker failed.");
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

/// Follows the commands of the agent. Exits when the agent exits: another worker takes over the rank.
fn follow_agent(leave: Arc<AtomicBool>) {
    let watch = move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Command::Leave) => leave.store(true, Ordering::Relaxed),
                Ok(Command::Abort) => {
                    if !datjob_c10d::print_main_stack(STACK_TIMEOUT) {
                        eprintln!("the main thread did not print its stack");
                    }
                    std::process::abort();
                }
                Err(error) => tracing::warn!(%error, "Invalid command of the agent; ignoring it."),
            }
        }
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

/// Sends pulses about the main thread, from a thread that does not wait for it.
fn send_pulses(events: EventWriter) {
    let main = thread::current().id();
    let watch = move || {
        loop {
            let count = pulse::count() + datjob_c10d::waits_begun();
            let waits_in = datjob_c10d::waits_in(main).map(str::to_owned);
            events.send(&Event::Pulse(Pulse { count, waits_in }));
            thread::sleep(PULSE_INTERVAL);
        }
    };
    if let Err(error) = thread::Builder::new().name("pulse".into()).spawn(watch) {
        tracing::warn!(%error, "Cannot send pulses; the agent ends this worker as hung.");
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
        // A write fails if the agent has exited; then `follow_agent` ends this process.
        let _ = serde_json::to_vec(event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
    }
}
