//! The training loop: the algorithm of the paper (arXiv 2206.06257, section 3), one rank of it.
//!
//! A step: load the rank's shard of the global batch, attack it (gradients of the images alone), backward of the
//! objective with the bucketed all-reduce overlapped, optimizer. After an epoch: BatchNorm statistics made the same on
//! all ranks, accuracy on the validation split, best weights, checkpoint. At the end: the best weights on the test set,
//! once.

use std::time::Instant;

use datjob_api::{
    Training,
    report::{AttackCount, Count, Results},
};
use datjob_c10d::{C10dError, ProcessGroup, Reducer, ReducerOptions};
use tch::Device;

use crate::{
    attack,
    checkpoint::{self, Best, Directory},
    data::{self, Augmentation, DataSet, Epoch, Split},
    evaluate::{EvalAttack, Evaluation},
    objective, optim, random,
    worker::{assignment::Assignment, event::Event},
};

mod accuracy;
pub mod batch_norm;
mod error;
mod meter;
mod state;
mod world;

pub use error::TrainError;

use meter::Meter;
use state::State;

/// Tells the agent.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// Trains and evaluates as one rank of a world, from the newest checkpoint or from the start. Rank 0 returns the
/// results, which are durable by then.
pub fn run(assignment: &Assignment, tell: Tell<'_>) -> Result<Option<Results>, TrainError> {
    let training = &assignment.training;
    let data = data::load(training.data.dataset, &assignment.data)?;
    let group = world::join(assignment)?;
    let mut rank = Rank {
        training,
        split: data::split(data.train.len(), training.data.validation.count as usize, training.seed)?,
        data,
        checkpoints: Directory::new(&assignment.checkpoints, training.hash()),
        state: State::new(training)?,
        group,
        tell,
    };
    rank.resume()?;
    rank.train()?;
    rank.finish(assignment)
}

/// One rank at work.
struct Rank<'a> {
    training: &'a Training,
    data: DataSet,
    split: Split,
    checkpoints: Directory,
    state: State,
    group: ProcessGroup,
    tell: Tell<'a>,
}

impl Rank<'_> {
    fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Rank 0 reads the newest checkpoint, if there is one; all ranks then have its state.
    fn resume(&mut self) -> Result<(), TrainError> {
        if self.is_first()
            && let Some(manifest) = self.checkpoints.newest()?
        {
            let tensors = self.checkpoints.load(&manifest)?;
            self.state.restore(&manifest, tensors)?;
            tracing::info!(epoch = manifest.epoch, "Resumed from a checkpoint.");
        }
        self.state.broadcast(&self.group)
    }

    fn train(&mut self) -> Result<(), TrainError> {
        let parameters = self.state.network.parameters();
        let mut reducer = Reducer::new(&parameters, &self.group, ReducerOptions::default())?;
        let epochs = self.training.schedule.epochs;
        while self.state.epoch < epochs {
            self.epoch(&mut reducer)?;
            let epoch = self.state.epoch;
            batch_norm::average(&self.state.network.buffers(), &self.group)?;
            let last = epoch == epochs;
            if last || epoch.is_multiple_of(self.training.evaluation.every_epochs) {
                self.validate()?;
            }
            if last || epoch.is_multiple_of(self.training.checkpoint.every_epochs) {
                self.save()?;
            }
        }
        Ok(())
    }

    fn epoch(&mut self, reducer: &mut Reducer) -> Result<(), TrainError> {
        let Training { seed, schedule, .. } = self.training;
        let epoch = u64::from(self.state.epoch);
        let order = Epoch::new(&self.split.training, schedule.batch_size as usize, *seed, epoch);
        let mut meter =
            Meter::new(schedule.epochs, self.state.epoch, self.split.training.len(), order.steps());
        for step in 0..order.steps() {
            let rate = self.step(reducer, &order, step, &mut meter)?;
            if self.is_first()
                && let Some(progress) = meter.progress(self.state.step, step + 1, rate)
            {
                (self.tell)(Event::Progress(progress));
            }
        }
        self.state.epoch += 1;
        if self.is_first() {
            (self.tell)(Event::Progress(meter.end_of_epoch(self.state.step)));
            (self.tell)(Event::Timing(meter.timing(&reducer.statistics()?)));
        }
        Ok(())
    }

    /// One step; returns its learning rate.
    fn step(
        &mut self,
        reducer: &mut Reducer,
        order: &Epoch,
        step: usize,
        meter: &mut Meter,
    ) -> Result<f64, TrainError> {
        let Training { seed, threat_model, attack, objective, .. } = self.training;
        let (rank, world_size) = (self.group.rank(), self.group.world_size());
        let epoch = u64::from(self.state.epoch);
        let batch = order.batch(step);
        let shard = order.shard(step, rank, world_size);
        let network = &self.state.network;

        let (crop, flip) = self.training.data.augmentation();
        let augmentation = Augmentation { crop, flip, seed: *seed, epoch };
        let (images, labels) = self.data.train.batch(shard, Some(&augmentation), Device::Cpu)?;
        let images = network.input(&images)?;
        let epsilon = threat_model.epsilon.value();
        let noise = random::training_noise(*seed, epoch, shard, self.data.train.shape(), epsilon)?;
        let attack_started = Instant::now();
        let adversarial = attack::for_training(network, attack, threat_model, &images, &labels, &noise)?;
        meter.attacked(attack_started.elapsed());

        reducer.prepare_forward()?;
        // The reducer takes the mean over ranks of what are sums over shards, and shards may be uneven.
        let scale = world_size as f64 / batch.len() as f64;
        let loss = objective::loss(network, objective, &images, &adversarial, &labels, scale)?;
        let value = loss.f_double_value(&[])?;
        if !value.is_finite() {
            return Err(TrainError::NotFinite {
                value,
                step: self.state.step + 1,
                epoch: self.state.epoch + 1,
            });
        }
        self.state.optimizer.zero_gradients()?;
        reducer.prepare_backward()?;
        loss.f_backward().map_err(|error| C10dError::from_backward(&error, self.group.member()))?;

        let schedule = &self.training.schedule;
        let rate =
            optim::learning_rate(schedule, self.state.base_rate, self.state.step, order.steps() as u64);
        self.state.optimizer.step(rate)?;
        self.state.step += 1;
        meter.stepped(batch.len(), value / world_size as f64 * batch.len() as f64 / shard.len() as f64);
        Ok(rate)
    }

    /// Accuracy on the validation split; keeps the weights where they are the best so far.
    fn validate(&mut self) -> Result<(), TrainError> {
        let Training { seed, threat_model, evaluation, .. } = self.training;
        let attack = EvalAttack::during(&evaluation.during, threat_model);
        let evaluation = Evaluation {
            images: &self.data.train,
            indices: &self.split.validation,
            seed: *seed,
            attacks: std::slice::from_ref(&attack),
            device: Device::Cpu,
        };
        let counts = accuracy::measure(&self.state.network, &evaluation, &self.group, &mut |_, _| {})?;
        let accuracy = accuracy::on_validation(&counts, &attack, self.state.epoch);
        let better =
            self.state.best.as_ref().is_none_or(|best| accuracy.robust.correct > best.robust.correct);
        if better {
            let (file, sha256) = if self.is_first() {
                self.checkpoints.save_best(self.state.epoch, &self.state.network.state())?
            } else {
                // Only rank 0 writes, and only rank 0 reads what it wrote.
                Default::default()
            };
            let (clean, robust) = (accuracy.clean, accuracy.robust.clone());
            self.state.best = Some(Best { epoch: self.state.epoch, clean, robust, file, sha256 });
        }
        if self.is_first() {
            (self.tell)(Event::Accuracy(accuracy));
        }
        Ok(())
    }

    fn save(&self) -> Result<(), TrainError> {
        if self.is_first() {
            let State { epoch, step, best, .. } = &self.state;
            self.checkpoints.save(*epoch, *step, &self.state.tensors(), best.as_ref())?;
            self.checkpoints.clean(self.training.checkpoint.keep.last as usize, best.as_ref())?;
        }
        Ok(())
    }

    /// The best weights on the test set, and the results.
    fn finish(&mut self, assignment: &Assignment) -> Result<Option<Results>, TrainError> {
        if self.is_first()
            && let Some(best) = &self.state.best
        {
            let weights = self.checkpoints.load_best(best, self.state.epoch)?;
            self.state.network.load_state(weights)?;
        }
        self.state.broadcast(&self.group)?;

        let Training { seed, threat_model, evaluation, .. } = self.training;
        let attacks: Vec<_> =
            evaluation.final_.iter().map(|attack| EvalAttack::at_end(attack, threat_model)).collect();
        let images: Vec<usize> = (0..self.data.test.len()).collect();
        let evaluation = Evaluation {
            images: &self.data.test,
            indices: &images,
            seed: *seed,
            attacks: &attacks,
            device: Device::Cpu,
        };
        let (first, tell) = (self.group.rank() == 0, &mut *self.tell);
        let counts = accuracy::measure(&self.state.network, &evaluation, &self.group, &mut |done, total| {
            if first {
                tell(Event::Evaluating { done: done as u64, total: total as u64 });
            }
        })?;
        if !self.is_first() {
            return Ok(None);
        }
        let (file, sha256) = self.checkpoints.save_result(&self.state.network.state())?;
        let count = |correct| Count { correct, total: counts.total };
        let results = Results {
            best_epoch: self.state.best.as_ref().map_or(self.state.epoch, |best| best.epoch),
            clean: count(counts.clean),
            attacks: attacks
                .iter()
                .zip(&counts.attacks)
                .map(|(attack, &correct)| AttackCount {
                    attack: attack.name.clone(),
                    correct,
                    total: counts.total,
                })
                .collect(),
            worst_case: count(counts.worst_case),
            weights: assignment.checkpoints_below_volume.join(file).to_string_lossy().into_owned(),
            sha256,
            seed: self.training.seed,
            training_hash: self.training.hash(),
            trainer_version: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch_version: crate::LIBTORCH_VERSION.to_owned(),
            world_size: assignment.world_size,
            threads: assignment.threads,
        };
        checkpoint::results::write(&assignment.checkpoints, &assignment.job_uid, &results)?;
        Ok(Some(results))
    }
}
