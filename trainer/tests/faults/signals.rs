//! Signals to processes, and the states of processes.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal. Returns whether the process exists.
pub(crate) fn signal(pid: u32, signal: Signal) -> bool {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).is_ok()
}

/// Whether a process is stopped by SIGSTOP.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
}
