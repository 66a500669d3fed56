//! The stack of a thread that hangs.

use std::time::Duration;

use crate::ffi::{self, milliseconds};

/// Prints the stack of the main thread on standard error; returns whether it was printed within the timeout, in whole seconds.
/// Call it from another thread of a process that is about to end: the main thread may never continue.
pub fn print_main_stack(timeout: Duration) -> bool {
    // SAFETY: it installs a handler of SIGUSR2, which the process does not use otherwise, and interrupts the main thread with
    // it. The handler allocates memory: a thread that was interrupted in the allocator waits for ever, as the caller expects.
    unsafe { ffi::datjob_print_main_stack(milliseconds(timeout)) != 0 }
}
