//! Weights to begin with, where others made them.

use std::path::Path;

use datjob_api::training::{InitialWeights, NamedFile};

use super::{NamedFileError, TrainError, state::State};
use crate::weights;

const FILE: NamedFile = NamedFile::InitialWeights;

/// Puts the weights of a file into a state in which nothing was trained yet.
pub(super) fn load(state: &State, spec: &InitialWeights, path: &Path) -> Result<(), TrainError> {
    let tensors = weights::read(path).map_err(|error| NamedFileError::Weights { file: FILE, error })?;
    let new_head = state
        .network
        .load_pretrained(tensors, spec.new_head)
        .map_err(|error| NamedFileError::Model { file: FILE, path: path.to_owned(), error })?;
    tracing::info!(path = %path.display(), new_head, "Begins with weights that others made.");
    if let Some(average) = &state.average {
        average.network.load_state(state.network.state())?;
    }
    Ok(())
}
