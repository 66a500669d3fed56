//! The command line of `dat-trainer`. Each command has a submodule.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Parser, Subcommand};
use datjob_api::training::{FinalAttack, NamedFile};

pub mod agent;
pub mod checkpoints;
pub mod evaluate;
pub mod run;
pub mod worker;

/// Distributed adversarial training.
#[derive(Debug, Parser)]
#[command(name = "dat-trainer", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train and evaluate the network of a DatJob manifest on this machine.
    Run(RunArgs),
    /// Measure the clean and robust accuracy of weights on the test set, under the final attacks of a DatJob manifest.
    Evaluate(EvaluateArgs),
    /// List the checkpoints and results of the jobs on a checkpoint volume, and verify their files; changes nothing.
    Checkpoints(CheckpointsArgs),
    /// Run as process 1 of a trainer pod, configured by environment variables that the operator sets.
    Agent,
    /// Run one rank; started by an agent.
    #[command(hide = true)]
    Worker,
}

/// Arguments of `dat-trainer run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// DatJob manifest, the same file as for kubectl apply.
    pub manifest: PathBuf,
    /// Number of worker processes, which share every batch; default: one per GPU, or 1 without GPUs.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// Number of GPUs to train on, starting with the first visible CUDA device; 0 trains on the CPU.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub gpus: u32,
    /// Folder with the files of the data set; an HTTP or object store source is downloaded into it.
    #[arg(long)]
    pub data: PathBuf,
    /// File with the initial weights; replaces `model.initialWeights.source`, which the manifest must set.
    #[arg(long, value_name = "FILE")]
    pub initial_weights: Option<PathBuf>,
    /// File with the additional images; replaces `data.additional.source`, which the manifest must set.
    #[arg(long, value_name = "FILE")]
    pub additional_images: Option<PathBuf>,
    /// File with the weights of the teacher network; replaces `data.additional.labels.teacher.weights`, which the manifest
    /// must set.
    #[arg(long, value_name = "FILE")]
    pub teacher_weights: Option<PathBuf>,
    /// Folder for checkpoints, weights, results and the report; a run resumes from the checkpoints in it.
    #[arg(long)]
    pub checkpoints: PathBuf,
}

impl RunArgs {
    /// Paths of the files that replace sources in the manifest.
    pub fn named_files(&self) -> BTreeMap<NamedFile, PathBuf> {
        let files = [
            (NamedFile::InitialWeights, &self.initial_weights),
            (NamedFile::AdditionalImages, &self.additional_images),
            (NamedFile::TeacherWeights, &self.teacher_weights),
        ];
        files.into_iter().filter_map(|(file, path)| Some((file, path.clone()?))).collect()
    }
}

impl EvaluateArgs {
    /// The folder with the state of an interrupted evaluation.
    pub fn state_folder(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.weights.with_added_extension("evaluation"))
    }
}

/// Arguments of `dat-trainer evaluate`.
#[derive(Debug, clap::Args)]
pub struct EvaluateArgs {
    /// Weights to evaluate: a safetensors file (`best.safetensors` of a run) or a state dict written by torch.save.
    pub weights: PathBuf,
    /// DatJob manifest with the network, data set, threat model and attacks (`evaluation.final`).
    #[arg(long)]
    pub manifest: PathBuf,
    /// Folder with the files of the data set.
    #[arg(long)]
    pub data: PathBuf,
    /// Attack to run instead of those in the manifest (autoattack, pgd-50-10, apgd-ce, …), without its sweep and
    /// certification; repeatable. An attack of this name in the manifest keeps its step size.
    #[arg(long = "attack")]
    pub attacks: Vec<FinalAttack>,
    /// Number of test images to evaluate; default: all. Takes the first images of a standard data set, and evenly
    /// spaced ones of image-folder and webdataset.
    #[arg(long)]
    pub images: Option<usize>,
    /// Write the predicted class of each clean image to this file, one per line.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Folder with the state of an interrupted evaluation, which the same command continues; removed at the end; default:
    /// WEIGHTS.evaluation.
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Compute on the first visible CUDA device.
    #[arg(long)]
    pub gpu: bool,
}

/// Arguments of `dat-trainer checkpoints`.
#[derive(Debug, clap::Args)]
pub struct CheckpointsArgs {
    /// Checkpoint volume, which has a directory for each job, or the directory of one job.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
