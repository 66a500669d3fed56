//! A worker: one rank of a world, in a process of its own.
//!
//! It gets its [`assignment::Assignment`] on standard input, tells [`event::Event`]s on standard output, logs to
//! standard error, and ends: with status 0 when all is done, with 1 after it has told why it failed. It restarts
//! nothing itself; its agent does.

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
};

use datjob_api::report::{Failure, FailureReason};

use crate::engine;

pub mod assignment;
pub mod event;

use assignment::Assignment;
use event::Event;

/// Runs a worker to its end.
pub fn main() -> ExitCode {
    let assignment = match read_assignment() {
        Ok(assignment) => assignment,
        Err(message) => {
            tell(&Event::Failed(Failure {
                reason: FailureReason::Configuration,
                rank: None,
                message,
                log_tail: Vec::new(),
            }));
            return ExitCode::FAILURE;
        }
    };
    end_with_the_agent();
    // libtorch prints C++ stacks of what comes back as an error anyway.
    datjob_c10d::set_log_level(datjob_c10d::LogLevel::Fatal);
    tch::set_num_threads(i32::try_from(assignment.threads).unwrap_or(1));
    match engine::run(&assignment, &mut |event| tell(&event)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(rank = assignment.rank, generation = assignment.generation, %error, "Worker failed.");
            tell(&Event::Failed(Failure {
                reason: error.reason(),
                rank: Some(assignment.rank),
                message: error.to_string(),
                log_tail: Vec::new(),
            }));
            ExitCode::FAILURE
        }
    }
}

fn read_assignment() -> Result<Assignment, String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| format!("cannot read the assignment: {error}"))?;
    serde_json::from_str(&line).map_err(|error| {
        format!("the assignment on standard input is not readable ({error}): a worker is started by an agent, use `dat-trainer run`")
    })
}

/// A worker whose agent is gone ends: its rank will be given to another.
fn end_with_the_agent() {
    let watch = || {
        let mut line = String::new();
        while io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {}
        std::process::exit(3);
    };
    if let Err(error) = std::thread::Builder::new().name("agent-watch".into()).spawn(watch) {
        tracing::warn!(%error, "Cannot watch the agent: this worker will not notice its end.");
    }
}

fn tell(event: &Event) {
    let mut out = io::stdout().lock();
    // An agent that no longer reads is gone, and the watch ends this process.
    let _ =
        serde_json::to_writer(&mut out, event).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"));
    let _ = out.flush();
}
