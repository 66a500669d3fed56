//! `dat-trainer worker`: one rank of a world, as a separate process.
//!
//! It reads its [`Assignment`] from standard input, writes [`Event`]s to standard output, logs to
//! standard error, and ends: with status 0 when all is done, with 1 after it has told why it failed. It restarts
//! nothing itself; its agent does.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use datjob_api::report::{Failure, FailureReason};

use crate::{
    engine,
    worker_protocol::{Assignment, Event},
};

/// Runs a worker to its end.
pub fn main() -> ExitCode {
    let mut agent = match Agent::of_standard_output() {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(%error, "Cannot redirect standard output.");
            return ExitCode::FAILURE;
        }
    };
    let assignment = match read_assignment() {
        Ok(assignment) => assignment,
        Err(message) => {
            agent.tell(&Event::Failed(Failure {
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
    match engine::run(&assignment, &mut |event| agent.tell(&event)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(rank = assignment.rank, generation = assignment.generation, %error, "Worker failed.");
            agent.tell(&Event::Failed(Failure {
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
        .map_err(|error| format!("cannot read the assignment from standard input: {error}"))?;
    serde_json::from_str(&line).map_err(|error| {
        format!("invalid assignment on standard input: {error}; only an agent starts workers: use `dat-trainer run`")
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
        tracing::warn!(%error, "Cannot watch the agent; this worker keeps running if the agent exits.");
    }
}

/// The agent's end of what was standard output.
struct Agent(File);

impl Agent {
    /// Keeps standard output for events. What libraries print to it from now on (NCCL does, with `NCCL_DEBUG`) goes to the
    /// log: they write in pieces, which would tear events apart.
    fn of_standard_output() -> io::Result<Self> {
        let agent = io::stdout().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self(agent.into()))
    }

    fn tell(&mut self, event: &Event) {
        // An agent that no longer reads is gone, and the watch ends this process.
        let _ = serde_json::to_vec(event).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.0.write_all(&line)
        });
    }
}
