//! Weights to begin with, where others made them.

use std::path::PathBuf;

use datjob_api::training::InitialWeights;

use super::{TrainError, state::State};
use crate::{
    model::ModelError,
    weights::{self, WeightsError},
};

/// Initial weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InitialWeightsError {
    /// The file.
    #[error("spec.training.model.initialWeights: {0}")]
    File(#[from] WeightsError),
    /// What is in it.
    #[error(
        "spec.training.model.initialWeights: {} does not hold this network's weights: {error}; look at spec.training.model",
        path.display()
    )]
    Model {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        error: ModelError,
    },
    /// Nobody gave it.
    #[error(
        "spec.training.model.initialWeights names a file of a volume, and there is none on a workstation: give it with \
         --initial-weights FILE"
    )]
    NotGiven,
}

/// Puts the weights of a file into a state in which nothing was trained yet.
pub(super) fn load(state: &State, spec: &InitialWeights, file: Option<&PathBuf>) -> Result<(), TrainError> {
    let path = file.ok_or(InitialWeightsError::NotGiven)?;
    let tensors = weights::read(path).map_err(InitialWeightsError::from)?;
    let loaded = state.network.load_pretrained(tensors, spec.new_head);
    let new_head = loaded.map_err(|error| InitialWeightsError::Model { path: path.clone(), error })?;
    tracing::info!(path = %path.display(), new_head, "Begins with weights that others made.");
    if let Some(average) = &state.average {
        average.network.load_state(state.network.state())?;
    }
    Ok(())
}
