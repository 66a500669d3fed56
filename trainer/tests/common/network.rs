//! A network of a run's own.

use std::{os::unix::fs::MetadataExt, process::Command};

/// Runs `program` with `arguments` in a network namespace of its own, after the shell commands `setup` and before those of
/// `report`. An ordinary user is root in a user namespace for it.
pub(crate) fn command(setup: &str, program: &Command, report: &str) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut command = Command::new("unshare");
    command.arg("--net").args((!is_root).then_some(["--user", "--map-root-user"]).into_iter().flatten());
    let script = format!("ip link set lo up && {setup} && \"$@\" > /dev/null && {report}");
    command.args(["sh", "-c", &script, "sh"]).arg(program.get_program()).args(program.get_args());
    command
}
