//! What libtorch itself writes.

use crate::ffi;

/// The least severe of libtorch's own messages that are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Info,
    /// Warnings and errors: libtorch's default.
    Warning,
    /// Errors.
    Error,
    /// Only what ends the process.
    Fatal,
}

/// Sets what libtorch writes to standard error from now on, in all threads.
///
/// c10d writes lines with C++ stacks for what its functions also return as errors, and while it retries: a process
/// that reports the errors itself wants [`LogLevel::Fatal`].
pub fn set_log_level(level: LogLevel) {
    let level = match level {
        LogLevel::Info => 0,
        LogLevel::Warning => 1,
        LogLevel::Error => 2,
        LogLevel::Fatal => 3,
    };
    // SAFETY: sets an integer of libtorch, atomically.
    unsafe { ffi::datjob_set_log_level(level) }
}
