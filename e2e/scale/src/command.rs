//! Runs programs: kubectl, helm, the cluster, ip.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

/// Bytes of the output of a failed program in its error.
const MAX_OUTPUT_BYTES: usize = 2000;

/// How long a program may run.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs a program to its end and returns its standard output.
pub async fn run(mut command: Command) -> anyhow::Result<String> {
    let line = describe(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    let pid = Pid::from_child(&child);
    let mut output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let Ok(output) = timeout(LIMIT, &mut output).await else {
        // It cannot be another process: nothing else waits for the child.
        let _ = kill_process(pid, Signal::KILL);
        bail!("`{line}` did not exit within {} s", LIMIT.as_secs());
    };
    let cannot_wait = || format!("cannot wait for `{line}`");
    let output = output.with_context(cannot_wait)?.with_context(cannot_wait)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        bail!("`{line}` failed with {}: {}", output.status, tail(&all));
    }
    Ok(text(&output.stdout))
}

/// The command line.
fn describe(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(command.get_program().to_string_lossy()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// The end of a text.
pub fn tail(text: &str) -> &str {
    let text = text.trim();
    let mut start = text.len().saturating_sub(MAX_OUTPUT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_name_the_command_and_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such claim >&2; exit 3"]);
        let error = run(command).await.unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("no such claim") && error.contains('3'), "{error}");
        assert!(run(Command::new("/does/not/exist")).await.is_err());
    }

    #[test]
    fn the_tail_ends_the_text() {
        assert_eq!(tail(" short\n"), "short");
        assert_eq!(tail(&"ä".repeat(5000)).len(), MAX_OUTPUT_BYTES);
    }
}
