//! The training loop: the algorithm of the paper (arXiv 2206.06257, section 3), one rank of it.
//!
//! A step: take the rank's shard of the global batch, attack it (gradients of the images alone), backward of the
//! objective with the bucketed all-reduce overlapped, optimizer. After an epoch: BatchNorm statistics made the same on
//! all ranks, accuracy on the validation split, best weights, checkpoint. At the end: the best weights on the test set,
//! once.

use crate::{
    attack::{self, Examples, Recipe},
    checkpoint::Directory,
    data::{self, Augmentation, DataSet, Epoch, Loader, Split},
    model::Mode,
    objective, optim,
    placement::Placement,
    weight_perturbation,
    worker::{assignment::Assignment, event::Event},
};
use datjob_api::{Training, report::Results};
use datjob_c10d::{C10dError, ProcessGroup, Reducer, ReducerOptions};

mod accuracy;
mod batch;
pub mod batch_norm;
mod error;
mod finish;
mod meter;
mod overfitting;
mod state;
mod validation;
mod world;

pub use error::TrainError;
pub(crate) use error::of_libtorch;

use batch::{Aftermath, Ahead, Batch};
use meter::Meter;
use state::State;

/// Tells the agent.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// Trains and evaluates as one rank of a world, from the newest checkpoint or from the start. Rank 0 returns the
/// results, which are durable by then.
pub fn run(assignment: &Assignment, tell: Tell<'_>) -> Result<Option<Results>, TrainError> {
    let training = &assignment.training;
    let placement = world::placement(assignment)?;
    let data = data::load(&training.data, &assignment.data, assignment.threads as usize)?;
    let contents = data.contents();
    // What the spec alone did not tell.
    training.check_contents(&contents, assignment.world_size)?;
    let world::World { group, evaluation } = world::join(assignment, placement)?;
    let mut rank = Rank {
        training,
        split: data::split(data.train.len(), training.data.validation.count as usize, training.seed)?,
        data,
        checkpoints: Directory::new(&assignment.checkpoints, training.hash()),
        state: State::new(training, &contents, placement.device())?,
        placement,
        group,
        evaluation,
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
    placement: Placement,
    state: State,
    group: ProcessGroup,
    /// The group for the counts of evaluations.
    evaluation: ProcessGroup,
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
            if let Some(average) = &self.state.average {
                batch_norm::average(&average.network.buffers(), &self.group)?;
            }
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
        let mut loader = self.loader(&order, epoch)?;
        let mut ahead = self.ahead(&mut loader, &order, epoch, 0)?;
        let mut before = None;
        for step in 0..order.steps() {
            let Some(batch) = ahead.take() else { break };
            let (rate, after) = self.step(reducer, &order, batch, &mut meter)?;
            // While a device works on this step: the images of the next, and what the one before has come to.
            if step + 1 < order.steps() {
                ahead = self.ahead(&mut loader, &order, epoch, step + 1)?;
            }
            if let Some(before) = before.replace(after) {
                Aftermath::read(before, &mut meter)?;
            }
            if self.is_first()
                && let Some(progress) = meter.progress(self.state.step, step + 1, rate)
            {
                (self.tell)(Event::Progress(progress));
            }
        }
        if let Some(before) = before {
            before.read(&mut meter)?;
        }
        self.state.epoch += 1;
        if self.is_first() {
            (self.tell)(Event::Progress(meter.end_of_epoch(self.state.step)));
            let peak_memory = self.placement.peak_memory()?;
            (self.tell)(Event::Timing(meter.timing(&reducer.statistics()?, loader.waited(), peak_memory)));
        }
        Ok(())
    }

    /// Reads the shards of this rank.
    fn loader(&self, order: &Epoch, epoch: u64) -> Result<Loader, TrainError> {
        let (rank, world_size) = (self.group.rank(), self.group.world_size());
        let shards = (0..order.steps()).map(|step| order.shard(step, rank, world_size).to_vec());
        let variation = self.training.data.variation();
        let augmentation = Augmentation::new(&variation, &self.split.training, self.training.seed, epoch);
        Ok(Loader::new(&self.data.train, shards, Some(augmentation))?)
    }

    /// The shard of a step on its way to the device; nothing after the last step.
    fn ahead(
        &self,
        loader: &mut Loader,
        order: &Epoch,
        epoch: u64,
        step: usize,
    ) -> Result<Option<Ahead>, TrainError> {
        let Some(shard) = loader.next_batch()? else { return Ok(None) };
        let indices = order.shard(step, self.group.rank(), self.group.world_size());
        let images = (order.batch(step).len(), self.data.classes);
        Ahead::begin(self.placement, self.training, &shard, indices, epoch, images).map(Some)
    }

    /// One step, asked for and on a device not waited for; returns its learning rate.
    fn step(
        &mut self,
        reducer: &mut Reducer,
        order: &Epoch,
        batch: Ahead,
        meter: &mut Meter,
    ) -> Result<(f64, Aftermath), TrainError> {
        let Training { threat_model, attack, objective, schedule, .. } = self.training;
        let network = &self.state.network;
        let Batch { images, labels, noise, copies, global } = batch.take(network)?;

        let attack_begins = self.placement.moment()?;
        let recipe = Recipe { attack, objective, threat_model, step_scale: self.state.step_scale };
        let examples = Examples { images: &images, labels: &labels, start: &noise, copies: copies.as_ref() };
        let adversarial = attack::for_training(network, &recipe, &examples)?;
        let attack_ends = self.placement.moment()?;

        // The reducer takes the mean over ranks of what are sums over shards, and shards may be uneven.
        let scale = self.group.world_size() as f64 / global as f64;
        let (images, adversarial, labels, scale) = match &copies {
            None => (images, adversarial, labels, scale),
            Some(copies) => {
                let (images, adversarial) = (copies.of(&images)?, copies.of(&adversarial)?);
                (images, adversarial, copies.labels(&labels)?, scale / copies.samples() as f64)
            }
        };
        let loss = |mode| objective::loss(network, objective, mode, (&images, &adversarial), &labels, scale);
        let perturbed = match &self.training.weight_perturbation {
            Some(spec) => {
                let loss = loss(Mode::TrainFrozenStatistics)?;
                Some(weight_perturbation::perturb(&network.parameters(), &loss, spec.gamma)?)
            }
            None => None,
        };
        reducer.prepare_forward()?;
        let loss = loss(Mode::Train)?;
        let aftermath = Aftermath {
            loss: self.placement.read(&loss)?,
            attack: (attack_begins, attack_ends),
            step: self.state.step + 1,
            epoch: self.state.epoch + 1,
            divisor: scale * labels.size()[0] as f64,
        };
        optim::zero_gradients(&network.parameters())?;
        reducer.prepare_backward()?;
        loss.f_backward().map_err(|error| C10dError::from_backward(&error, self.group.member()))?;
        if let Some(perturbed) = perturbed {
            perturbed.undo()?;
        }

        let rate =
            optim::learning_rate(schedule, self.state.base_rate, self.state.step, order.steps() as u64);
        self.state.step += 1;
        let number = self.state.step - self.state.optimizer_begin;
        self.state.optimizer.step(rate, number)?;
        if let Some(average) = &mut self.state.average {
            average.update(&self.state.network, number)?;
        }
        meter.stepped(global);
        Ok((rate, aftermath))
    }

    fn save(&self) -> Result<(), TrainError> {
        if self.is_first() {
            let best = self.state.best.as_ref();
            self.checkpoints.save(self.state.position(), &self.state.tensors(), best)?;
            self.checkpoints.clean(self.training.checkpoint.keep.last as usize, best)?;
        }
        Ok(())
    }
}
