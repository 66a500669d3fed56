//! Checkpoints of a training: resuming from the newest, saving the state, and adding to a checkpoint what its validation showed.

use std::time::{Duration, Instant};

use datjob_adversarial::state_dict::StateDict;
use datjob_api::{
    Training,
    training::{Contents, NamedFile},
};
use datjob_c10d::ProcessGroup;
use datjob_data::weights::WeightsCard;
use tch::{Device, Tensor};

use super::{
    Rank, State, Tell, TrainError,
    checkpoint_writer::{CheckpointWriter, Description},
    exchange::Exchange,
    named_file, rank_buffers, rank_residuals,
    sample_counts::{self, SampleCounts},
    validation,
};
use crate::{
    checkpoint::{Directory, SavedTensors},
    worker_protocol::{Assignment, Event},
};

/// What rank 0 has of the checkpoint that the training resumes from; nothing on other ranks, and without a checkpoint.
#[derive(Debug, Default)]
pub(super) struct RestoredCheckpoint {
    /// Its tensors on the volume.
    pub saved: Option<SavedTensors>,
    /// The rounding errors of all ranks, for [`rank_residuals::scatter`].
    pub residuals: StateDict,
}

/// Rank 0 reads the newest checkpoint or, without a checkpoint, the initial weights of the spec. All ranks then have its
/// state, without the rounding errors of its error feedback.
pub(super) fn resume(
    state: &mut State,
    checkpoints: &Directory,
    assignment: &Assignment,
    contents: &Contents,
    group: &ProcessGroup,
    tell: Tell<'_>,
) -> Result<RestoredCheckpoint, TrainError> {
    let training = &assignment.training;
    let (mut restored, mut buffers) = (RestoredCheckpoint::default(), None);
    if group.rank() == 0 {
        let resumed = checkpoints.resume()?;
        resumed.warnings.into_iter().for_each(|warning| tell(Event::Warning(warning)));
        if let Some((manifest, tensors)) = resumed.checkpoint {
            let (residuals, mut tensors): (StateDict, StateDict) =
                tensors.into_iter().partition(|(name, _)| rank_residuals::is_residual(name));
            restored.residuals = residuals;
            let mut remove = |name: &str| {
                let index = tensors.iter().position(|(other, _)| other == name)?;
                Some(tensors.swap_remove(index).1)
            };
            buffers = remove(rank_buffers::NAME);
            state.samples = remove(sample_counts::NAME);
            state.restore(training, &manifest, tensors)?;
            tracing::info!(
                epoch = manifest.epoch,
                step_of_epoch = manifest.epoch_step,
                step = manifest.step,
                "Resumed from a checkpoint."
            );
            restored.saved = Some(SavedTensors::from(&manifest));
        } else if let Some(spec) = &training.model.initial_weights {
            let path = named_file::path(assignment, NamedFile::InitialWeights)?;
            let earlier = state.load_initial(spec, path)?;
            let own = weights_card(training, contents, state.validation_seed);
            if let Some(warning) = earlier.and_then(|earlier| validation::seen_images_warning(&earlier, &own))
            {
                tell(Event::Warning(warning));
            }
        }
    }
    state.broadcast(group)?;
    rank_buffers::scatter(state, buffers, group)?;
    Ok(restored)
}

/// What files of weights say about the images that they were trained on; the split of the training follows from it.
pub(super) fn weights_card(training: &Training, contents: &Contents, validation_seed: u64) -> WeightsCard {
    WeightsCard {
        dataset: training.data.dataset,
        training_images: contents.training_images,
        validation_count: training.data.validation.count as usize,
        validation_seed,
    }
}

/// When rank 0 writes the next checkpoint within an epoch, and with what.
pub(super) struct Checkpointing {
    writer: CheckpointWriter,
    interval: Duration,
    /// When the last checkpoint was taken, or the training resumed.
    last: Instant,
    /// The rounding errors of all ranks in the checkpoint of an epoch that was left out, because an earlier one could not be
    /// written yet.
    overdue: Option<StateDict>,
}

impl Checkpointing {
    /// Of a training that resumed from `newest`, or began.
    pub(super) fn start(
        training: &Training,
        directory: Directory,
        newest: Option<SavedTensors>,
    ) -> Result<Self, TrainError> {
        let checkpoint = &training.checkpoint;
        Ok(Self {
            writer: CheckpointWriter::start(directory, checkpoint.keep.last as usize, newest)?,
            interval: Duration::from_secs(checkpoint.every_seconds.into()),
            last: Instant::now(),
            overdue: None,
        })
    }

    /// Whether a checkpoint is to be written at the end of the step that begins.
    fn is_due(&mut self) -> Result<bool, TrainError> {
        let is_free = self.writer.is_free()?;
        Ok(is_free && (self.overdue.is_some() || self.last.elapsed() >= self.interval))
    }

    fn write(&mut self, description: Description, tensors: StateDict) {
        self.writer.write(description, tensors);
        self.last = Instant::now();
        self.overdue = None;
    }
}

impl Rank<'_> {
    /// What files of weights say about the images that they were trained on.
    pub(super) fn card(&self) -> WeightsCard {
        weights_card(self.training, &self.data.contents(), self.state.validation_seed)
    }

    /// Whether this rank asks for a checkpoint at the end of the step that begins.
    pub(super) fn asks_for_checkpoint(&mut self) -> Result<bool, TrainError> {
        self.checkpointing.as_mut().map_or(Ok(false), Checkpointing::is_due)
    }

    /// Writes a checkpoint within an epoch. All ranks call it.
    pub(super) fn save_within_epoch(
        &mut self,
        samples: &SampleCounts,
        exchange: &Exchange,
    ) -> Result<(), TrainError> {
        let buffers = rank_buffers::gather(&self.state, &self.group)?;
        let residuals = rank_residuals::gather(exchange.residuals(), &self.group)?;
        let samples = samples.sum(&self.group)?;
        self.save_history();
        if let Some(checkpointing) = &mut self.checkpointing {
            let mut tensors = copies(self.state.tensors())?;
            tensors.extend(buffers.map(|buffers| (rank_buffers::NAME.to_owned(), buffers)));
            tensors.extend(samples.map(|samples| (sample_counts::NAME.to_owned(), samples)));
            tensors.extend(residuals);
            checkpointing.write(self.state.description(), tensors);
        }
        Ok(())
    }

    /// Writes the checkpoint of an epoch. Leaves it out while an earlier one waits for storage that does not work. All ranks call
    /// it.
    pub(super) fn save_epoch(&mut self, exchange: &Exchange) -> Result<(), TrainError> {
        let residuals = rank_residuals::gather(exchange.residuals(), &self.group)?;
        self.save_history();
        if let Some(checkpointing) = &mut self.checkpointing {
            if checkpointing.writer.wait_while_storage_works()? {
                let mut tensors = copies(self.state.tensors())?;
                tensors.extend(residuals);
                checkpointing.write(self.state.description(), tensors);
            } else {
                checkpointing.overdue = Some(residuals);
            }
        }
        Ok(())
    }

    /// Validates an epoch. Its checkpoint, if it has one, is there before, so that a validation that fails costs no epoch; what
    /// the validation showed is added to it. It is not waited for while the storage does not work.
    pub(super) fn validate_and_save(&mut self) -> Result<(), TrainError> {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.writer.wait_while_storage_works()?;
        }
        let begin = Instant::now();
        let went_back = self.validate()?;
        self.state.validation_pending = false;
        if let Some(checkpointing) = &mut self.checkpointing {
            // Nothing was trained meanwhile.
            checkpointing.last += begin.elapsed();
        }
        if went_back {
            // The checkpoint stays as it is: a run that resumes from it validates, and goes back, again.
            return Ok(());
        }
        self.save_history();
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.writer.describe(self.state.description());
        }
        Ok(())
    }

    /// Waits until all checkpoints are written, that of the last epoch included.
    pub(super) fn finish_checkpoints(&mut self) -> Result<(), TrainError> {
        if let Some(checkpointing) = &mut self.checkpointing {
            checkpointing.writer.finish()?;
            if let Some(residuals) = checkpointing.overdue.take() {
                let mut tensors = copies(self.state.tensors())?;
                tensors.extend(residuals);
                checkpointing.write(self.state.description(), tensors);
                checkpointing.writer.finish()?;
            }
        }
        Ok(())
    }

    fn save_history(&mut self) {
        if let Some(outputs) = &mut self.outputs {
            outputs.save_history();
            if !self.state.validation_pending {
                outputs.save_curves();
            }
        }
    }
}

impl State {
    /// What the manifest of a checkpoint says of it.
    fn description(&self) -> Description {
        Description {
            position: self.position(),
            best: self.best.clone(),
            overfitting_reference: self.overfitting_reference.clone(),
        }
    }
}

/// Copies in the memory of the host: training goes on while they are written.
fn copies(tensors: StateDict) -> Result<StateDict, TrainError> {
    let copy = |(name, tensor): (String, Tensor)| {
        let tensor = tensor.f_detach()?;
        let copy = match tensor.device() {
            Device::Cpu => {
                let mut copy = tensor.f_empty_like()?;
                copy.f_copy_(&tensor)?;
                copy
            }
            _ => tensor.f_to_device(Device::Cpu)?,
        };
        Ok((name, copy))
    };
    tensors.into_iter().map(copy).collect()
}
