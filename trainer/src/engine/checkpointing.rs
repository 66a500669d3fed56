//! Checkpoints of a training: resuming from the newest, saving an epoch, and adding to it what its validation showed.

use datjob_api::{
    Training,
    training::{Contents, NamedFile},
};
use datjob_c10d::ProcessGroup;
use datjob_data::weights::WeightsCard;

use super::{Rank, State, Tell, TrainError, named_file, validation};
use crate::{
    checkpoint::{Directory, SavedTensors},
    worker_protocol::{Assignment, Event},
};

/// Rank 0 reads the newest checkpoint or, without a checkpoint, the initial weights of the spec. All ranks then have its
/// state. Returns the tensors of the checkpoint on the volume, on rank 0.
pub(super) fn resume(
    state: &mut State,
    checkpoints: &Directory,
    assignment: &Assignment,
    contents: &Contents,
    group: &ProcessGroup,
    tell: Tell<'_>,
) -> Result<Option<SavedTensors>, TrainError> {
    let training = &assignment.training;
    let mut saved = None;
    if group.rank() == 0 {
        if let Some(manifest) = checkpoints.newest()? {
            let tensors = checkpoints.load(&manifest)?;
            state.restore(training, &manifest, tensors)?;
            tracing::info!(epoch = manifest.epoch, "Resumed from a checkpoint.");
            saved = Some(SavedTensors { epoch: manifest.epoch, sha256: manifest.sha256 });
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
    Ok(saved)
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

impl Rank<'_> {
    /// What files of weights say about the images that they were trained on.
    pub(super) fn card(&self) -> WeightsCard {
        weights_card(self.training, &self.data.contents(), self.state.validation_seed)
    }

    /// Validates an epoch. Its checkpoint, if it has one, is there before, so that a validation that fails costs no epoch; what
    /// the validation showed is added to it.
    pub(super) fn validate_and_save(&mut self) -> Result<(), TrainError> {
        let went_back = self.validate()?;
        self.state.validation_pending = false;
        if went_back {
            // The checkpoint stays as it is: a run that resumes from it validates, and goes back, again.
            return Ok(());
        }
        match self.saved_tensors.take_if(|saved| saved.epoch == self.state.epoch) {
            Some(saved) => self.save_manifest(&saved),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint.
    pub(super) fn save(&mut self) -> Result<(), TrainError> {
        if self.is_first() {
            let saved = self.checkpoints.save_tensors(self.state.epoch, &self.state.tensors())?;
            self.save_manifest(&saved)?;
            self.saved_tensors = Some(saved);
        }
        Ok(())
    }

    /// Writes the manifest of a checkpoint whose tensors are there.
    fn save_manifest(&mut self, tensors: &SavedTensors) -> Result<(), TrainError> {
        if let Some(outputs) = &mut self.outputs {
            outputs.save_history();
            if !self.state.validation_pending {
                outputs.save_curves();
            }
        }
        let best = self.state.best.as_ref();
        self.checkpoints.save_manifest(
            self.state.position(),
            tensors,
            best,
            self.state.overfitting_reference.as_ref(),
        )?;
        let kept = self.training.checkpoint.keep.last as usize;
        if let Err(error) = self.checkpoints.clean(kept, best) {
            // The checkpoint is valid, and the next one tries again.
            tracing::warn!(%error, "Cannot remove an older checkpoint; continuing.");
        }
        Ok(())
    }
}
