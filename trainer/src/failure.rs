//! Which failure caused the others, and which reason an error message of libtorch stands for. Pure.

use datjob_api::report::{Failure, FailureReason};
use datjob_c10d::LibtorchErrorKind;

/// The reason that a libtorch error message stands for. Also takes the last output of a process that NCCL's watchdog aborted.
pub(crate) fn classify_libtorch_error(message: &str) -> FailureReason {
    match datjob_c10d::classify_libtorch_error(message) {
        LibtorchErrorKind::OutOfMemory => FailureReason::OutOfMemory,
        LibtorchErrorKind::Device => FailureReason::Device,
        LibtorchErrorKind::Communication => FailureReason::Communication,
        LibtorchErrorKind::Other => FailureReason::Crash,
    }
}

/// Whether a failure may be the consequence of another rank's failure: a rank fails with `Communication` if it lost a peer.
/// Such a failure gives way to any other failure of the same generation.
pub(crate) fn may_be_consequence(failure: &Failure) -> bool {
    failure.reason == FailureReason::Communication
}
