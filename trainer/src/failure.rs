//! Which failure of a job a message of libtorch stands for. Pure.

use datjob_api::report::FailureReason;
use datjob_c10d::LibtorchErrorKind;

/// What kind of failure a message of libtorch tells of; also the last words of a process that NCCL's watchdog ended.
pub(crate) fn classify_libtorch_error(message: &str) -> FailureReason {
    match datjob_c10d::classify_libtorch_error(message) {
        LibtorchErrorKind::OutOfMemory => FailureReason::OutOfMemory,
        LibtorchErrorKind::Device => FailureReason::Device,
        LibtorchErrorKind::Communication => FailureReason::Communication,
        LibtorchErrorKind::Other => FailureReason::Crash,
    }
}
