//! All that training changes: what a checkpoint holds and what ranks must agree on.

use std::path::Path;

use datjob_api::{
    Training,
    training::{Contents, InitialWeights, NamedFile},
};
use datjob_c10d::ProcessGroup;
use tch::{Device, Kind, Tensor};

use super::{NamedFileError, TrainError};
use crate::checkpoint::{Best, Manifest, OverfittingReference, PartialEpoch, Position, Steps};
use datjob_adversarial::{
    averaging::AveragedNetwork,
    model::Network,
    optim::Optimizer,
    state_dict::{self, StateDict},
};
use datjob_data::weights::WeightsCard;

const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const AVERAGE: &str = "average.";
/// Longest description of the best weights that is broadcast, in bytes.
const BEST_BYTES: usize = 4096;

/// What training changes.
pub(super) struct State {
    pub network: Network,
    pub optimizer: Optimizer,
    /// The averaged weights, where there are such.
    pub average: Option<AveragedNetwork>,
    /// The learning rate at the top of the schedule.
    pub base_rate: f64,
    /// Completed epochs.
    pub epoch: u32,
    /// Completed steps of all epochs.
    pub step: u64,
    /// Completed steps of the epoch that runs; 0 between epochs.
    pub epoch_step: u64,
    /// What was measured in them, on rank 0 while a checkpoint is written or after it resumed.
    pub partial_epoch: Option<PartialEpoch>,
    /// How often they trained on each image, i64 `[images]`, on rank 0 after it resumed.
    pub samples: Option<Tensor>,
    /// The step after which the optimizer's state began: moments correct their bias by the steps since.
    pub optimizer_begin: u64,
    /// What the attack's step sizes are multiplied by: less than 1 after going back.
    pub step_scale: f64,
    /// Seed of the validation split.
    pub validation_seed: u64,
    /// Whether the last epoch has still to be validated.
    pub validation_pending: bool,
    /// The best weights so far; files and hashes are known to rank 0 alone.
    pub best: Option<Best>,
    /// The best so far without averaging, in single-step training.
    pub overfitting_reference: Option<OverfittingReference>,
}

impl State {
    /// The start of a training: the same on every rank, since all come from the seed.
    pub(super) fn new(training: &Training, contents: &Contents, device: Device) -> Result<Self, TrainError> {
        let options = (Kind::Float, device);
        let new = || -> Result<Network, TrainError> {
            let mut network = Network::for_dataset(
                &training.model,
                training.data.dataset,
                contents,
                training.seed,
                options,
            )?;
            network.channels_last()?;
            Ok(network)
        };
        let network = new()?;
        let average = match &training.averaging {
            Some(spec) => Some(AveragedNetwork::new(spec, new()?, &network)?),
            None => None,
        };
        let optimizer = Optimizer::new(network.parameters(), &training.optimizer)?;
        let base_rate = training.optimizer.learning_rate() * training.schedule.scale();
        Ok(Self {
            network,
            optimizer,
            average,
            base_rate,
            epoch: 0,
            step: 0,
            epoch_step: 0,
            partial_epoch: None,
            samples: None,
            optimizer_begin: 0,
            step_scale: 1.0,
            validation_seed: training.data.validation.seed,
            validation_pending: false,
            best: None,
            overfitting_reference: None,
        })
    }

    /// What a checkpoint says of it beside its tensors.
    pub(super) fn position(&self) -> Position {
        Position {
            at: Steps { epoch: self.epoch, step: self.epoch_step },
            step: self.step,
            optimizer_begin: self.optimizer_begin,
            step_scale: self.step_scale,
            validation_seed: self.validation_seed,
            validation_pending: self.validation_pending,
            partial_epoch: self.partial_epoch,
        }
    }

    /// All tensors, under the names that checkpoints use.
    pub(super) fn tensors(&self) -> StateDict {
        let named = |prefix: &'static str, tensors: StateDict| {
            tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
        };
        let average = self.average.iter().flat_map(|average| average.network.state()).collect();
        named(MODEL, self.network.state())
            .chain(named(OPTIMIZER, self.optimizer.state()))
            .chain(named(AVERAGE, average))
            .collect()
    }

    /// Begins with the weights of a file, where nothing was trained yet; returns the file's card.
    pub(super) fn load_initial(
        &self,
        spec: &InitialWeights,
        path: &Path,
    ) -> Result<Option<WeightsCard>, TrainError> {
        const FILE: NamedFile = NamedFile::InitialWeights;
        let (tensors, card) =
            state_dict::read(path).map_err(|error| NamedFileError::Weights { file: FILE, error })?;
        let new_head = self
            .network
            .load_pretrained(tensors, spec.new_head)
            .map_err(|error| NamedFileError::Model { file: FILE, path: path.to_owned(), error })?;
        tracing::info!(path = %path.display(), new_head, "Loaded the initial weights.");
        if let Some(average) = &self.average {
            average.network.load_state(self.network.state())?;
        }
        Ok(card)
    }

    /// Takes over a checkpoint. One that does not name the seed of its validation split drew it by the training's seed.
    pub(super) fn restore(
        &mut self,
        training: &Training,
        manifest: &Manifest,
        tensors: StateDict,
    ) -> Result<(), TrainError> {
        let (mut model, mut optimizer, mut average) = (Vec::new(), Vec::new(), Vec::new());
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(MODEL) {
                model.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                optimizer.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(AVERAGE) {
                average.push((name.to_owned(), tensor));
            }
        }
        self.network.load_state(model)?;
        self.optimizer.load_state(optimizer)?;
        if let Some(live) = &self.average {
            live.network.load_state(average)?;
        }
        self.epoch = manifest.epoch;
        self.step = manifest.step;
        self.epoch_step = manifest.epoch_step;
        self.partial_epoch = manifest.partial_epoch;
        self.optimizer_begin = manifest.optimizer_begin;
        self.step_scale = manifest.step_scale;
        self.validation_seed = manifest.validation_seed.unwrap_or(training.seed);
        self.validation_pending = manifest.validation_pending;
        self.best.clone_from(&manifest.best);
        self.overfitting_reference =
            manifest.overfitting_reference.clone().or_else(|| self.best_as_reference());
        Ok(())
    }

    /// The best weights as the reference, for checkpoints of older trainers, which have no reference. Averaged weights do not
    /// qualify.
    fn best_as_reference(&self) -> Option<OverfittingReference> {
        let best = self.best.as_ref().filter(|best| !best.averaged)?;
        let single_step = best.single_step?;
        Some(OverfittingReference { epoch: best.epoch, robust: best.robust.clone(), single_step })
    }

    /// Gives rank 0's state to all.
    pub(super) fn broadcast(&mut self, group: &ProcessGroup) -> Result<(), TrainError> {
        let tensors = self.tensors();
        let tensors: Vec<&Tensor> = tensors.iter().map(|(_, tensor)| tensor).collect();
        group.broadcast_coalesced(&tensors, 0)?;
        let pending = u64::from(self.validation_pending);
        let counters = [
            u64::from(self.epoch),
            self.step,
            self.epoch_step,
            self.optimizer_begin,
            self.validation_seed,
            pending,
        ];
        let counters = Tensor::from_slice(&counters.map(u64::cast_signed));
        group.broadcast(&counters, 0)?;
        let counters = <[i64; 6]>::try_from(Vec::<i64>::try_from(&counters)?).unwrap_or_default();
        let [epoch, step, epoch_step, begin, validation_seed, pending] = counters.map(i64::cast_unsigned);
        self.epoch = epoch as u32;
        self.step = step;
        self.epoch_step = epoch_step;
        self.optimizer_begin = begin;
        self.validation_seed = validation_seed;
        self.validation_pending = pending != 0;
        let scale = Tensor::from_slice(&[self.step_scale]);
        group.broadcast(&scale, 0)?;
        self.step_scale = scale.f_double_value(&[0])?;
        self.broadcast_best(group)
    }

    /// Goes on from other weights, with an optimizer and an average that begin anew.
    pub(super) fn go_back(&mut self, training: &Training, weights: StateDict) -> Result<(), TrainError> {
        self.network.load_state(weights)?;
        self.optimizer = Optimizer::new(self.network.parameters(), &training.optimizer)?;
        self.optimizer_begin = self.step;
        if let Some(average) = &self.average {
            average.network.load_state(self.network.state())?;
        }
        Ok(())
    }

    /// All ranks compare with the same best, so that all take the same branch afterwards.
    fn broadcast_best(&mut self, group: &ProcessGroup) -> Result<(), TrainError> {
        let best = (&self.best, &self.overfitting_reference);
        let mut bytes = if group.rank() == 0 { serde_json::to_vec(&best)? } else { Vec::new() };
        bytes.resize(BEST_BYTES, b' ');
        let message = Tensor::from_slice(&bytes);
        group.broadcast(&message, 0)?;
        let bytes = Vec::<u8>::try_from(&message)?;
        (self.best, self.overfitting_reference) = serde_json::from_slice(&bytes)?;
        Ok(())
    }
}
