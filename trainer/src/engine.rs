//! The training loop: the algorithm of the paper (arXiv 2206.06257, section 3), one rank of it.
//!
//! A step: take the rank's shard of the global batch, attack it (gradients of the images alone), backward of the
//! objective with the bucketed all-reduce overlapped, optimizer. With `attack.overlap` the attack on the next shard comes
//! before this one's gradients are waited for. At the end of some steps: a checkpoint. After an epoch: BatchNorm statistics made
//! the same on all ranks, checkpoint, accuracy on the validation split, best weights. At the end: the best weights on the test set,
//! once.

use crate::{
    checkpoint::Directory,
    outputs::{Outputs, history::History},
    placement::{DeviceEvent, Placement},
    worker_protocol::{Assignment, Event, Stage},
};
use datjob_adversarial::{
    attack::{self, AttackConfig, AttackInputs},
    model::Mode,
    objective, optim, weight_perturbation,
};
use datjob_api::Training;
use datjob_c10d::{C10dError, ProcessGroup, Waiting};
use datjob_data::{Augmentation, DataSet, Epoch, ExtraImages, Loader, Split};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Tensor;

mod accuracy;
mod additional;
mod batch;
pub mod batch_norm;
mod boundary;
mod checkpoint_writer;
mod checkpointing;
pub mod compress;
mod error;
mod exchange;
mod finish;
mod meter;
mod named_file;
mod overfitting;
mod preflight;
mod rank_buffers;
mod rank_residuals;
mod sample_counts;
mod state;
mod validation;
mod world;

pub use error::TrainError;
pub use named_file::NamedFileError;

use batch::{Aftermath, Ahead, Batch};
use boundary::{Agreement, Boundary};
use checkpointing::Checkpointing;
use exchange::Exchange;
use meter::Meter;
use sample_counts::SampleCounts;
use state::State;

/// Tells the agent.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// Trains and evaluates as one rank of a world, from the newest checkpoint or from the start. When rank 0 returns, the
/// results are durable. All ranks write a checkpoint and return [`TrainError::Left`] soon after one of them sees `leave`.
pub fn run(assignment: &Assignment, leave: &AtomicBool, tell: Tell<'_>) -> Result<(), TrainError> {
    let training = &assignment.training;
    tell(Event::Stage(Stage::Starting));
    let placement = world::placement(assignment)?;
    let mut data = datjob_data::load(&training.data, &assignment.data, assignment.threads as usize)?;
    let contents = data.contents();
    // What the spec alone did not tell.
    training.check_contents(&contents, assignment.world_size)?;
    let fingerprint = data.fingerprint();
    let world::World { group, evaluation, gradients } = world::join(assignment, placement)?;
    world::require_same_data(&evaluation, &fingerprint)?;
    if let Some(warning) = data.warning.take().filter(|_| group.rank() == 0) {
        tell(Event::Warning(warning));
    }
    let spec = training.data.additional.as_ref();
    let additional =
        spec.map(|spec| additional::add(&mut data, spec, assignment, placement, &evaluation)).transpose()?;
    let checkpoints =
        Directory::new(&assignment.checkpoints, training.hash(), fingerprint.clone(), additional);
    let mut state = State::new(training, &contents, placement.device())?;
    let restored = checkpointing::resume(&mut state, &checkpoints, assignment, &contents, &group, tell)?;
    let card = checkpointing::weights_card(training, &contents, state.validation_seed);
    let checkpointing = match group.rank() {
        0 => Some(Checkpointing::start(training, checkpoints.clone(), restored.saved)?),
        _ => None,
    };
    let mut rank = Rank {
        training,
        split: card.split()?,
        data,
        fingerprint,
        checkpoints,
        state,
        placement,
        group,
        evaluation,
        outputs: None,
        checkpointing,
        leave,
        tell,
    };
    rank.preflight()?;
    if rank.is_first() {
        let (directory, hash) = (&assignment.checkpoints, training.hash());
        let outputs = Outputs::resume(directory, &hash, (rank.state.epoch, rank.state.step > 0));
        rank.report_position(outputs.history());
        rank.outputs = Some(outputs);
    }
    let exchange = Exchange::new(training, &rank.state, &rank.group, gradients, placement)?;
    rank_residuals::scatter(exchange.residuals(), restored.residuals, &rank.group)?;
    rank.train(exchange)?;
    rank.finish(assignment)
}

/// A shard that was attacked.
struct Attacked {
    batch: Batch,
    adversarial: Tensor,
    /// When the attack began and ended.
    took: (DeviceEvent, DeviceEvent),
}

/// One rank at work.
struct Rank<'a> {
    training: &'a Training,
    data: DataSet,
    /// The hash of the data set without additional images.
    fingerprint: String,
    split: Split,
    checkpoints: Directory,
    placement: Placement,
    state: State,
    group: ProcessGroup,
    /// The group for the counts of evaluations.
    evaluation: ProcessGroup,
    /// What rank 0 writes beside checkpoints.
    outputs: Option<Outputs>,
    /// Writes checkpoints, on rank 0.
    checkpointing: Option<Checkpointing>,
    /// Whether this rank is asked to leave the world.
    leave: &'a AtomicBool,
    tell: Tell<'a>,
}

impl Rank<'_> {
    fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    fn train(&mut self, mut exchange: Exchange) -> Result<(), TrainError> {
        let epochs = self.training.schedule.epochs;
        if self.state.validation_pending {
            self.validate_and_save()?;
        }
        (self.tell)(Event::Stage(Stage::Training));
        (self.tell)(Event::Training(true));
        while self.state.epoch < epochs {
            self.epoch(&mut exchange)?;
            let epoch = self.state.epoch;
            batch_norm::average(&self.state.network.buffers(), &self.group)?;
            if let Some(average) = &self.state.average {
                batch_norm::average(&average.network.buffers(), &self.group)?;
            }
            let last = epoch == epochs;
            let is_due = |every: u32| last || epoch.is_multiple_of(every);
            self.state.validation_pending = is_due(self.training.evaluation.every_epochs);
            let wish = Agreement { leave: self.is_leaving(), ..Agreement::default() };
            let leave = Boundary::begin(wish, &self.group)?.wait()?.leave;
            let is_saved = leave || is_due(self.training.checkpoint.every_epochs);
            if is_saved {
                self.save_epoch(&exchange)?;
            }
            if leave {
                return self.leave();
            }
            if self.state.validation_pending {
                // An epoch that is not saved yet is worth the wait for the end of its validation.
                (self.tell)(Event::Training(!is_saved));
                self.validate_and_save()?;
                (self.tell)(Event::Stage(Stage::Training));
                (self.tell)(Event::Training(true));
            }
        }
        (self.tell)(Event::Training(false));
        Ok(())
    }

    /// Reports where a training resumes, because the agent of an earlier world may be gone.
    fn report_position(&mut self, history: &History) {
        if let Some(progress) = history.progress(self.state.epoch, self.training.schedule.epochs) {
            (self.tell)(Event::Progress(progress));
        }
        let best = self.state.best.as_ref().and_then(|best| history.accuracy(best.epoch));
        if let Some(best) = best {
            (self.tell)(Event::Best(best.clone()));
        }
    }

    fn epoch(&mut self, exchange: &mut Exchange) -> Result<(), TrainError> {
        let Training { seed, schedule, attack, .. } = self.training;
        let epoch = u64::from(self.state.epoch);
        let additional: Vec<usize> = self.data.additional_indices().collect();
        let fraction = self.training.data.additional.as_ref().map_or(0.0, |additional| additional.per_batch);
        let extra = ExtraImages { indices: &additional, fraction, total_images: self.data.train.len() };
        let order =
            Epoch::with_extra_images(&self.split.training, extra, schedule.batch_size as usize, *seed, epoch);
        // More than 0 if the training resumed within the epoch.
        let first_step = self.state.epoch_step as usize;
        let measured = self.state.partial_epoch.take();
        let mut meter =
            Meter::new(schedule.epochs, self.state.epoch, order.images(), order.steps(), measured);
        let counted = self.state.samples.take();
        let mut samples = SampleCounts::new(self.data.train.len(), first_step > 0, counted.as_ref())?;
        let mut loader = self.loader(&order, epoch, first_step)?;
        let mut ahead = self.ahead(&mut loader, &order, epoch, first_step)?;
        let mut attacked = None;
        let mut before = None;
        for step in first_step..order.steps() {
            let boundary = self.begin_boundary(exchange, step + 1, order.steps())?;
            let mut now = match (attacked.take(), ahead.take()) {
                (Some(attacked), _) => attacked,
                (None, Some(ahead)) => self.attack(ahead)?,
                (None, None) => break,
            };
            let global = now.batch.global;
            let indices = std::mem::take(&mut now.batch.indices);
            let after = self.backward(exchange, now)?;
            let next = step + 1;
            if attack.overlap {
                let ahead = self.ahead(&mut loader, &order, epoch, next)?;
                attacked = ahead.map(|ahead| self.attack(ahead)).transpose()?;
            }
            exchange.finish()?;
            let rate = self.optimize(order.steps() as u64)?;
            exchange.stepped(next as u64, &self.state, &self.group)?;
            self.state.epoch_step = next as u64;
            meter.stepped(global);
            samples.add(&indices);
            // While a device works on this step: the images of the next, and what the one before has come to.
            if !attack.overlap {
                ahead = self.ahead(&mut loader, &order, epoch, next)?;
            }
            if let Some(before) = before.replace(after) {
                Aftermath::read(before, &mut meter)?;
            }
            if self.is_first()
                && let Some(progress) = meter.progress(self.state.step, next, rate)
            {
                (self.tell)(Event::Progress(progress));
            }
            let agreed = boundary.map(Boundary::wait).transpose()?.unwrap_or_default();
            if agreed.checkpoint || agreed.leave {
                // Nothing is kept of a step whose loss is not finite.
                if let Some(before) = before.take() {
                    Aftermath::read(before, &mut meter)?;
                }
                meter.sent(&exchange.traffic()?);
                self.state.partial_epoch = Some(meter.partial_epoch(loader.wait_time()));
                self.save_within_epoch(&samples, exchange)?;
            }
            if agreed.leave {
                return self.leave();
            }
        }
        if let Some(before) = before {
            before.read(&mut meter)?;
        }
        exchange.end_of_epoch(&self.state, &self.group)?;
        self.state.epoch += 1;
        self.state.epoch_step = 0;
        self.state.partial_epoch = None;
        meter.sent(&exchange.traffic()?);
        let samples = self.count_samples(&samples, &order)?;
        if self.is_first() {
            let progress = meter.end_of_epoch(self.state.step);
            let timing = meter.timing(loader.wait_time(), self.placement.peak_memory()?);
            if let Some(outputs) = &mut self.outputs {
                outputs.record_epoch(&progress, &timing, samples);
            }
            (self.tell)(Event::Progress(progress));
            (self.tell)(Event::Timing(timing));
        }
        Ok(())
    }

    /// Asks all ranks what follows step `next` of the epoch, counted from 1; `None` where nothing can: before weights are
    /// averaged, and at the end of the epoch, where the checkpoint of the epoch follows.
    fn begin_boundary(
        &mut self,
        exchange: &Exchange,
        next: usize,
        steps: usize,
    ) -> Result<Option<Boundary>, TrainError> {
        if next == steps || !exchange.is_synchronized(next as u64) {
            return Ok(None);
        }
        let wish = Agreement { checkpoint: self.asks_for_checkpoint()?, leave: self.is_leaving() };
        Boundary::begin(wish, &self.group).map(Some)
    }

    fn is_leaving(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    /// Ends the work of this rank after a checkpoint. All ranks wait until rank 0 has written it: an agent ends its other workers
    /// soon after the first has ended.
    fn leave(&mut self) -> Result<(), TrainError> {
        self.finish_checkpoints()?;
        self.group.barrier()?;
        Err(TrainError::Left { step: self.state.step })
    }

    /// Reads the shards of this rank from a step on.
    fn loader(&self, order: &Epoch, epoch: u64, first_step: usize) -> Result<Loader, TrainError> {
        let (rank, world_size) = (self.group.rank(), self.group.world_size());
        let shards = (first_step..order.steps()).map(|step| order.shard(step, rank, world_size).to_vec());
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
        let images = (order.batch(step).len(), self.data.classes);
        Ahead::begin(self.placement, self.training, shard, epoch, images).map(Some)
    }

    /// The adversarial examples of a shard, against the weights as they are.
    fn attack(&self, ahead: Ahead) -> Result<Attacked, TrainError> {
        let Training { threat_model, attack, objective, .. } = self.training;
        let network = &self.state.network;
        let batch = ahead.take(network)?;
        let begin = self.placement.record_event()?;
        let config = AttackConfig {
            attack: &attack.method,
            objective,
            threat_model,
            step_scale: self.state.step_scale,
        };
        let Batch { images, labels, noise, copies, .. } = &batch;
        let inputs = AttackInputs { images, labels, start_noise: noise, noisy_copies: copies.as_ref() };
        let adversarial = attack::generate_adversarial_examples(network, &config, &inputs)?;
        Ok(Attacked { batch, adversarial, took: (begin, self.placement.record_event()?) })
    }

    /// Forward and backward pass of a step, asked for and on a device not waited for; the exchange of its gradients is
    /// under way.
    fn backward(&self, exchange: &mut Exchange, attacked: Attacked) -> Result<Aftermath, TrainError> {
        let Training { objective, weight_perturbation: perturbation, .. } = self.training;
        let network = &self.state.network;
        let Attacked { batch: Batch { images, labels, copies, global, .. }, adversarial, took } = attacked;
        // The mean over ranks is taken of what are sums over shards, and shards may be uneven.
        let scale = self.group.world_size() as f64 / global as f64;
        let (images, adversarial, labels, scale) = match &copies {
            None => (images, adversarial, labels, scale),
            Some(copies) => {
                let (images, adversarial) = (copies.add_noise(&images)?, copies.add_noise(&adversarial)?);
                (images, adversarial, copies.labels(&labels)?, scale / copies.samples() as f64)
            }
        };
        let loss = |mode| objective::loss(network, objective, mode, &images, &adversarial, &labels, scale);
        let perturbed = match perturbation {
            Some(spec) => {
                let loss = loss(Mode::TrainFrozenStatistics)?;
                Some(weight_perturbation::perturb(&network.parameters(), &loss, spec.gamma(objective))?)
            }
            None => None,
        };
        exchange.prepare_forward()?;
        let loss = loss(Mode::Train)?;
        let aftermath = Aftermath {
            loss: self.placement.download_scalar(&loss)?,
            attack: took,
            step: self.state.step + 1,
            epoch: self.state.epoch + 1,
            divisor: scale * labels.size()[0] as f64,
        };
        optim::zero_gradients(&network.parameters())?;
        exchange.prepare_backward()?;
        let waiting = exchange.waits_in_backward().then(|| Waiting::begin("the backward pass"));
        loss.f_backward().map_err(|error| C10dError::from_backward(&error, self.group.member()))?;
        drop(waiting);
        if let Some(perturbed) = perturbed {
            perturbed.restore()?;
        }
        Ok(aftermath)
    }

    /// The optimizer's step along the gradients; returns its learning rate.
    fn optimize(&mut self, steps_per_epoch: u64) -> Result<f64, TrainError> {
        let schedule = &self.training.schedule;
        let rate = optim::learning_rate(schedule, self.state.base_rate, self.state.step, steps_per_epoch);
        self.state.step += 1;
        let number = self.state.step - self.state.optimizer_begin;
        self.state.optimizer.step(rate, number)?;
        if let Some(average) = &mut self.state.average {
            average.update(&self.state.network, number)?;
        }
        Ok(rate)
    }
}
