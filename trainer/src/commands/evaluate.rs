//! `dat-trainer evaluate`: measures the accuracy of a file of weights on a workstation.

use std::{
    fmt::Write as _,
    fs,
    num::NonZero,
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use datjob_api::{
    report::{CertifiedCount, EvaluationPart},
    training::{Communication, FinalAttack, InvalidTraining, Topology},
};
use datjob_c10d::{C10dError, CudaError, libtorch_message};
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::{
    agent::progress_log::{eta, remaining_evaluation},
    commands::EvaluateArgs,
    kept_units::{KeptUnits, UnitsKey},
    outputs::estimates::TestSummary,
    placement::Placement,
    worker_protocol::EvaluationState,
};
use datjob_adversarial::{
    certify::{self, Certification, CertificationImages},
    evaluate::{self, Counts, EvalAttack, EvaluateError, Evaluation, Work},
    model::{ModelError, Network},
    shard::Shard,
    state_dict::{self, ReadError, StateDictError},
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
    #[error(transparent)]
    StateDict(#[from] StateDictError),
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
    let (dataset, contents, fingerprint) = (training.data.dataset, data.contents(), data.fingerprint());
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
    let key = UnitsKey {
        weights: &hex::encode(Sha256::digest(state_dict::encode(&network.state(), None)?)),
        training: &training.hash(),
        folder: &fs::canonicalize(&options.data).unwrap_or_else(|_| options.data.clone()),
        data: &fingerprint,
        images: count,
        device: &placement.name(),
        threads: usize::try_from(tch::get_num_threads()).unwrap_or_default(),
    };
    let state = options.state_folder();
    let units = KeptUnits::open(&state, &key);
    if units.count() > 0 {
        eprintln!("continuing the interrupted evaluation in {}", state.display());
    }
    let mut measurements = LocalMeasurements {
        network: &network,
        images: &images,
        indices: &indices,
        classes,
        seed: training.seed,
        placement,
        units,
        printer: ProgressPrinter::default(),
    };
    let results = test_protocol::run_test_protocol(&training, classes, &mut measurements)?;
    let units = measurements.units;
    if units.used() > 0 {
        eprintln!("used {} results of the interrupted evaluation", units.used());
    }
    units.remove();
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
    units: KeptUnits,
    printer: ProgressPrinter,
}

impl TestMeasurements for LocalMeasurements<'_> {
    type Error = EvaluateError;

    fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, EvaluateError> {
        let Self { images, indices, classes, seed, .. } = *self;
        let device = self.placement.device();
        let evaluation = Evaluation { images, indices, classes, seed, attacks, device };
        self.units.begin_evaluation();
        self.printer.begin();
        let Self { units, printer, .. } = self;
        evaluate::evaluate(self.network, &evaluation, Shard::WHOLE, units, &mut |progress| {
            printer.print(&EvaluationState::new(EvaluationPart::Test, progress));
            ControlFlow::Continue(())
        })
    }

    fn certified(
        &mut self,
        certification: &Certification,
        images: usize,
    ) -> Result<Vec<CertifiedCount>, EvaluateError> {
        let images =
            CertificationImages { images: self.images, count: images, device: self.placement.device() };
        self.printer.begin();
        let Self { printer, units, .. } = self;
        let mut progress = |work: Work| printer.print(&EvaluationState::certification(work));
        let counts = certify::count_certified(
            self.network,
            certification,
            images,
            self.seed,
            Shard::WHOLE,
            units,
            &mut progress,
        )?;
        Ok(certify::certified_counts(&counts))
    }
}

/// Prints the progress of an evaluation to standard error.
#[derive(Debug, Default)]
struct ProgressPrinter {
    began: Option<Instant>,
    last_line: Option<Instant>,
}

impl ProgressPrinter {
    /// Time between two lines.
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Another evaluation begins; its first line is due at once.
    fn begin(&mut self) {
        *self = Self::default();
    }

    fn print(&mut self, state: &EvaluationState) {
        if state.work.known.is_none() {
            // Known results take no time.
            self.began = None;
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        if self.last_line.is_none_or(|last| last.elapsed() >= Self::INTERVAL) {
            eprintln!("{}", progress_line(state, began.elapsed()));
            self.last_line = Some(Instant::now());
        }
    }
}

fn progress_line(state: &EvaluationState, elapsed: Duration) -> String {
    let EvaluationState { part, attack, iteration, iterations, done, total, .. } = state;
    let mut line = format!("{:<16} {done} of {total} images", part.name());
    if let Some(percent) = state.robust_percent() {
        // Writing to a String cannot fail.
        let _ = write!(line, ", {percent} % of them robust");
    }
    if let Some(left) = remaining_evaluation(state, elapsed) {
        let _ = write!(line, ", about {} left", eta(Some(left)));
    }
    if !attack.is_empty() {
        let _ = write!(line, "; running {attack}");
    }
    if *iteration > 0 {
        let _ = write!(line, ", iteration {iteration} of {iterations}");
    }
    line
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
    fn the_progress_names_what_is_done_and_left() {
        let state = |attack: &str, done, robust| EvaluationState {
            part: EvaluationPart::Test,
            attack: attack.to_owned(),
            robust,
            ..EvaluationState::certification(Work { done, total: 1000, known: Some(0) })
        };
        let seconds = Duration::from_secs;
        assert_eq!(
            progress_line(&state("autoattack (apgd-t)", 250, Some(103)), seconds(240)),
            "test set         250 of 1000 images, 41.20 % of them robust, about 12m00s left; running autoattack (apgd-t)"
        );
        assert_eq!(
            progress_line(&state("pgd-20", 0, Some(0)), seconds(10)),
            "test set         0 of 1000 images; running pgd-20"
        );
        // A test set that is one batch.
        let work = Work { done: 250, total: 1000, known: Some(0) };
        let within = EvaluationState { iteration: 5, iterations: 20, work, ..state("pgd-20", 0, Some(0)) };
        assert_eq!(
            progress_line(&within, seconds(10)),
            "test set         0 of 1000 images, about 30s left; running pgd-20, iteration 5 of 20"
        );
        assert_eq!(
            progress_line(&state("", 500, None), seconds(10)),
            "test set         500 of 1000 images, about 10s left"
        );
    }

    #[test]
    fn selected_attacks_keep_the_options_of_the_manifest() {
        let attack = |value: serde_json::Value| serde_json::from_value::<FinalAttack>(value).unwrap();
        let of_manifest = attack(serde_json::json!({"pgd": {"steps": 20, "stepSize": "1/255"}}));
        let selected: Vec<FinalAttack> = ["pgd-20", "pgd-50"].map(|name| name.parse().unwrap()).into();
        let result = with_manifest_options(&selected, std::slice::from_ref(&of_manifest));
        assert_eq!(result, [of_manifest, selected[1].clone()]);
    }
}
