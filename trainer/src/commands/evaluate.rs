//! `dat-trainer evaluate`: measures the accuracy of a file of weights on a workstation.

use std::{
    fmt::Write as _, num::NonZero, ops::ControlFlow, path::Path, process::ExitCode, thread, time::Instant,
};

use datjob_api::{
    report::CertifiedCount,
    training::{Communication, FinalAttack, InvalidTraining, Topology},
};
use datjob_c10d::{C10dError, CudaError, libtorch_message};
use tch::Kind;

use crate::{commands::EvaluateArgs, outputs::estimates::TestSummary, placement::Placement};
use datjob_adversarial::{
    certify::{self, Certification, CertificationImages},
    evaluate::{self, Counts, EvalAttack, EvaluateError, Evaluation},
    model::{ModelError, Network},
    shard::Shard,
    state_dict::{self, ReadError},
    test_protocol::{self, TestMeasurements},
};
use datjob_api::manifest::{self, ManifestError};
use datjob_data::{
    DataError, Images,
    files::{self, FileError},
};

/// Why weights cannot be evaluated.
#[derive(Debug, thiserror::Error)]
enum EvaluateCommandError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Training(#[from] InvalidTraining),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Weights(#[from] ReadError),
    #[error("cannot load the weights into the manifest's network: {0}; check spec.training.model")]
    Model(#[from] ModelError),
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error(transparent)]
    MemoryFormat(#[from] C10dError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error("{}", libtorch_message(.0))]
    Tensor(#[from] tch::TchError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("--images: out of range: must be between 1 and {0}, the number of test images")]
    ImageCount(usize),
}

/// Evaluates weights and prints the accuracies.
pub fn main(options: &EvaluateArgs) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dat-trainer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &EvaluateArgs) -> Result<(), EvaluateCommandError> {
    let mut training = manifest::read(&options.manifest)?.spec.training;
    if !options.attacks.is_empty() {
        training.evaluation.final_ = with_manifest_options(&options.attacks, &training.evaluation.final_);
        // `--attack` selects everything that runs. A target could require an attack that does not run.
        training.evaluation.target = None;
        training.evaluation.certify = None;
        training.evaluation.sweep = None;
    }
    // A single process does not communicate, and the settings in the manifest may require GPUs.
    training.communication = Communication::default();
    training.check(Topology { pods: 1, workers: 1, gpus: u32::from(options.gpu) })?;
    let placement = if options.gpu { Placement::cuda()? } else { Placement::Cpu };
    let (weights, _) = state_dict::read(&options.weights)?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let data = datjob_data::load(&training.data, &options.data, cores)?;
    training.check_contents(&data.contents(), 1)?;
    if let Some(warning) = &data.warning {
        eprintln!("warning: {warning}");
    }
    let (dataset, contents) = (training.data.dataset, data.contents());
    let mut network = Network::for_dataset(
        &training.model,
        dataset,
        &contents,
        training.seed,
        (Kind::Float, placement.device()),
    )?;
    network.load_state(weights)?;
    network.channels_last()?;
    let (images, classes) = (data.test, data.classes);
    let count = options.images.unwrap_or(images.len());
    if !(1..=images.len()).contains(&count) {
        return Err(EvaluateCommandError::ImageCount(images.len()));
    }
    // Image folders and shards are often sorted by class. Evenly spaced images cover all classes.
    let index = |number: usize| if images.is_encoded() { number * images.len() / count } else { number };
    let indices: Vec<usize> = (0..count).map(index).collect();
    if let Some(path) = &options.predictions {
        write_predictions(path, &network, &images, &indices, placement)?;
    }
    let started = Instant::now();
    let mut measurements = LocalMeasurements {
        network: &network,
        images: &images,
        indices: &indices,
        classes,
        seed: training.seed,
        placement,
    };
    let results = test_protocol::run_test_protocol(&training, classes, &mut measurements)?;
    TestSummary::from(&results).lines().iter().for_each(|line| println!("{line}"));
    println!("evaluation took {:.0} s on {}", started.elapsed().as_secs_f64(), placement.name());
    Ok(())
}

/// The selected attacks, each with the options that the manifest gives it.
fn with_manifest_options(selected: &[FinalAttack], manifest: &[FinalAttack]) -> Vec<FinalAttack> {
    let of_manifest = |attack: &FinalAttack| manifest.iter().find(|other| other.name() == attack.name());
    selected.iter().map(|attack| of_manifest(attack).unwrap_or(attack).clone()).collect()
}

/// Measures accuracies in this process, without other ranks.
struct LocalMeasurements<'a> {
    network: &'a Network,
    images: &'a Images,
    /// Indices of the test images to evaluate.
    indices: &'a [usize],
    classes: i64,
    seed: u64,
    placement: Placement,
}

impl TestMeasurements for LocalMeasurements<'_> {
    type Error = EvaluateError;

    fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, EvaluateError> {
        let Self { images, indices, classes, seed, .. } = *self;
        let device = self.placement.device();
        let evaluation = Evaluation { images, indices, classes, seed, attacks, device };
        evaluate::evaluate(self.network, &evaluation, Shard::WHOLE, &mut |_, _| ControlFlow::Continue(()))
    }

    fn certified(
        &mut self,
        certification: &Certification,
        images: usize,
    ) -> Result<Vec<CertifiedCount>, EvaluateError> {
        let images =
            CertificationImages { images: self.images, count: images, device: self.placement.device() };
        let counts = certify::count_certified(
            self.network,
            certification,
            images,
            self.seed,
            Shard::WHOLE,
            &mut |_, _| {},
        )?;
        Ok(certify::certified_counts(&counts))
    }
}

fn write_predictions(
    path: &Path,
    network: &Network,
    images: &Images,
    indices: &[usize],
    placement: Placement,
) -> Result<(), EvaluateCommandError> {
    /// Number of images per forward pass.
    const BATCH: usize = 256;
    let mut lines = String::new();
    for class in evaluate::predict(network, images, indices, BATCH, placement.device())? {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{class}");
    }
    Ok(files::write_atomically(path, lines.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selected_attacks_keep_the_options_of_the_manifest() {
        let attack = |value: serde_json::Value| serde_json::from_value::<FinalAttack>(value).unwrap();
        let of_manifest = attack(serde_json::json!({"pgd": {"steps": 20, "stepSize": "1/255"}}));
        let selected: Vec<FinalAttack> = ["pgd-20", "pgd-50"].map(|name| name.parse().unwrap()).into();
        let result = with_manifest_options(&selected, std::slice::from_ref(&of_manifest));
        assert_eq!(result, [of_manifest, selected[1].clone()]);
    }
}
