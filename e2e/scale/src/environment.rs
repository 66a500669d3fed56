//! Describes the machine and the command of a run.

use std::{fs, process::Command, thread};

use jiff::Timestamp;

use crate::{command::run, figures::Environment};

/// Describes this machine. What cannot be found out is "unknown".
pub async fn describe(operator: &std::path::Path) -> Environment {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut version = Command::new(operator);
    version.arg("--version");
    let mut commit = Command::new("git");
    commit.args(["describe", "--always", "--dirty"]);
    Environment {
        processor: processor(&cpuinfo).unwrap_or("unknown").to_owned(),
        cores: thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_bytes: memory_bytes(&meminfo).unwrap_or_default(),
        kubernetes: "unknown".to_owned(),
        operator: output(version).await.trim_start_matches("datjob-operator ").to_owned(),
        commit: output(commit).await,
        date: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        command: std::env::var("DATJOB_SCALE_COMMAND")
            .unwrap_or_else(|_| std::env::args().collect::<Vec<_>>().join(" ")),
    }
}

async fn output(command: Command) -> String {
    run(command).await.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn processor(cpuinfo: &str) -> Option<&str> {
    cpuinfo.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1))
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kibibytes =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_processor_and_memory() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: x\n"), Some("AMD EPYC"));
        assert_eq!(memory_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
    }
}
