//! The stack of a thread that hangs.

use std::{backtrace::Backtrace, time::Duration};

use crate::ffi::{self, milliseconds};

/// Prints the stack of the main thread on standard error; returns whether it was printed within the timeout, in whole seconds.
/// Call it from another thread of a process that is about to end: the main thread may never continue.
pub fn print_main_stack(timeout: Duration) -> bool {
    // SAFETY: it installs a handler of SIGUSR2, which the process does not use otherwise, and interrupts the main thread with
    // it. The function allocates memory and locks standard error: a main thread that was interrupted in the allocator or while it
    // printed waits for ever, as the caller expects. A panic would end the process, which is about to end.
    unsafe { ffi::datjob_interrupt_main_thread(print_stack, milliseconds(timeout)) != 0 }
}

/// Runs on the thread whose stack it prints.
extern "C" fn print_stack() {
    eprintln!("{}", Backtrace::force_capture());
}
