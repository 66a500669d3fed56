//! Classification of failures: the reason for a libtorch error message, and whether a failure may follow from another
//! one. Pure.

use datjob_api::report::{Failure, FailureReason};
use datjob_c10d::LibtorchErrorKind;

/// The failure reason for a libtorch error message. Also accepts the last output of a process that NCCL's watchdog aborted.
pub(crate) fn classify_libtorch_error(message: &str) -> FailureReason {
    match datjob_c10d::classify_libtorch_error(message) {
        LibtorchErrorKind::OutOfMemory => FailureReason::OutOfMemory,
        LibtorchErrorKind::Device => FailureReason::Device,
        LibtorchErrorKind::Communication => FailureReason::Communication,
        LibtorchErrorKind::Other => FailureReason::Crash,
    }
}

/// Whether a failure may be the consequence of another rank's failure: a rank that loses a peer fails with `Communication`.
/// Any other failure of the same generation replaces it.
pub(crate) fn may_be_consequence(failure: &Failure) -> bool {
    failure.reason == FailureReason::Communication
}
