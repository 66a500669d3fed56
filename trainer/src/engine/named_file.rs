//! The files that a spec names beside its data set's, as a rank meets them.

use std::path::{Path, PathBuf};

use datjob_api::training::NamedFile;

use crate::worker_protocol::Assignment;
use datjob_adversarial::{model::ModelError, state_dict::ReadError};
use datjob_data::NpzError;

/// Where the file of an assignment is.
pub(super) fn path(assignment: &Assignment, file: NamedFile) -> Result<&Path, NamedFileError> {
    assignment.file(file).ok_or(NamedFileError::NotGiven(file))
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamedFileError {
    /// Nobody gave it.
    #[error(
        "spec.training.{}: volumes are not available on a workstation; pass the file with --{} FILE",
        .0.field(), .0.name()
    )]
    NotGiven(NamedFile),
    /// Weights that cannot be read.
    #[error("spec.training.{}: {error}", file.field())]
    Weights {
        /// What they are for.
        file: NamedFile,
        /// What is wrong with them.
        #[source]
        error: ReadError,
    },
    /// Weights of another network.
    #[error(
        "spec.training.{}: the weights in {} do not match the network: {error}; check the model in the spec",
        file.field(), path.display()
    )]
    Model {
        /// What they are for.
        file: NamedFile,
        /// The file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        error: ModelError,
    },
    /// Images that cannot be read.
    #[error("spec.training.data.additional.source: {0}")]
    Images(#[from] NpzError),
    /// Images without labels.
    #[error(
        "spec.training.data.additional.source: {} has no labels; set data.additional.labels.teacher, or labels.none with \
         objective.trades",
        .0.display()
    )]
    NoLabels(PathBuf),
    /// A label that stands for no class.
    #[error(
        "spec.training.data.additional: image {image}: label {label} is out of range; the data set has classes 0 to {}",
        classes - 1
    )]
    Label {
        /// The image, counted from 0.
        image: usize,
        /// Its label.
        label: i64,
        /// The number of classes.
        classes: i64,
    },
}
