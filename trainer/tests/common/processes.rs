//! The processes of a run: an agent and its workers.

use std::{
    fs,
    process::{Child, Command},
};

/// Process ids of an agent's workers.
pub(crate) fn worker_pids(agent: &Child) -> Vec<u32> {
    children(agent.id())
}

/// Process ids of the children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(") ").next().unwrap_or_default();
            after_name.split(' ').nth(1).and_then(|field| field.parse().ok()) == Some(parent)
        })
        .collect()
}

pub(crate) fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// Whether a process is a worker that still runs.
pub(crate) fn is_worker(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0worker\0"))
}
