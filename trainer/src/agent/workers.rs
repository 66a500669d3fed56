//! The worker processes of a pod: started together, ended together.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use datjob_api::{
    Training,
    report::{Failure, FailureReason, Phase},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time,
};

use super::{Board, Config, failure_log::FailedWorker, log_tail::LogTail, progress_log::ProgressLog};
use crate::{
    failure::{classify_libtorch_error, may_be_consequence},
    placement::visible_device,
    rendezvous::{State, World},
    worker_protocol::{Accelerator, Assignment, Event, Part},
};

/// How many of a worker's last lines a failure carries.
const LOG_TAIL: usize = 20;
/// Longest of these lines, in bytes: a report must stay small.
const LOG_LINE: usize = 500;
/// Longest piece of a line that is read at once, in bytes. Events are shorter; container runtimes split lines of logs, too.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// How long the other workers of a pod have to say why they end, after one lost its peer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something that happened to a worker of some generation.
#[derive(Debug)]
pub struct WorkersEvent {
    generation: u32,
    rank: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    Told(Event),
    /// It ended by itself.
    Ended(End),
}

#[derive(Debug)]
struct End {
    status: Result<ExitStatus, String>,
    log_tail: Vec<String>,
    /// Path on the checkpoint volume of a longer end of the log, or why it is not kept.
    log_file: Option<Result<String, String>>,
}

impl End {
    fn is_success(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }
}

/// The workers of this pod, in at most one generation at a time.
#[derive(Debug)]
pub struct Workers {
    events: mpsc::UnboundedSender<WorkersEvent>,
    state: State,
    /// One for each worker; what is sent ends it.
    stops: Vec<oneshot::Sender<()>>,
    supervisors: JoinSet<()>,
    finished: usize,
    /// Failures that workers told of themselves, by rank.
    told: BTreeMap<u32, Failure>,
    failure: Option<Failure>,
    progress_log: ProgressLog,
    /// The moment from which the times of `progress_log` count.
    created: Instant,
}

impl Workers {
    /// No workers yet; what happens to them later comes through `events`.
    ///
    /// Unbounded, since [`Workers::stop`] waits for those who send; workers tell about one event a second.
    pub fn new(events: mpsc::UnboundedSender<WorkersEvent>) -> Self {
        Self {
            events,
            state: State::Idle { ended: None },
            stops: Vec::new(),
            supervisors: JoinSet::new(),
            finished: 0,
            told: BTreeMap::new(),
            failure: None,
            progress_log: ProgressLog::default(),
            created: Instant::now(),
        }
    }

    /// What they are doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether there were any and all have ended.
    pub fn have_ended(&self) -> bool {
        matches!(self.state, State::Done(_) | State::Idle { ended: Some(_) })
    }

    /// Why the last ones ended.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Starts them all in `world`.
    pub fn start(&mut self, config: &Config, training: &Training, world: &World) {
        let generation = world.generation;
        self.state = State::Running(generation);
        self.finished = 0;
        self.failure = None;
        self.told.clear();
        self.progress_log = ProgressLog::default();
        for local_rank in 0..config.workers {
            let assignment = assignment(config, training, world, local_rank);
            let device = device_variable(config, local_rank);
            let (stop, stopped) = oneshot::channel();
            let (events, attempt) = (self.events.clone(), config.attempt);
            self.supervisors.spawn(async move {
                let rank = assignment.rank;
                if let Some(end) = supervise(&assignment, attempt, device, stopped, &events).await {
                    // An agent that has stopped listening is ending itself.
                    let _ = events.send(WorkersEvent { generation, rank, what: What::Ended(end) });
                }
            });
            self.stops.push(stop);
        }
    }

    /// Logs the progress of rank 0, if a line is due.
    pub fn log_progress(&mut self) {
        let line = self.progress_log.due(self.created.elapsed());
        if let (State::Running(_), Some(line)) = (self.state, line) {
            line.write();
        }
    }

    /// Ends them all and waits until they are gone.
    pub async fn stop(&mut self) {
        for stop in self.stops.drain(..) {
            // One that has ended already listens no more.
            let _ = stop.send(());
        }
        while self.supervisors.join_next().await.is_some() {}
        if let State::Running(generation) = self.state {
            self.state = State::Idle { ended: Some(generation) };
        }
    }

    /// Takes note of an event; says whether the rendezvous should hear of it at once.
    pub async fn note(&mut self, event: WorkersEvent, board: &Board) -> bool {
        let running = self.state == State::Running(event.generation);
        if !running && self.state != (State::Idle { ended: Some(event.generation) }) {
            return false;
        }
        match event.what {
            What::Told(Event::Failed(failure)) => {
                self.told.insert(event.rank, failure);
                false
            }
            What::Told(told) => {
                if running {
                    if let Some(line) = self.progress_log.record(self.created.elapsed(), &told) {
                        line.write();
                    }
                    hear(told, board);
                }
                false
            }
            What::Ended(end) if end.is_success() => {
                self.finished += 1;
                let all = running && self.finished == self.stops.len();
                if all {
                    self.state = State::Done(event.generation);
                }
                all
            }
            What::Ended(end) => {
                if let Some(Err(sentence)) = &end.log_file {
                    tracing::warn!(rank = event.rank, "{sentence}.");
                    board.warning(sentence.clone());
                }
                self.blame(event.rank, end);
                if running {
                    self.end_the_others().await;
                }
                true
            }
        }
    }

    /// Keeps the first failure that is not the consequence of another.
    fn blame(&mut self, rank: u32, End { status, log_tail, log_file }: End) {
        let mut failure = self.told.remove(&rank).unwrap_or_else(|| unexplained(rank, &status, &log_tail));
        failure.log_tail = log_tail;
        failure.log_file = log_file.and_then(Result::ok);
        if self.failure.as_ref().is_none_or(may_be_consequence) {
            self.failure = Some(failure);
        }
    }

    /// The others of this pod wait for a peer that is gone. Where this one lost its peer, the peer may be among them
    /// and about to say why.
    async fn end_the_others(&mut self) {
        if self.failure.as_ref().is_some_and(may_be_consequence) {
            let all_end = async { while self.supervisors.join_next().await.is_some() {} };
            // Those who have not ended by then are ended next.
            let _ = time::timeout(LAST_WORDS, all_end).await;
        }
        self.stop().await;
    }
}

/// Puts what rank 0 tells on the board.
fn hear(event: Event, board: &Board) {
    match event {
        Event::Progress(progress) => {
            board.phase(Phase::Training);
            board.progress(progress);
        }
        Event::Timing(timing) => board.timing(timing),
        Event::Accuracy(accuracy) => board.accuracy(accuracy),
        Event::Best(accuracy) => board.best(accuracy),
        Event::Warning(sentence) => board.warning(sentence),
        // A validation is a part of the training.
        Event::Evaluating { part: Part::Validation, .. } => board.phase(Phase::Training),
        Event::Evaluating { .. } => board.phase(Phase::Evaluating),
        Event::Failed(_) => {}
    }
}

fn assignment(config: &Config, training: &Training, world: &World, local_rank: u32) -> Assignment {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    Assignment {
        job_uid: config.job_uid.clone(),
        training: training.clone(),
        data: config.data.clone(),
        files: config.files(training),
        checkpoints: config.job_directory(),
        checkpoints_below_volume: PathBuf::from(&config.job_uid),
        generation: world.generation,
        rank: config.pod_index * config.workers + local_rank,
        world_size: config.replicas * config.workers,
        store_host: config.rendezvous_host.clone(),
        store_port: world.store_port,
        address: config.address.clone(),
        threads: threads(std::env::var("OMP_NUM_THREADS").ok().as_deref(), cores, config.workers),
        accelerator: match config.gpus {
            0 => Accelerator::None,
            // Asking for NCCL where it cannot be was refused before.
            gpus => Accelerator::Cuda {
                nccl: training.communication.backend.uses_nccl(config.workers, gpus).unwrap_or(false),
            },
        },
    }
}

/// Number of threads of a worker: the customary variable, or a share of the cores.
fn threads(omp_num_threads: Option<&str>, cores: u32, workers: u32) -> u32 {
    let chosen = omp_num_threads.and_then(|number| number.trim().parse().ok()).filter(|number| *number > 0);
    chosen.unwrap_or_else(|| (cores / workers).max(1))
}

/// The environment variable that shows a worker its GPU and hides the others.
fn device_variable(config: &Config, local_rank: u32) -> Option<(&'static str, String)> {
    let gpu = local_rank.checked_rem(config.gpus)?;
    let list = |name| std::env::var(name).ok();
    let (cuda, nvidia) = (list("CUDA_VISIBLE_DEVICES"), list("NVIDIA_VISIBLE_DEVICES"));
    Some(("CUDA_VISIBLE_DEVICES", visible_device(gpu, cuda.as_deref(), nvidia.as_deref())))
}

/// Runs a worker to its end; nothing where it was stopped.
async fn supervise(
    assignment: &Assignment,
    attempt: u32,
    device: Option<(&'static str, String)>,
    stopped: oneshot::Receiver<()>,
    events: &mpsc::UnboundedSender<WorkersEvent>,
) -> Option<End> {
    match spawn(assignment, device).await {
        Ok(child) => watch(child, assignment, attempt, stopped, events).await,
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
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
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
    attempt: u32,
    stopped: oneshot::Receiver<()>,
    events: &mpsc::UnboundedSender<WorkersEvent>,
) -> Option<End> {
    let tail = Arc::new(Mutex::new(LogTail::default()));
    let mut readers = JoinSet::new();
    // Kept open until the end: closing it tells the worker that its agent is gone.
    let stdin = child.stdin.take();
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
                if events.send(WorkersEvent { generation, rank, what: What::Told(event) }).is_err() {
                    return;
                }
            }
        });
    }
    let status = tokio::select! {
        status = child.wait() => status,
        _ = stopped => {
            // Nothing is lost with SIGKILL: what must last is written atomically.
            if let Err(error) = child.kill().await {
                tracing::warn!(rank = assignment.rank, %error, "Cannot kill a worker.");
            }
            return None;
        }
    };
    while readers.join_next().await.is_some() {}
    drop(stdin);
    let tail = std::mem::take(&mut *tail.lock().unwrap_or_else(PoisonError::into_inner));
    let mut end = End {
        status: status.map_err(|error| format!("cannot wait for the worker process: {error}")),
        log_tail: tail.last(LOG_TAIL, LOG_LINE),
        log_file: None,
    };
    let text = tail.text();
    if !end.is_success() && !text.is_empty() {
        let kept = failed_worker(assignment, attempt).keep(text).await;
        end.log_file = Some(kept.map_err(|error| error.to_string()));
    }
    Some(end)
}

fn failed_worker(assignment: &Assignment, attempt: u32) -> FailedWorker {
    FailedWorker {
        directory: assignment.checkpoints.clone(),
        below_volume: assignment.checkpoints_below_volume.clone(),
        attempt,
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

/// The next line of what a worker writes, or the next piece of a very long one; libraries in it may write anything.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await;
    let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
    read.is_ok_and(|count| count > 0).then_some(line)
}

/// The failure of a worker that could not say why it ended.
fn unexplained(rank: u32, status: &Result<ExitStatus, String>, log_tail: &[String]) -> Failure {
    let (reason, message) = match status {
        Err(problem) => (FailureReason::Crash, problem.clone()),
        Ok(status) => match status.signal() {
            Some(9) => (
                FailureReason::OutOfMemory,
                "the worker was killed by signal 9 (SIGKILL): the container probably exceeded its memory limit; raise \
                 spec.pod.resources.limits.memory or lower spec.training.schedule.batchSize"
                    .to_owned(),
            ),
            Some(signal) => match last_words(log_tail) {
                Some((reason, words)) => (reason, format!("the worker was killed by signal {signal}: {words}")),
                None => (FailureReason::Crash, format!("the worker was killed by signal {signal}; see its log")),
            },
            None => (FailureReason::Crash, format!("the worker exited without reporting a reason ({status}); see its log")),
        },
    };
    Failure::of_rank(reason, rank, message)
}

/// What a process says whose end is a C++ exception that nobody catches, as NCCL's watchdog throws it.
fn last_words(log_tail: &[String]) -> Option<(FailureReason, &str)> {
    let words = log_tail.iter().rev().find_map(|line| line.trim_start().strip_prefix("what():"))?.trim();
    let reason = classify_libtorch_error(words);
    (reason != FailureReason::Crash).then_some((reason, words))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn ended_by(signal: i32, tail: &[&str]) -> Failure {
        let tail: Vec<String> = tail.iter().map(|&line| line.to_owned()).collect();
        unexplained(1, &Ok(ExitStatus::from_raw(signal)), &tail)
    }

    #[test]
    fn the_watchdogs_last_words_name_the_failure() {
        let terminate = "terminate called after throwing an instance of 'c10::DistBackendError'";
        let timeout = "  what():  [PG ID 0 PG GUID 0 Rank 1] Process group watchdog thread terminated with exception: \
                       [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12)";
        let failure = ended_by(6, &["Epoch 3.", terminate, timeout]);
        assert_eq!(failure.reason, FailureReason::Communication);
        assert!(failure.message.contains("Watchdog caught"), "{}", failure.message);
        let lost = "  what():  CUDA error: unspecified launch failure";
        assert_eq!(ended_by(6, &[terminate, lost]).reason, FailureReason::Device);
        assert_eq!(
            ended_by(6, &[terminate, "  what():  vector::_M_range_check"]).reason,
            FailureReason::Crash
        );
        assert_eq!(ended_by(11, &["NCCL is fine."]).reason, FailureReason::Crash);
        assert_eq!(ended_by(9, &[]).reason, FailureReason::OutOfMemory);
    }

    /// Watches a shell script as the worker of rank 3 in generation 2.
    async fn watch_script(script: &str, checkpoints: &Path) -> End {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let manifest = serde_json::json!({
            "model": {"architecture": "small-cnn"},
            "data": {"dataset": "mnist", "source": {"volume": {"persistentVolumeClaim": {"claimName": "x"}}}},
            "threatModel": {"epsilon": "0.1"}, "attack": {"fgsm": {}}, "schedule": {"epochs": 1, "batchSize": 8}
        });
        let assignment = Assignment {
            job_uid: "uid".into(),
            training: serde_json::from_value(manifest).unwrap(),
            data: PathBuf::new(),
            files: BTreeMap::new(),
            checkpoints: checkpoints.to_owned(),
            checkpoints_below_volume: "uid".into(),
            generation: 2,
            rank: 3,
            world_size: 4,
            store_host: String::new(),
            store_port: 0,
            address: String::new(),
            threads: 1,
            accelerator: Accelerator::None,
        };
        let (events, _inbox) = mpsc::unbounded_channel();
        let (_stop, stopped) = oneshot::channel();
        watch(shell.spawn().unwrap(), &assignment, 1, stopped, &events).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_worker_leaves_the_end_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 300 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
        let end = watch_script(script, directory.path()).await;
        assert_eq!(end.log_tail.len(), LOG_TAIL);
        let path = end.log_file.unwrap().unwrap();
        assert_eq!(path, "uid/logs/attempt-1-generation-0002-rank-003.log");
        let file = directory.path().join(path.strip_prefix("uid/").unwrap());
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!((text.lines().next(), text.lines().last()), (Some("line 100"), Some("line 299")));
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_kept_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("logs"), "in the way").unwrap();
        let end = watch_script("echo out of luck >&2; exit 1", directory.path()).await;
        assert_eq!(end.log_tail, ["out of luck"]);
        let (events, _inbox) = mpsc::unbounded_channel();
        let (mut workers, board) = (Workers::new(events), Board::new("uid", "pod", 1));
        workers.state = State::Running(2);
        assert!(workers.note(WorkersEvent { generation: 2, rank: 3, what: What::Ended(end) }, &board).await);
        let failure = workers.failure().unwrap();
        assert_eq!((failure.reason, &failure.log_file), (FailureReason::Crash, &None));
        let warnings = board.report().warnings;
        assert!(warnings[0].starts_with("the log of rank 3 is not kept: cannot create"), "{warnings:?}");
    }

    #[tokio::test]
    async fn a_worker_that_succeeds_leaves_no_log() {
        let directory = tempfile::tempdir().unwrap();
        let end = watch_script("echo done >&2", directory.path()).await;
        assert!(end.is_success() && end.log_file.is_none());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_variable_sets_the_threads_of_a_worker() {
        assert_eq!([threads(None, 16, 4), threads(None, 2, 4)], [4, 1]);
        assert_eq!([threads(Some("3"), 16, 4), threads(Some(" 8 "), 2, 4)], [3, 8]);
        for invalid in ["", "0", "-1", "many"] {
            assert_eq!(threads(Some(invalid), 16, 4), 4, "{invalid}");
        }
    }
}
