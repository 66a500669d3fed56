//! Commands in a separate network namespace.

use std::{os::unix::fs::MetadataExt, process::Command};

/// Wraps `program` so that it runs in a new network namespace, after the shell commands `setup` and before `report`. Without
/// root privileges, it also creates a user namespace.
pub(crate) fn in_network_namespace(setup: &str, program: &Command, report: &str) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let mut command = Command::new("unshare");
    command.arg("--net").args((!is_root).then_some(["--user", "--map-root-user"]).into_iter().flatten());
    let script = format!("ip link set lo up && {setup} && \"$@\" > /dev/null && {report}");
    command.args(["sh", "-c", &script, "sh"]).arg(program.get_program()).args(program.get_args());
    command
}
