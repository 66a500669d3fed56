//! Jobs without a fault, whose outcomes are those of jobs with one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    job::Job,
    outcome::{Outcome, seconds_per_epoch},
    run,
};

/// Number of pods of a job.
pub(crate) const PODS: u32 = 4;
/// Number of epochs of a job whose fault strikes at once.
pub(crate) const SHORT: u32 = 2;

/// Steps of an epoch: 3,800 images, at most 16 in each step.
const STEPS: u64 = 238;
/// Number of epochs at which [`epochs_lasting`] ends.
const MOST_EPOCHS: u32 = 100;

/// The manifest of a job of four pods, with small steps and frequent checkpoints.
pub(crate) fn manifest(epochs: u32) -> Value {
    let mut manifest = run::manifest();
    manifest["spec"]["replicas"] = PODS.into();
    let training = &mut manifest["spec"]["training"];
    training["data"]["imageSize"] = 16.into();
    training["optimizer"] = json!({"sgd": {"learningRate": 0.01}});
    training["schedule"] = json!({"epochs": epochs, "batchSize": 16});
    training["checkpoint"] = json!({"everySeconds": 2});
    manifest
}

/// A job without a fault.
#[derive(Debug)]
pub(crate) struct Undisturbed {
    /// What it left.
    pub(crate) outcome: Outcome,
    /// Time from the start of the pods until the first steps.
    pub(crate) startup: Duration,
    /// Time of an epoch without its evaluation.
    seconds_per_epoch: f64,
}

impl Undisturbed {
    fn run(epochs: u32) -> Self {
        let started = Instant::now();
        let mut job = Job::start(&manifest(epochs));
        let first = job.wait_for_training();
        let startup = started.elapsed();
        let outcome = job.finish();
        let expected: Vec<_> = (1..=u64::from(epochs)).map(|epoch| (epoch, STEPS * epoch)).collect();
        assert_eq!(outcome.steps(), expected);
        assert_eq!((first.generation, first.world_size), (1, PODS));
        Self { outcome, startup, seconds_per_epoch: seconds_per_epoch(&job.file("")) }
    }
}

/// The job of `epochs` epochs. It runs once in this process.
pub(crate) fn undisturbed(epochs: u32) -> &'static Undisturbed {
    type Cell = OnceLock<Undisturbed>;
    static JOBS: Mutex<BTreeMap<u32, &'static Cell>> = Mutex::new(BTreeMap::new());
    let new = || -> &'static Cell { Box::leak(Box::<Cell>::default()) };
    let job: &'static Cell =
        JOBS.lock().unwrap_or_else(PoisonError::into_inner).entry(epochs).or_insert_with(new);
    // The map is not locked meanwhile.
    job.get_or_init(|| Undisturbed::run(epochs))
}

/// A number of epochs that are trained for at least this time on this machine.
pub(crate) fn epochs_lasting(time: Duration) -> u32 {
    let epochs = (time.as_secs_f64() / undisturbed(SHORT).seconds_per_epoch).ceil() as u32;
    epochs.clamp(SHORT, MOST_EPOCHS)
}
