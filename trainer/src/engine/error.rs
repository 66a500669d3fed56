use std::{error::Error as _, iter};

use datjob_api::{report::FailureReason, training::InvalidTraining};
use datjob_c10d::{C10dError, CudaError, libtorch_message};
use tch::TchError;

use super::NamedFileError;
use crate::{checkpoint::CheckpointError, failure::classify_libtorch_error, placement::ReadScalarError};
use datjob_adversarial::{
    evaluate::{CountsError, EvaluateError},
    model::ModelError,
    state_dict::StateDictError,
};
use datjob_data::{DataError, storage};

/// Why a rank cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data set is not one that the spec can be run on.
    #[error(transparent)]
    Training(#[from] InvalidTraining),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The world ended because a rank was asked to leave.
    #[error(
        "the world ended after the checkpoint of step {step}, because one of its pods was asked to terminate"
    )]
    Left {
        /// Completed optimizer steps.
        step: u64,
    },
    /// The thread that writes checkpoints.
    #[error("the thread that writes checkpoints cannot work: {0}")]
    CheckpointThread(String),
    /// Weights that are not those of this network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file beside the data set.
    #[error(transparent)]
    File(Box<NamedFileError>),
    /// Not all ranks read the same images.
    #[error(
        "rank {rank} reads different images than rank 0: all pods must read the same files; use a source that cannot \
         change (http with sha256, an object SHA256SUMS, an image by digest)"
    )]
    OtherData {
        /// The first rank that differs.
        rank: usize,
    },
    /// A collective, or the store.
    #[error(transparent)]
    Collective(#[from] C10dError),
    /// The loss left the numbers.
    #[error(
        "loss is not finite ({value}) at step {step} (epoch {epoch}): training diverged; lower the optimizer's \
         learningRate or set schedule.warmupEpochs"
    )]
    NotFinite {
        /// The loss.
        value: f64,
        /// The step, counted from 1 over all epochs.
        step: u64,
        /// The epoch, counted from 1.
        epoch: u32,
    },
    /// An evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Counts that other ranks sent.
    #[error(transparent)]
    Counts(#[from] CountsError),
    /// What another rank sent is invalid.
    #[error("invalid message from another rank: {0}")]
    Message(#[from] serde_json::Error),
    /// A tensor that cannot be kept.
    #[error(transparent)]
    Format(#[from] StateDictError),
    /// The GPU cannot be used.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A scalar could not be read from the device.
    #[error(transparent)]
    Reading(#[from] ReadScalarError),
    /// libtorch.
    #[error("{}", libtorch_message(.0))]
    Torch(#[from] TchError),
}

impl From<NamedFileError> for TrainError {
    fn from(error: NamedFileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl TrainError {
    /// What kind of failure it is.
    pub fn reason(&self) -> FailureReason {
        // An error of libtorch (out of memory, a device) has the same reason wherever it occurs.
        let mut causes = iter::successors(self.source(), |&error| error.source());
        if let Some(error) = causes.find_map(|error| error.downcast_ref::<TchError>()) {
            return classify_libtorch_error(&error.to_string());
        }
        if storage::trouble(self).is_some() {
            return FailureReason::Storage;
        }
        match self {
            // Threads that cannot be had are no want of a file.
            Self::Data(DataError::Thread(_))
            | Self::CheckpointThread(_)
            | Self::Counts(_)
            | Self::Message(_) => FailureReason::Crash,
            Self::Data(_)
            | Self::Checkpoint(_)
            | Self::Model(_)
            | Self::File(_)
            | Self::OtherData { .. }
            | Self::Format(_)
            | Self::Evaluate(EvaluateError::Data(_)) => FailureReason::Data,
            Self::Left { .. } => FailureReason::Communication,
            Self::Collective(error) if error.is_communication() => FailureReason::Communication,
            Self::Collective(error) => classify_libtorch_error(&error.to_string()),
            Self::NotFinite { .. } | Self::Evaluate(EvaluateError::NotFinite) => FailureReason::Numerical,
            Self::Evaluate(EvaluateError::Cancelled | EvaluateError::Tensor(_)) | Self::Torch(_) => {
                FailureReason::Crash
            }
            Self::Cuda(CudaError::NoDevice(_)) => FailureReason::Device,
            // Another spec, image, runtime class or driver is needed: trying again meets the same.
            Self::Training(_) | Self::Cuda(_) => FailureReason::Configuration,
            Self::Reading(error) => classify_libtorch_error(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datjob_api::training::NamedFile;
    use datjob_data::files::FileError;

    use super::*;

    #[test]
    fn out_of_memory_has_its_reason() {
        let allocator = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried \
                         to allocate 4096000000000 bytes. Error code 12 (Cannot allocate memory)";
        assert_eq!(TrainError::Torch(TchError::Torch(allocator.into())).reason(), FailureReason::OutOfMemory);
        assert_eq!(
            TrainError::Torch(TchError::Torch("shape mismatch".into())).reason(),
            FailureReason::Crash
        );
    }

    #[test]
    fn an_error_of_libtorch_has_the_same_reason_everywhere() {
        let error =
            || TchError::Torch("CUDA error: out of memory\nException raised from f at g.cpp:1".into());
        let weights = NamedFileError::Weights { file: NamedFile::TeacherWeights, error: error().into() };
        let model = NamedFileError::Model {
            file: NamedFile::InitialWeights,
            path: "a.safetensors".into(),
            error: error().into(),
        };
        let errors = [
            TrainError::Torch(error()),
            TrainError::Model(error().into()),
            TrainError::Evaluate(error().into()),
            TrainError::Format(error().into()),
            TrainError::Reading(error().into()),
            weights.into(),
            model.into(),
        ];
        for error in errors {
            assert_eq!(error.reason(), FailureReason::OutOfMemory, "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_fault_of_storage_is_not_final_wherever_it_occurs() {
        let io = || std::io::Error::from(rustix::io::Errno::STALE);
        let read = || DataError::Read { path: "a.jpg".into(), source: io() };
        let errors = [
            TrainError::Data(read()),
            TrainError::Evaluate(EvaluateError::Data(read())),
            CheckpointError::File(FileError::new("write", Path::new("a"), io())).into(),
        ];
        for error in errors {
            assert_eq!(error.reason(), FailureReason::Storage, "{error}");
            assert!(!error.reason().is_final());
        }
        let missing = DataError::Read { path: "a.jpg".into(), source: std::io::ErrorKind::NotFound.into() };
        assert_eq!(TrainError::Data(missing).reason(), FailureReason::Data);
    }

    #[test]
    fn a_missing_device_and_a_missing_library_have_different_reasons() {
        let error = TrainError::Cuda(CudaError::NoLibraries("libtorch_cuda.so".into()));
        assert_eq!(error.reason(), FailureReason::Configuration);
        assert_eq!(TrainError::Cuda(CudaError::NoDevice("gone".into())).reason(), FailureReason::Device);
    }
}
