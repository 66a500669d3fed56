//! A worker process: its start, its events, its log and its end.

use std::{
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use datjob_api::{
    contract,
    report::{Failure, FailureReason},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    failure_log::FailedWorker,
    log_tail::LogTail,
    process::{kill, resume},
};
use crate::{
    failure::classify_libtorch_error,
    worker_protocol::{Assignment, Command as WorkerCommand, Event, LEFT},
};

/// How many of a worker's last lines a failure carries.
const LOG_TAIL: usize = 20;
/// Longest of these lines, in bytes: a report must stay small.
const LOG_LINE: usize = 500;
/// Longest piece of a line that is read at once, in bytes. Events are shorter; container runtimes split lines of logs, too.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Begin of the line in the log of a worker that hangs after which it prints its stack.
const HANG_PREFIX: &str = "state of the process: ";
/// How long a worker that hangs has to print its stack.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest of an ended worker's output is waited for.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that happened to a worker of some generation.
#[derive(Debug)]
pub struct WorkersEvent {
    /// The generation.
    pub(super) generation: u32,
    /// The rank.
    pub(super) rank: u32,
    /// What happened.
    pub(super) what: What,
}

/// What happened to a worker.
#[derive(Debug)]
pub(super) enum What {
    /// It sent an event.
    Sent(Event),
    /// It ended by itself.
    Ended(End),
}

/// What is to happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It writes a checkpoint and exits.
    Leave,
    /// It hangs: it prints its stack and is killed.
    Abort,
    /// It is killed.
    Stop,
}

/// The end of a worker.
#[derive(Debug)]
pub(super) struct End {
    /// Its exit status, or why it is unknown.
    pub(super) status: Result<ExitStatus, String>,
    /// The last lines of its log, for the report.
    pub(super) log_tail: Vec<String>,
    /// Path on the checkpoint volume of a longer end of the log, or why it is not kept.
    pub(super) log_file: Option<Result<String, String>>,
}

impl End {
    pub(super) fn is_success(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }

    fn has_left(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.code() == Some(LEFT.into()))
    }
}

/// Runs a worker to its end; `None` if it was stopped.
pub(super) async fn supervise(
    assignment: &Assignment,
    device: Option<(&'static str, String)>,
    orders: mpsc::UnboundedReceiver<Order>,
    events: &mpsc::UnboundedSender<WorkersEvent>,
) -> Option<End> {
    match spawn(assignment, device).await {
        Ok(child) => watch(child, assignment, orders, events).await,
        Err(error) => Some(End {
            status: Err(format!("cannot start the worker process: {error}")),
            log_tail: Vec::new(),
            log_file: None,
        }),
    }
}

async fn spawn(assignment: &Assignment, device: Option<(&'static str, String)>) -> std::io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("worker")
        .envs(device)
        // Only agents send heartbeats.
        .env_remove(contract::ENV_TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C in a terminal is for the agent, which asks its workers to leave.
        .process_group(0)
        .spawn()?;
    let mut line = serde_json::to_vec(assignment)?;
    line.push(b'\n');
    if let Some(stdin) = child.stdin.as_mut() {
        stdin.write_all(&line).await?;
        stdin.flush().await?;
    }
    Ok(child)
}

async fn watch(
    mut child: Child,
    assignment: &Assignment,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: &mpsc::UnboundedSender<WorkersEvent>,
) -> Option<End> {
    let tail = Arc::new(Mutex::new(LogTail::default()));
    let mut readers = JoinSet::new();
    // Kept open until the end: a worker whose input is closed has lost its agent and exits.
    let mut stdin = child.stdin.take();
    if let Some(stderr) = child.stderr.take() {
        readers.spawn(pass_log(stderr, Arc::clone(&tail)));
    }
    if let Some(stdout) = child.stdout.take() {
        let (events, generation, rank) = (events.clone(), assignment.generation, assignment.rank);
        readers.spawn(async move {
            let mut stdout = BufReader::new(stdout);
            while let Some(line) = next_line(&mut stdout).await {
                let Ok(event) = serde_json::from_str(&line) else {
                    // The worker keeps it for events, but for the moment before it does.
                    tracing::info!(rank, line, "Unexpected output of a worker.");
                    continue;
                };
                if events.send(WorkersEvent { generation, rank, what: What::Sent(event) }).is_err() {
                    return;
                }
            }
        });
    }
    let mut kill_at = None;
    let status = loop {
        let due = time::sleep_until(kill_at.unwrap_or_else(Instant::now));
        tokio::select! {
            status = child.wait() => break status.map_err(|error| format!("cannot wait for the worker process: {error}")),
            () = due, if kill_at.is_some() => break kill(&mut child).await,
            order = orders.recv() => match order {
                // One that cannot be asked has ended or will be killed.
                Some(Order::Leave) => drop(send(stdin.as_mut(), WorkerCommand::Leave).await),
                Some(Order::Abort) => {
                    let state = resume(child.id());
                    tracing::warn!(rank = assignment.rank, state, "State of the worker that hangs.");
                    tail.lock().unwrap_or_else(PoisonError::into_inner).push(&format!("{HANG_PREFIX}{state}"));
                    drop(send(stdin.as_mut(), WorkerCommand::Abort).await);
                    kill_at = Some(Instant::now() + ABORT_TIMEOUT);
                }
                Some(Order::Stop) | None => {
                    // Nothing is lost with SIGKILL: what must last is written atomically.
                    if let Err(problem) = kill(&mut child).await {
                        tracing::warn!(rank = assignment.rank, "{problem}.");
                    }
                    return None;
                }
            },
        }
    };
    // A process that the worker left behind could keep its output open.
    let read = async { while readers.join_next().await.is_some() {} };
    let _ = time::timeout(READ_TIMEOUT, read).await;
    drop(stdin);
    let tail = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner));
    // Of one that hangs: the innermost frames of its stack.
    let log_tail = tail.from(HANG_PREFIX, LOG_TAIL, LOG_LINE);
    let mut end = End { status, log_tail, log_file: None };
    let text = tail.text();
    if !end.is_success() && !end.has_left() && !text.is_empty() {
        let kept = failed_worker(assignment).keep(text).await;
        end.log_file = Some(kept.map_err(|error| error.to_string()));
    }
    Some(end)
}

async fn send(stdin: Option<&mut ChildStdin>, command: WorkerCommand) -> std::io::Result<()> {
    let Some(stdin) = stdin else { return Ok(()) };
    let mut line = serde_json::to_vec(&command)?;
    line.push(b'\n');
    stdin.write_all(&line).await?;
    stdin.flush().await
}

fn failed_worker(assignment: &Assignment) -> FailedWorker {
    FailedWorker {
        directory: assignment.checkpoints.clone(),
        below_volume: assignment.checkpoints_below_volume.clone(),
        attempt: assignment.attempt,
        generation: assignment.generation,
        rank: assignment.rank,
    }
}

/// Passes a worker's log on and keeps its end.
async fn pass_log(log: impl AsyncRead + Unpin, tail: Arc<Mutex<LogTail>>) {
    let mut log = BufReader::new(log);
    while let Some(line) = next_line(&mut log).await {
        eprintln!("{line}");
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(&line);
    }
}

/// The next line of a worker's output, or the next piece of a very long one; libraries in it may write anything.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await;
    let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
    read.is_ok_and(|count| count > 0).then_some(line)
}

/// The sender of a SIGKILL, as far as the kernel counts its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killer {
    /// The kernel, because memory ran out in a pod.
    KernelInPod,
    /// The kernel, because memory ran out on a workstation.
    KernelOnWorkstation,
    /// A process.
    Process,
    /// Unknown: the kernel does not show its count of kills.
    Unknown,
}

/// The failure of a worker that ended without reporting a reason. `killer` is the sender of a SIGKILL, if it was one.
pub(super) fn unexplained(
    rank: u32,
    status: &Result<ExitStatus, String>,
    log_tail: &[String],
    killer: Killer,
) -> Failure {
    let (reason, message) = match status {
        Err(problem) => (FailureReason::Crash, problem.clone()),
        Ok(status) => match status.signal() {
            Some(9) => match killer {
                Killer::KernelInPod => (
                    FailureReason::OutOfMemory,
                    "the kernel killed the worker because the memory of the container or of the node ran out; raise \
                     spec.pod.resources.limits.memory and its request, or lower spec.training.schedule.batchSize or \
                     spec.workersPerPod"
                        .to_owned(),
                ),
                Killer::KernelOnWorkstation => (
                    FailureReason::OutOfMemory,
                    "the kernel killed the worker because memory ran out; lower --workers or \
                     spec.training.schedule.batchSize, or close other programs"
                        .to_owned(),
                ),
                Killer::Process => (
                    FailureReason::Crash,
                    "the worker was killed by signal 9 (SIGKILL) from a person or another program; the kernel did not \
                     count it as out of memory"
                        .to_owned(),
                ),
                Killer::Unknown => (
                    FailureReason::Crash,
                    "the worker was killed by signal 9 (SIGKILL); the cgroup of this process does not show whether memory ran \
                     out"
                        .to_owned(),
                ),
            },
            Some(signal) => match uncaught_exception(log_tail) {
                Some((reason, message)) => (reason, format!("the worker was killed by signal {signal}: {message}")),
                None => (FailureReason::Crash, format!("the worker was killed by signal {signal}; see its log")),
            },
            None => (FailureReason::Crash, format!("the worker exited without reporting a reason ({status}); see its log")),
        },
    };
    Failure::of_rank(reason, rank, message)
}

/// The message of an uncaught C++ exception, which ends a process; NCCL's watchdog throws one.
fn uncaught_exception(log_tail: &[String]) -> Option<(FailureReason, &str)> {
    let message = log_tail.iter().rev().find_map(|line| line.trim_start().strip_prefix("what():"))?.trim();
    let reason = classify_libtorch_error(message);
    (reason != FailureReason::Crash).then_some((reason, message))
}

#[cfg(test)]
mod tests;
