//! A child process: its state in the kernel, and its end.

use std::{process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Child, time};

/// How long the end of a killed process is waited for.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Kills a process and waits for its end, but not for ever: one that waits in the kernel, for a device or a file, ends later.
pub(super) async fn kill(child: &mut Child) -> Result<ExitStatus, String> {
    child.start_kill().map_err(|error| format!("cannot kill the worker process: {error}"))?;
    match time::timeout(KILL_TIMEOUT, child.wait()).await {
        Ok(status) => status.map_err(|error| format!("cannot wait for the worker process: {error}")),
        Err(_) => Err(format!(
            "the worker did not end within {} s after SIGKILL: it waits in the kernel, for a device or a file ({})",
            KILL_TIMEOUT.as_secs(),
            process_state(child.id())
        )),
    }
}

/// Resumes a process, if it was stopped; returns the state that it had.
pub(super) fn resume(pid: Option<u32>) -> String {
    let state = process_state(pid);
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::CONT);
    }
    state
}

/// The state of the main thread of a process as the kernel shows it, for example `T (stopped), in do_signal_stop`.
fn process_state(pid: Option<u32>) -> String {
    let Some(pid) = pid else { return "ended".to_owned() };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).map_or("unknown", str::trim);
    match std::fs::read_to_string(format!("/proc/{pid}/wchan")) {
        Ok(function) if !function.is_empty() && function != "0" => format!("{state}, in {function}"),
        _ => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_stopped_process_is_resumed_and_its_state_is_known() {
        let mut child = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let has_state = |prefix: &str| process_state(child.id()).starts_with(prefix);
        while !has_state("T (stopped)") {
            time::sleep(Duration::from_millis(5)).await;
        }
        assert!(resume(child.id()).starts_with("T (stopped)"));
        while has_state("T (stopped)") {
            time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(kill(&mut child).await.unwrap().signal(), Some(9));
        assert_eq!(process_state(child.id()), "ended");
    }
}
