//! The log level of libtorch.

use crate::ffi;

/// The minimum severity of libtorch's messages on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// All messages.
    Info,
    /// Warnings and errors: libtorch's default.
    Warning,
    /// Errors.
    Error,
    /// Only fatal errors, which end the process.
    Fatal,
}

/// Sets the log level of libtorch in all threads.
///
/// c10d logs lines with C++ stacks for errors that its functions also return, and while it retries. Use
/// [`LogLevel::Fatal`] in a process that reports the errors.
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
