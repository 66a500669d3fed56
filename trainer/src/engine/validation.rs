//! Accuracy on the validation split, which alone chooses the weights.

use datjob_api::{Training, report::Accuracy};

use super::{Rank, TrainError, accuracy, overfitting};
use crate::{checkpoint::Best, worker_protocol::Event};
use datjob_adversarial::{
    evaluate::{Counts, EvalAttack, Evaluation},
    model::Network,
};

impl Rank<'_> {
    /// Measures; keeps the weights where they are the best so far, and goes back to the best where the spec wants that.
    pub(super) fn validate(&mut self) -> Result<(), TrainError> {
        let attack =
            EvalAttack::for_validation(&self.training.evaluation.during, &self.training.threat_model);
        let attacks: Vec<EvalAttack> = std::iter::once(attack)
            .chain(overfitting::single_step(self.training, self.state.step_scale))
            .collect();
        let raw = self.measure(&self.state.network, &attacks)?;
        let average = self.state.average.as_ref();
        let averaged = average.map(|average| self.measure(&average.network, &attacks)).transpose()?;
        let name = attacks.first().map_or("", |attack| &attack.name);
        let mut accuracy = accuracy::on_validation(&raw, averaged.as_ref(), name, self.state.epoch);
        let best = self.state.best.as_ref();
        let better = best.is_none_or(|best| accuracy.robust.correct > best.robust.correct);
        let single_step = (attacks.len() > 1).then(|| raw.under_attack(1));
        // An epoch that became the best, by its averaged weights, is nothing to go back from.
        let overfits = !better && overfitting::is_catastrophic(raw.under_attack(0), single_step, best);
        let back = self.way_back().filter(|_| overfits);
        if let Some(best) = best.filter(|_| overfits) {
            let sentence =
                overfitting::sentence(self.state.epoch, raw.under_attack(0), single_step, best, back);
            accuracy.overfitting = Some(sentence);
        }
        if better {
            let averaged = averaged.is_some_and(|averaged| accuracy::is_better(&averaged, &raw));
            self.state.best = Some(self.keep(&accuracy, averaged)?);
        }
        if self.is_first() {
            if let Some(outputs) = &mut self.outputs {
                outputs.record_accuracy(&accuracy);
            }
            (self.tell)(Event::Accuracy(accuracy));
        }
        match back {
            Some(factor) => self.go_back(factor),
            None => Ok(()),
        }
    }

    fn measure(&self, network: &Network, attacks: &[EvalAttack]) -> Result<Counts, TrainError> {
        let evaluation = Evaluation {
            images: &self.data.train,
            indices: &self.split.validation,
            classes: self.data.classes,
            seed: self.training.seed,
            attacks,
            device: self.placement.device(),
        };
        accuracy::measure(network, &evaluation, &self.evaluation, &mut |_, _| {})
    }

    /// Writes the weights that are the best so far: the averaged ones, or those that are trained.
    fn keep(&self, accuracy: &Accuracy, averaged: bool) -> Result<Best, TrainError> {
        let average = self.state.average.as_ref().filter(|_| averaged);
        let network = average.map_or(&self.state.network, |average| &average.network);
        let (file, sha256) = if self.is_first() {
            self.checkpoints.save_best(self.state.epoch, &network.state())?
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
            self.checkpoints.load_best(&best, self.state.epoch)?
        } else {
            // Rank 0's follow.
            self.state.network.state()
        };
        self.state.go_back(self.training, weights)?;
        self.state.step_scale *= factor;
        self.state.broadcast(&self.group)
    }
}
