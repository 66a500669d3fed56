//! The end of a training: the best weights on the test set, once.

use std::{path::Path, time::Instant};

use datjob_api::report::{CertifiedCount, EvaluationPart, Results};
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::{Rank, TrainError, accuracy, world};
use crate::{
    checkpoint::{
        LAST_FILE,
        results::{Accuracies, Document, LastWeights, Time},
    },
    kept_units::{self, KeptUnits, UnitsKey},
    worker_protocol::Assignment,
};
use datjob_adversarial::{
    certify::{Certification, CertificationImages},
    evaluate::{Counts, EvalAttack, Evaluation},
    state_dict::{self, StateDict},
    test_protocol::{self, TestMeasurements},
};

impl Rank<'_> {
    /// The best weights on the test set, and the results, which rank 0 makes durable.
    pub(super) fn finish(&mut self, assignment: &Assignment) -> Result<(), TrainError> {
        self.finish_checkpoints()?;
        let last = self.last_weights();
        if self.is_first()
            && let Some(best) = &self.state.best
        {
            let weights = self.checkpoints.load_best(best)?;
            self.state.network.load_state(weights)?;
        }
        self.state.broadcast(&self.group)?;

        let devices = world::device_names(&self.evaluation, &self.placement.name())?;
        let begin = Instant::now();
        let units = self.kept_units(assignment)?;
        let (training, classes) = (self.training, self.data.classes);
        let mut measurements = TestSetMeasurements { rank: &mut *self, units };
        let test = test_protocol::run_test_protocol(training, classes, &mut measurements)?;
        let units = measurements.units;
        if units.count() > 0 {
            tracing::info!(
                known = units.count(),
                used = units.used(),
                "Continued an interrupted evaluation."
            );
        }
        if !self.is_first() {
            return Ok(());
        }
        let (file, sha256) = self.checkpoints.save_result(&self.state.network.state(), &self.card())?;
        let results = Results {
            best_epoch: self.state.best.as_ref().map_or(self.state.epoch, |best| best.epoch),
            averaged: self.state.best.as_ref().is_some_and(|best| best.averaged),
            clean: test.clean,
            attacks: test.attacks,
            worst_case: test.worst_case,
            sweep: test.sweep,
            certified: test.certified,
            by_class: Some(test.by_class),
            weights: assignment.checkpoints_below_volume.join(file).to_string_lossy().into_owned(),
            sha256,
            seed: self.training.seed,
            training_hash: self.training.hash(),
            trainer_version: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch_version: crate::LIBTORCH_VERSION.to_owned(),
            world_size: assignment.world_size,
            threads: assignment.threads,
            devices,
        };
        // After the best ones, which come first where the volume is nearly full.
        let last = self.write_last(&last, &assignment.checkpoints_below_volume);
        let trained_on = self.card();
        if let Some(outputs) = &mut self.outputs {
            outputs.finish(Document {
                job_uid: assignment.job_uid.clone(),
                accuracies: Accuracies::from(&results),
                results,
                last,
                trained_on,
                time: Time::of(outputs.history(), begin.elapsed(), self.placement.peak_memory()?),
                training: self.training.clone(),
                contents: self.data.contents(),
                not_written: Vec::new(),
            })?;
        }
        units.remove();
        Ok(())
    }

    /// The results of units that an interrupted evaluation of the same weights on the same kind of device left on the volume.
    fn kept_units(&self, assignment: &Assignment) -> Result<KeptUnits, TrainError> {
        let weights = state_dict::encode(&self.state.network.state(), None)?;
        let key = UnitsKey {
            weights: &hex::encode(Sha256::digest(weights)),
            training: &self.training.hash(),
            folder: &assignment.data,
            data: &self.fingerprint,
            images: self.data.test.len(),
            device: &self.placement.name(),
            threads: assignment.threads as usize,
        };
        Ok(KeptUnits::open(&assignment.checkpoints.join(kept_units::FOLDER), &key))
    }

    /// The weights after the last epoch, on rank 0: the averaged ones where the spec averages, as they are what such a
    /// training is for.
    fn last_weights(&self) -> StateDict {
        if !self.is_first() {
            return StateDict::new();
        }
        let average = self.state.average.as_ref();
        let network = average.map_or(&self.state.network, |average| &average.network);
        let copy = |(name, tensor): (String, Tensor)| (name, tensor.detach().to_device(Device::Cpu).copy());
        network.state().into_iter().map(copy).collect()
    }

    /// Writes them; the best weights are good without.
    fn write_last(&mut self, weights: &StateDict, below_volume: &Path) -> Option<LastWeights> {
        let written = self.checkpoints.save_last(weights, &self.card());
        self.outputs.as_mut()?.record_write(LAST_FILE, written.as_ref().map(|_| ()));
        let (file, sha256) = written.ok()?;
        Some(LastWeights {
            epoch: self.state.epoch,
            averaged: self.state.average.is_some(),
            weights: below_volume.join(file).to_string_lossy().into_owned(),
            sha256,
        })
    }
}

/// Measurements over all ranks, which share the images.
struct TestSetMeasurements<'r, 'a> {
    rank: &'r mut Rank<'a>,
    units: KeptUnits,
}

impl TestMeasurements for TestSetMeasurements<'_, '_> {
    type Error = TrainError;

    fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, TrainError> {
        self.units.begin_evaluation();
        let rank = &mut *self.rank;
        let images: Vec<usize> = (0..rank.data.test.len()).collect();
        let evaluation = Evaluation {
            images: &rank.data.test,
            indices: &images,
            classes: rank.data.classes,
            seed: rank.training.seed,
            attacks,
            device: rank.placement.device(),
        };
        let (network, group) = (&rank.state.network, &rank.evaluation);
        accuracy::measure(network, &evaluation, group, &mut self.units, EvaluationPart::Test, &mut *rank.tell)
    }

    fn certified(
        &mut self,
        certification: &Certification,
        images: usize,
    ) -> Result<Vec<CertifiedCount>, TrainError> {
        let rank = &mut *self.rank;
        let images =
            CertificationImages { images: &rank.data.test, count: images, device: rank.placement.device() };
        let (network, seed) = (&rank.state.network, rank.training.seed);
        let units = &mut self.units;
        accuracy::certify(network, certification, images, seed, &rank.evaluation, units, &mut *rank.tell)
    }
}
