//! `dat-trainer run`: runs the manifest of a DatJob on a workstation.
//!
//! It runs the agent of a pod, as the only pod of its job. Two local folders replace the volumes of the pod.

use std::{env, net::Ipv4Addr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use datjob_api::{
    Training,
    manifest::{self, Manifest, ManifestError},
    report::{Count, Failure, Phase, PreparationState, PreparationStep, Report},
    restarts::limit_exceeded,
    training::{NamedFile, Target},
};
use datjob_data::{files::FileError, storage};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time,
};

use crate::{
    agent::{self, Board, Config, Ending, Files, config::TrainingSource},
    checkpoint::{CheckpointError, results},
    commands::RunArgs,
    outputs::{self, estimates::TestSummary},
    rendezvous::{
        token::{Token, TokenError},
        verdict_file::VerdictFile,
    },
};

/// Numbers of signals.
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;
/// Signals within this time are one interrupt.
const SAME_INTERRUPT: Duration = Duration::from_secs(1);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The manifest is invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The results cannot be read.
    #[error(transparent)]
    Results(#[from] CheckpointError),
    /// The operating system provides no random numbers.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The failure of an earlier run cannot be removed.
    #[error(transparent)]
    Verdict(#[from] FileError),
    /// The async runtime or a signal handler cannot start.
    #[error("cannot start the async runtime or a signal handler: {0}")]
    Runtime(#[from] std::io::Error),
    /// A file that the manifest has no use for.
    #[error("--{}: the manifest does not set spec.training.{}, so the file would not be used; set it, or omit the flag", .0.name(), .0.field())]
    UnusedFile(NamedFile),
    /// More GPUs than workers.
    #[error("--gpus ({gpus}) exceeds --workers ({workers}): a worker uses one GPU; increase --workers")]
    UnusedGpus {
        /// GPUs.
        gpus: u32,
        /// Workers.
        workers: u32,
    },
    /// Fewer visible devices than GPUs.
    #[error("--gpus ({gpus}) exceeds the devices in CUDA_VISIBLE_DEVICES ({visible:?})")]
    HiddenGpus {
        /// GPUs.
        gpus: u32,
        /// Value of the variable.
        visible: String,
    },
    /// The training failed.
    #[error("{0}")]
    Training(String),
    /// A signal.
    #[error("interrupted; run the command again to resume from {}", if *.saved { "the checkpoint that was just written" } else { "the last checkpoint" })]
    Interrupted {
        /// Number of the signal.
        signal: u8,
        /// Whether a checkpoint was written for it.
        saved: bool,
    },
}

/// Runs a manifest; prints progress and the accuracies.
pub fn main(options: &RunArgs) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dat-trainer: {error}");
            match error {
                // As shells report a process that a signal ended.
                RunError::Interrupted { signal, .. } => ExitCode::from(128 + signal),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &RunArgs) -> Result<(), RunError> {
    let manifest = manifest::read(&options.manifest)?;
    let config = config(options, &manifest, Token::random()?);
    check_options(&config, &manifest.spec.training, env::var("CUDA_VISIBLE_DEVICES").ok())?;
    let hash = manifest.spec.training.hash();
    let finished = storage::retry(|| results::read(&config.job_directory(), &config.job_uid, &hash))?;
    if finished.is_some() {
        println!(
            "{} has the results of this training already, so nothing was trained; choose another folder to train again",
            config.job_directory().display()
        );
    } else {
        // All runs have the same attempt. The failure of an earlier one does not end this one.
        VerdictFile::new(&config.job_directory(), &config.job_uid, config.attempt, None).discard()?;
    }
    let board = Arc::new(Board::new(&config.job_uid, &config.pod_uid, config.attempt));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut printer = ProgressPrinter::default();
        let mut ticks = time::interval(Duration::from_millis(500));
        // Before the work begins: a signal in between must not be lost.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (leave, asked_to_leave) = watch::channel(false);
        let work = agent::work(&config, &board, asked_to_leave);
        tokio::pin!(work);
        let mut received: Option<(u8, time::Instant)> = None;
        loop {
            let signal = tokio::select! {
                ending = &mut work => {
                    printer.print(&board.report());
                    if let (Ending::Left { saved }, Some((signal, _))) = (&ending, received) {
                        return Err(RunError::Interrupted { signal, saved: *saved });
                    }
                    let target = manifest.spec.training.evaluation.target.as_ref();
                    return report_outcome(ending, &board.report(), &config, target);
                }
                _ = ticks.tick() => {
                    printer.print(&board.report());
                    continue;
                }
                _ = interrupt.recv() => SIGINT,
                _ = terminate.recv() => SIGTERM,
            };
            match received {
                None => {
                    received = Some((signal, time::Instant::now()));
                    leave.send_replace(true);
                    println!("interrupted      ending; interrupt again to end without a checkpoint");
                }
                // Programs such as `timeout` pass on a signal that the process gets from elsewhere too.
                Some((_, at)) if at.elapsed() < SAME_INTERRUPT => {}
                Some(_) => return Err(RunError::Interrupted { signal, saved: false }),
            }
        }
    });
    // Do not wait for a download that is still running.
    runtime.shutdown_background();
    result
}

/// Rejects options that would have no effect.
fn check_options(config: &Config, training: &Training, visible: Option<String>) -> Result<(), RunError> {
    let used: Vec<NamedFile> = training.files().into_iter().map(|(file, _)| file).collect();
    if let Some(file) = config.files.given.keys().find(|file| !used.contains(file)) {
        return Err(RunError::UnusedFile(*file));
    }
    let Config { gpus, workers, .. } = *config;
    if gpus > workers {
        return Err(RunError::UnusedGpus { gpus, workers });
    }
    match visible.filter(|list| !list.is_empty() && list.split(',').count() < gpus as usize) {
        Some(visible) => Err(RunError::HiddenGpus { gpus, visible }),
        None => Ok(()),
    }
}

fn config(options: &RunArgs, manifest: &Manifest, token: Token) -> Config {
    Config {
        // Without a cluster there is no UID. The name identifies the run in the checkpoint folder.
        job_uid: manifest.name.clone(),
        pod_uid: String::new(),
        address: Ipv4Addr::LOCALHOST.to_string(),
        pod_index: 0,
        replicas: 1,
        workers: options.workers.unwrap_or(options.gpus.max(1)),
        gpus: options.gpus,
        attempt: 1,
        token: Some(token),
        rendezvous_host: Ipv4Addr::LOCALHOST.to_string(),
        rendezvous_port: 0,
        store_bind: Ipv4Addr::LOCALHOST.into(),
        store_port: 0,
        training: TrainingSource::Given(Box::new(manifest.spec.training.clone())),
        data: options.data.clone(),
        downloads: true,
        files: Files {
            mounted: None,
            given: options.named_files(),
            downloaded: options.checkpoints.join("downloaded"),
        },
        checkpoints: options.checkpoints.clone(),
        retries_pods: false,
        max_restarts: Some(manifest.spec.lifecycle.max_restarts),
    }
}

/// Prints the results of a successful run, or returns the failure.
fn report_outcome(
    ending: Ending,
    report: &Report,
    config: &Config,
    target: Option<&Target>,
) -> Result<(), RunError> {
    match ending {
        Ending::Succeeded => {
            if let Some(results) = &report.results {
                TestSummary::from(results).lines().iter().for_each(|line| println!("{line}"));
                print_output_files(&config.job_directory(), results.best_epoch)?;
                if let Some(message) = target.and_then(|target| target.missed(results)) {
                    return Err(RunError::Training(message));
                }
            }
            Ok(())
        }
        Ending::Failed(failure) => Err(RunError::Training(failure_message(&failure))),
        Ending::Left { saved } => Err(RunError::Interrupted { signal: SIGINT, saved }),
        Ending::TooManyFailures { count, limit, last } => {
            let last = last.map_or_else(|| "a worker exited".to_owned(), |last| failure_message(&last));
            let message = limit_exceeded(count, limit, last.trim_end_matches('.')).unwrap_or(last);
            Err(RunError::Training(message))
        }
        Ending::Superseded => Err(RunError::Training("another pod has replaced this one".into())),
    }
}

/// Prints the names of the output files, and why others could not be written.
fn print_output_files(directory: &Path, best_epoch: u32) -> Result<(), RunError> {
    let files: Vec<&str> = outputs::FILES.into_iter().filter(|file| directory.join(file).exists()).collect();
    println!(
        "output files in {}: {}; the best weights are from epoch {best_epoch}",
        directory.display(),
        files.join(", ")
    );
    for error in results::not_written(directory)? {
        println!("warning: {error}");
    }
    Ok(())
}

fn failure_message(failure: &Failure) -> String {
    match failure.rank {
        Some(rank) => format!("rank {rank}: {}", failure.message),
        None => failure.message.clone(),
    }
}

/// How far a download is.
fn preparation_line(state: &PreparationState) -> String {
    let verb = match state.step {
        PreparationStep::Downloading => "downloaded",
        PreparationStep::Unpacking => "unpacked",
    };
    match state.percent() {
        Some(percent) => format!("{verb} {percent} %"),
        None => format!("{verb} {} MiB", state.done >> 20),
    }
}

/// Prints what changed since the last report, one line per change.
#[derive(Debug, Default)]
struct ProgressPrinter {
    /// Epoch and time of the last line of progress.
    progress: Option<(u32, time::Instant)>,
    /// Time of the last line about the preparation of data.
    preparation: Option<time::Instant>,
    /// Epoch of the last printed evaluation.
    evaluated_epoch: u32,
    phase: Option<Phase>,
    failure: Option<String>,
    /// The fault of storage that the training waits for.
    storage: Option<String>,
    /// Number of printed warnings.
    warnings: usize,
}

impl ProgressPrinter {
    /// Minimum time between two lines of progress within an epoch, or of a download.
    const INTERVAL: Duration = Duration::from_secs(10);

    fn print(&mut self, report: &Report) {
        if let Some(failure) = &report.failure
            && self.failure.as_ref() != Some(&failure.message)
        {
            println!("failure          {}", failure_message(failure));
            self.failure = Some(failure.message.clone());
        }
        let storage = report.storage.as_ref().map(|waiting| waiting.trouble.message.clone());
        if storage != self.storage {
            match &storage {
                Some(message) => println!("storage          {message}; waiting until it works again"),
                None => println!("storage          works again"),
            }
            self.storage = storage;
        }
        for warning in report.warnings.iter().skip(self.warnings) {
            println!("warning          {warning}");
        }
        self.warnings = report.warnings.len();
        if let Some(preparation) = &report.preparation
            && self.preparation.is_none_or(|time| time.elapsed() > Self::INTERVAL)
        {
            println!("data             {}", preparation_line(&preparation.state));
            self.preparation = Some(time::Instant::now());
        }
        if let Some(progress) = &report.progress
            && progress.step > 0
            && self
                .progress
                .is_none_or(|(epoch, time)| epoch != progress.epoch || time.elapsed() > Self::INTERVAL)
            && report.phase == Phase::Training
        {
            println!(
                "epoch {:>3}/{:<3}    {:>3} %  loss {:.4}  {:.0} images/s  about {} s left",
                progress.epoch,
                progress.epochs,
                progress.percent,
                progress.loss,
                progress.images_per_second,
                progress.remaining_seconds
            );
            self.progress = Some((progress.epoch, time::Instant::now()));
        }
        if let Some(accuracy) = &report.accuracy
            && self.evaluated_epoch != accuracy.epoch
        {
            let print_line = |label: &str, clean: Count, robust: Count| {
                let attack = &accuracy.robust.attack;
                println!("{label:<16} clean {} %  {attack} {} %", clean.percent(), robust.percent());
            };
            match &accuracy.averaging {
                None => print_line("validation", accuracy.clean, accuracy.robust.count()),
                Some(both) => {
                    print_line("validation", both.raw_clean, both.raw_robust);
                    print_line("  averaged", both.averaged_clean, both.averaged_robust);
                }
            }
            if let Some(sentence) = &accuracy.overfitting {
                println!("{sentence}.");
            }
            self.evaluated_epoch = accuracy.epoch;
        }
        if report.phase == Phase::Evaluating && self.phase != Some(Phase::Evaluating) {
            println!("test set         evaluating the best weights");
        }
        self.phase = Some(report.phase);
    }
}
