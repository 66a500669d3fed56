//! Accuracy on the validation split, which alone chooses the weights.

use std::time::Instant;

use datjob_api::{
    Training,
    report::{Accuracy, AttackCount, EvaluationPart},
};

use super::{Rank, TrainError, accuracy, overfitting};
use crate::{
    checkpoint::{Best, OverfittingReference},
    worker_protocol::Event,
};
use datjob_adversarial::evaluate::{Counts, EvalAttack, Evaluation, NoUnitResults};
use datjob_data::weights::WeightsCard;

impl Rank<'_> {
    /// Measures; keeps the weights where they are the best so far, and goes back to the best where the spec wants that.
    /// Returns whether it went back.
    pub(super) fn validate(&mut self) -> Result<bool, TrainError> {
        let begin = Instant::now();
        let attack =
            EvalAttack::for_validation(&self.training.evaluation.during, &self.training.threat_model);
        let attacks: Vec<EvalAttack> = std::iter::once(attack)
            .chain(overfitting::single_step(self.training, self.state.step_scale))
            .collect();
        let raw = self.measure(false, &attacks)?;
        let averaged = match self.state.average {
            Some(_) => Some(self.measure(true, &attacks)?),
            None => None,
        };
        let name = attacks.first().map_or("", |attack| &attack.name);
        let mut accuracy = accuracy::on_validation(&raw, averaged.as_ref(), name, self.state.epoch);
        let best = self.state.best.as_ref();
        let is_best = best.is_none_or(|best| accuracy.robust.correct > best.robust.correct);
        if is_best {
            let averaged = averaged.is_some_and(|averaged| accuracy::is_better(&averaged, &raw));
            self.state.best = Some(self.keep(&accuracy, averaged)?);
        }
        let now = (attacks.len() > 1).then(|| OverfittingReference {
            epoch: self.state.epoch,
            robust: AttackCount::new(name, raw.under_attack(0)),
            single_step: raw.under_attack(1),
        });
        let back = now.and_then(|now| {
            let (sentence, back) = self.overfitting(&now)?;
            accuracy.overfitting = Some(sentence);
            back
        });
        if self.is_first() {
            if let Some(outputs) = &mut self.outputs {
                outputs.record_accuracy(&accuracy, begin.elapsed());
            }
            if is_best {
                (self.tell)(Event::Best(accuracy.clone()));
            }
            (self.tell)(Event::Accuracy(accuracy));
        }
        if let Some(factor) = back {
            self.go_back(factor)?;
        }
        Ok(back.is_some())
    }

    /// Compares the weights that are trained with the best of them so far. After catastrophic overfitting, a sentence about
    /// it, and the factor for step sizes if training goes back; otherwise they may be the new reference.
    fn overfitting(&mut self, now: &OverfittingReference) -> Option<(String, Option<f64>)> {
        let reference = self.state.overfitting_reference.as_ref();
        if let Some(reference) = reference.filter(|reference| overfitting::is_catastrophic(now, reference)) {
            let back = self.way_back();
            let best_epoch = self.state.best.as_ref().map_or(self.state.epoch, |best| best.epoch);
            return Some((
                overfitting::sentence(now, reference, back.map(|factor| (factor, best_epoch))),
                back,
            ));
        }
        if reference.is_none_or(|reference| now.robust.correct > reference.robust.correct) {
            self.state.overfitting_reference = Some(now.clone());
        }
        None
    }

    /// Measures the averaged weights, if there are any and they are asked for, or those that are trained.
    fn measure(&mut self, averaged: bool, attacks: &[EvalAttack]) -> Result<Counts, TrainError> {
        let average = self.state.average.as_ref().filter(|_| averaged);
        let network = average.map_or(&self.state.network, |average| &average.network);
        let evaluation = Evaluation {
            images: &self.data.train,
            indices: &self.split.validation,
            classes: self.data.classes,
            seed: self.training.seed,
            attacks,
            device: self.placement.device(),
        };
        let (group, units) = (&self.evaluation, &mut NoUnitResults);
        accuracy::measure(network, &evaluation, group, units, EvaluationPart::Validation, &mut *self.tell)
    }

    /// Writes the weights that are the best so far: the averaged ones, or those that are trained.
    fn keep(&self, accuracy: &Accuracy, averaged: bool) -> Result<Best, TrainError> {
        let average = self.state.average.as_ref().filter(|_| averaged);
        let network = average.map_or(&self.state.network, |average| &average.network);
        let (file, sha256) = if self.is_first() {
            self.checkpoints.save_best(self.state.epoch, &network.state(), &self.card())?
        } else {
            // Only rank 0 writes, and only rank 0 reads what it wrote.
            Default::default()
        };
        let Accuracy { epoch, clean, ref robust, single_step, .. } = *accuracy;
        Ok(Best { epoch, clean, robust: robust.clone(), single_step, averaged, file, sha256 })
    }

    /// What step sizes are to be multiplied by after overfitting, while there is training ahead.
    fn way_back(&self) -> Option<f64> {
        let Training { catastrophic_overfitting, schedule, .. } = self.training;
        overfitting::goes_back(catastrophic_overfitting.as_ref())
            .filter(|_| self.state.epoch < schedule.epochs)
    }

    fn go_back(&mut self, factor: f64) -> Result<(), TrainError> {
        let Some(best) = self.state.best.clone() else { return Ok(()) };
        let weights = if self.is_first() {
            self.checkpoints.load_best(&best)?
        } else {
            // Rank 0's follow.
            self.state.network.state()
        };
        self.state.go_back(self.training, weights)?;
        self.state.step_scale *= factor;
        self.state.broadcast(&self.group)
    }
}

/// A warning, if initial weights were trained on images that this training holds out.
pub(super) fn seen_images_warning(earlier: &WeightsCard, own: &WeightsCard) -> Option<String> {
    earlier.was_trained_on_validation_images_of(own).then(|| {
        format!(
            "spec.training.model.initialWeights: the weights were trained on images that this job holds out for \
             validation (theirs: {} images with seed {}; this job's: {} with seed {}), so accuracy on the validation split \
             is too high and may select the wrong epoch; set data.validation to count {} and seed {}",
            earlier.validation_count,
            earlier.validation_seed,
            own.validation_count,
            own.validation_seed,
            earlier.validation_count,
            earlier.validation_seed
        )
    })
}
