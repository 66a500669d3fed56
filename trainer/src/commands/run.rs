//! `dat-trainer run`: the manifest of a DatJob on a workstation.
//!
//! The same agent as in a pod, as the only pod of its job: two folders stand in for what a cluster would mount.

use std::{net::Ipv4Addr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use datjob_api::{
    manifest::{self, Manifest, ManifestError},
    report::{Count, Failure, Phase, Report},
    training::Target,
};
use tokio::time;

use crate::{
    agent::{self, Board, Config, Ending, Files, config::TrainingSource},
    checkpoint::{CheckpointError, results},
    commands::Run,
    outputs::{self, estimates::Measured},
};

/// A manifest that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The results file.
    #[error(transparent)]
    Results(#[from] CheckpointError),
    /// The runtime, or a signal handler.
    #[error("cannot start the async runtime or a signal handler: {0}")]
    Start(#[from] std::io::Error),
    /// The training.
    #[error("{0}")]
    Failed(String),
}

/// Runs a manifest; prints progress and the accuracies.
pub fn main(options: &Run) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dat-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Run) -> Result<(), RunError> {
    let manifest = manifest::read(&options.manifest)?;
    let config = config(options, &manifest);
    let board = Arc::new(Board::new(&config.job_uid, &config.pod_uid, config.attempt));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut printer = Printer::default();
        let mut ticks = time::interval(Duration::from_millis(500));
        let work = agent::work(&config, &board);
        tokio::pin!(work);
        loop {
            tokio::select! {
                ending = &mut work => {
                    printer.print(&board.report());
                    let target = manifest.spec.training.evaluation.target.as_ref();
                    return finish(ending, &board.report(), &config, target);
                }
                _ = ticks.tick() => printer.print(&board.report()),
                result = tokio::signal::ctrl_c() => {
                    result?;
                    return Err(RunError::Failed("interrupted; run the command again to resume from the last checkpoint".into()));
                }
            }
        }
    });
    // A download under way is not waited for.
    runtime.shutdown_background();
    ended
}

fn config(options: &Run, manifest: &Manifest) -> Config {
    Config {
        // There is no cluster that gives a UID; the name is what tells one run from another in the folder.
        job_uid: manifest.metadata.name.clone(),
        pod_uid: String::new(),
        address: Ipv4Addr::LOCALHOST.to_string(),
        pod_index: 0,
        replicas: 1,
        workers: options.workers.unwrap_or(options.gpus.max(1)),
        gpus: options.gpus,
        attempt: 1,
        rendezvous_host: Ipv4Addr::LOCALHOST.to_string(),
        rendezvous_port: 0,
        store_bind: Ipv4Addr::LOCALHOST.into(),
        store_port: 0,
        training: TrainingSource::Given(Box::new(manifest.spec.training.clone())),
        data: options.data.clone(),
        downloads: true,
        files: Files {
            mounted: None,
            given: options.files(),
            downloaded: options.checkpoints.join("downloaded"),
        },
        checkpoints: options.checkpoints.clone(),
        max_restarts: Some(manifest.spec.lifecycle.max_restarts),
    }
}

fn finish(ending: Ending, report: &Report, config: &Config, target: Option<&Target>) -> Result<(), RunError> {
    match ending {
        Ending::Succeeded => {
            if let Some(results) = &report.results {
                Measured::from(results).lines().iter().for_each(|line| println!("{line}"));
                tell_files(&config.job_directory(), results.best_epoch)?;
                if let Some(sentence) = target.and_then(|target| target.missed(results)) {
                    return Err(RunError::Failed(sentence));
                }
            }
            Ok(())
        }
        Ending::Failed(failure) => Err(RunError::Failed(sentence(&failure))),
        Ending::TooManyRestarts(failure) => {
            let last =
                failure.map_or_else(String::new, |failure| format!("; last failure: {}", sentence(&failure)));
            Err(RunError::Failed(format!("more restarts than spec.lifecycle.maxRestarts allows{last}")))
        }
    }
}

/// Names the files that are there, and says why others are not.
fn tell_files(directory: &Path, best_epoch: u32) -> Result<(), RunError> {
    let there: Vec<&str> = outputs::FILES.into_iter().filter(|file| directory.join(file).exists()).collect();
    println!(
        "output files in {}: {}; the best weights are from epoch {best_epoch}",
        directory.display(),
        there.join(", ")
    );
    for sentence in results::not_written(directory)? {
        println!("warning: {sentence}");
    }
    Ok(())
}

fn sentence(failure: &Failure) -> String {
    match failure.rank {
        Some(rank) => format!("rank {rank}: {}", failure.message),
        None => failure.message.clone(),
    }
}

/// Prints what is new in a report, a line each.
#[derive(Debug, Default)]
struct Printer {
    progress: Option<(u32, time::Instant)>,
    evaluated: u32,
    phase: Option<Phase>,
    failure: Option<String>,
}

impl Printer {
    /// Least time between two lines of progress within an epoch.
    const INTERVAL: Duration = Duration::from_secs(10);

    fn print(&mut self, report: &Report) {
        if let Some(failure) = &report.failure
            && self.failure.as_ref() != Some(&failure.message)
        {
            println!("failure          {}", sentence(failure));
            self.failure = Some(failure.message.clone());
        }
        if let Some(progress) = &report.progress
            && progress.step > 0
            && self
                .progress
                .is_none_or(|(epoch, at)| epoch != progress.epoch || at.elapsed() > Self::INTERVAL)
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
            && self.evaluated != accuracy.epoch
        {
            let line = |what: &str, clean: Count, robust: Count| {
                let attack = &accuracy.robust.attack;
                println!("{what:<16} clean {} %  {attack} {} %", clean.percent(), robust.percent());
            };
            match &accuracy.averaging {
                None => line("validation", accuracy.clean, accuracy.robust.count()),
                Some(both) => {
                    line("validation", both.raw_clean, both.raw_robust);
                    line("  averaged", both.averaged_clean, both.averaged_robust);
                }
            }
            if let Some(sentence) = &accuracy.overfitting {
                println!("{sentence}.");
            }
            self.evaluated = accuracy.epoch;
        }
        if report.phase == Phase::Evaluating && self.phase != Some(Phase::Evaluating) {
            println!("test set         evaluating the best weights");
        }
        self.phase = Some(report.phase);
    }
}
