//! The end of a training: the best weights on the test set, once.

use std::{path::Path, time::Instant};

use datjob_api::report::{CertifiedCount, Results};
use tch::{Device, Tensor};

use super::{Rank, TrainError, accuracy, world};
use crate::{
    checkpoint::{
        LAST_FILE,
        results::{Accuracies, Document, LastWeights, Time},
    },
    worker_protocol::{Assignment, Part},
};
use datjob_adversarial::{
    certify::{Certification, CertificationImages},
    evaluate::{Counts, EvalAttack, Evaluation},
    state_dict::StateDict,
    test_protocol::{self, TestMeasurements},
};

impl Rank<'_> {
    /// The best weights on the test set, and the results, which rank 0 makes durable.
    pub(super) fn finish(&mut self, assignment: &Assignment) -> Result<(), TrainError> {
        let last = self.last_weights();
        if self.is_first()
            && let Some(best) = &self.state.best
        {
            let weights = self.checkpoints.load_best(best, self.state.epoch)?;
            self.state.network.load_state(weights)?;
        }
        self.state.broadcast(&self.group)?;

        let devices = world::device_names(&self.evaluation, &self.placement.name())?;
        let begin = Instant::now();
        let test = test_protocol::run_test_protocol(self.training, self.data.classes, self)?;
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
        Ok(())
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

/// Over all ranks, which share the images.
impl TestMeasurements for Rank<'_> {
    type Error = TrainError;

    fn accuracy(&mut self, attacks: &[EvalAttack]) -> Result<Counts, TrainError> {
        let images: Vec<usize> = (0..self.data.test.len()).collect();
        let evaluation = Evaluation {
            images: &self.data.test,
            indices: &images,
            classes: self.data.classes,
            seed: self.training.seed,
            attacks,
            device: self.placement.device(),
        };
        let mut progress = accuracy::reporter(self.group.rank() == 0, Part::TestSet, &mut *self.tell);
        accuracy::measure(&self.state.network, &evaluation, &self.evaluation, &mut progress)
    }

    fn certified(
        &mut self,
        certification: &Certification,
        images: usize,
    ) -> Result<Vec<CertifiedCount>, TrainError> {
        let images =
            CertificationImages { images: &self.data.test, count: images, device: self.placement.device() };
        let (network, seed) = (&self.state.network, self.training.seed);
        let mut progress = accuracy::reporter(self.group.rank() == 0, Part::Certification, &mut *self.tell);
        accuracy::certify(network, certification, images, seed, &self.evaluation, &mut progress)
    }
}
