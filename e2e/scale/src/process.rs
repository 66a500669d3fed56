//! A process of the benchmark: the operator, or another controller.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    command::tail,
    wait::{Seen, wait_until},
};

/// How long a process may take to exit after SIGTERM.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Memory and processor time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Peak resident memory in bytes.
    pub peak_memory_bytes: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// User and system time in seconds.
    pub cpu_seconds: f64,
}

/// A running process. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let create = || File::create(&log).with_context(|| format!("cannot create {}", log.display()));
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(create()?)
            .stderr(
                File::options()
                    .append(true)
                    .open(&log)
                    .with_context(|| format!("cannot open {}", log.display()))?,
            )
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), child, log, started })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Fails if the process has exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot observe {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!(
                    "{} exited with {status}; the end of {}:\n{}",
                    self.name,
                    self.log.display(),
                    tail(&log)
                )
            }
        }
    }

    /// Memory and processor time so far. Fails if the process has exited.
    pub fn sample(&mut self) -> anyhow::Result<Usage> {
        self.check()?;
        usage(self.child.id()).with_context(|| format!("cannot measure {}", self.name))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot send SIGTERM to {}", self.name))
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits for the exit.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let what = format!("the exit of {}", self.name);
        wait_until(&what, EXIT_TIMEOUT, Duration::from_millis(20), async || {
            let exited = self.child.try_wait().with_context(|| format!("cannot observe {}", self.name))?;
            Ok(exited.map_or_else(|| Seen::Waiting("it runs".into()), |_| Seen::Done(())))
        })
        .await
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.wait().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory and processor time of a process.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    parse_usage(&read("status")?, &read("stat")?, rustix::param::clock_ticks_per_second())
        .with_context(|| format!("invalid /proc/{pid}/status or stat"))
}

fn parse_usage(status: &str, stat: &str, ticks_per_second: u64) -> Option<Usage> {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    // The command in parentheses may contain spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |index: usize| fields.split(' ').nth(index)?.parse::<u64>().ok();
    Some(Usage {
        peak_memory_bytes: bytes("VmHWM:")?,
        memory_bytes: bytes("VmRSS:")?,
        cpu_seconds: (ticks(11)? + ticks(12)?) as f64 / ticks_per_second as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_memory_and_processor_time() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 100";
        let usage = parse_usage(status, stat, 100).unwrap();
        assert_eq!(usage, Usage { peak_memory_bytes: 2 << 20, memory_bytes: 1 << 20, cpu_seconds: 3.0 });
        assert!(parse_usage("", stat, 100).is_none());
        assert!(super::usage(std::process::id()).unwrap().memory_bytes > 0);
    }

    #[tokio::test]
    async fn an_exit_is_an_error_with_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no lease; exit 4"]);
        let mut process = Process::start("the operator", command, directory.path().join("log")).unwrap();
        process.wait().await.unwrap();
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("the operator exited") && error.contains("no lease"), "{error}");
    }
}
