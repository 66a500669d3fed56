use datjob_api::report::FailureReason;
use datjob_c10d::C10dError;
use tch::TchError;

use crate::{
    checkpoint::{CheckpointError, FormatError},
    data::DataError,
    evaluate::{CountsError, EvaluateError},
    model::ModelError,
};

/// Why a rank cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Weights that are not those of this network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A collective, or the store.
    #[error(transparent)]
    Collective(#[from] C10dError),
    /// The loss left the numbers.
    #[error(
        "the loss is {value} at step {step} (epoch {epoch}): the learning rate is too high for this objective; lower \
         optimizer.sgd.learningRate or add warmupEpochs"
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
    /// What rank 0 told of the best weights.
    #[error("what rank 0 told of the best weights is not readable: {0}")]
    Best(#[from] serde_json::Error),
    /// A tensor that cannot be kept.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// libtorch.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] TchError),
}

impl TrainError {
    /// What kind of failure it is.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Data(_) | Self::Checkpoint(_) | Self::Model(_) | Self::Format(_) => FailureReason::Data,
            Self::Collective(error) if error.is_communication() => FailureReason::Communication,
            Self::Collective(error) => of_libtorch(&error.to_string()),
            Self::NotFinite { .. } | Self::Evaluate(EvaluateError::NotFinite) => FailureReason::Numerical,
            Self::Evaluate(error) => of_libtorch(&error.to_string()),
            Self::Torch(error) => of_libtorch(&error.to_string()),
            Self::Counts(_) | Self::Best(_) => FailureReason::Crash,
        }
    }
}

fn of_libtorch(message: &str) -> FailureReason {
    let message = message.to_lowercase();
    if message.contains("not enough memory")
        || message.contains("can't allocate memory")
        || message.contains("out of memory")
    {
        return FailureReason::OutOfMemory;
    }
    FailureReason::Crash
}

fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_apart() {
        let allocator = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried \
                         to allocate 4096000000000 bytes. Error code 12 (Cannot allocate memory)";
        assert_eq!(TrainError::Torch(TchError::Torch(allocator.into())).reason(), FailureReason::OutOfMemory);
        assert_eq!(
            TrainError::Torch(TchError::Torch("shape mismatch".into())).reason(),
            FailureReason::Crash
        );
    }
}
