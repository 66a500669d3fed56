//! Maps libtorch's error messages to reasons of a job's failure. Pure.

use datjob_api::report::FailureReason;
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
