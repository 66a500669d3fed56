//! The command line, and a file for each command.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Parser, Subcommand};
use datjob_api::training::{FinalAttack, NamedFile};

pub mod agent;
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
    /// Train and evaluate on this machine what a DatJob manifest describes.
    Run(Run),
    /// Measure clean and robust accuracy of weights on a test set, by the final attacks of a DatJob manifest.
    Evaluate(Evaluate),
    /// Process 1 of a trainer pod; takes everything from the environment that the operator gives.
    Agent,
    /// One rank; started by an agent.
    #[command(hide = true)]
    Worker,
}

/// `dat-trainer run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A DatJob manifest, as for kubectl apply.
    pub manifest: PathBuf,
    /// Worker processes, among which the batch of the manifest is divided; where absent one for each GPU, or 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// GPUs to train on, the first of those that CUDA sees; 0 trains on the CPU.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub gpus: u32,
    /// Folder of the data set's files; an HTTP or object store source is fetched into it.
    #[arg(long)]
    pub data: PathBuf,
    /// File of the weights to begin with, in the place of the source of `model.initialWeights`.
    #[arg(long, value_name = "FILE")]
    pub initial_weights: Option<PathBuf>,
    /// File of the images beside the data set's, in the place of the source of `data.additional`.
    #[arg(long, value_name = "FILE")]
    pub additional_images: Option<PathBuf>,
    /// File of the weights of the network that labels them, in the place of those of `data.additional.labels.teacher`.
    #[arg(long, value_name = "FILE")]
    pub teacher_weights: Option<PathBuf>,
    /// Folder for checkpoints, weights, results and the report; a run goes on from what it finds there.
    #[arg(long)]
    pub checkpoints: PathBuf,
}

impl Run {
    /// The files that were given.
    pub fn files(&self) -> BTreeMap<NamedFile, PathBuf> {
        let given = [
            (NamedFile::InitialWeights, &self.initial_weights),
            (NamedFile::AdditionalImages, &self.additional_images),
            (NamedFile::TeacherWeights, &self.teacher_weights),
        ];
        given.into_iter().filter_map(|(file, path)| Some((file, path.clone()?))).collect()
    }
}

/// `dat-trainer evaluate`.
#[derive(Debug, clap::Args)]
pub struct Evaluate {
    /// The weights: a safetensors file, as `best.safetensors` of a run, or a state dict that torch.save wrote.
    pub weights: PathBuf,
    /// The manifest that names network, data set, threat model and the attacks (`evaluation.final`).
    #[arg(long)]
    pub manifest: PathBuf,
    /// Folder of the data set's files.
    #[arg(long)]
    pub data: PathBuf,
    /// An attack by its name (autoattack, pgd-50-10, apgd-ce, …) instead of those of the manifest; may be repeated.
    #[arg(long = "attack")]
    pub attacks: Vec<FinalAttack>,
    /// So many test images, all where absent: the first of a standard data set, of image-folder and webdataset some
    /// of every part.
    #[arg(long)]
    pub images: Option<usize>,
    /// Writes the class that the network gives each image as it is, a line each, to this file.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Compute on the first GPU that CUDA sees.
    #[arg(long)]
    pub gpu: bool,
}
