//! What runs log, and what is left of the logs of failed workers.

use std::{fs, process::Stdio, thread, time::Duration};

use serde_json::json;

use super::{
    data,
    processes::{kill, worker_pids},
    run::{Run, manifest},
};

/// The lines are those that pod 0 of a cluster logs.
#[test]
fn the_log_has_the_progress() {
    let mut manifest = manifest();
    manifest["spec"]["training"]["schedule"]["epochs"] = 2.into();
    let run = Run::new(&manifest);
    let output = run.command(data()).env("DATJOB_LOG", "info").env("NO_COLOR", "1").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let lines = |message: &str| log.lines().filter(|line| line.contains(message)).collect::<Vec<_>>();
    let epochs = lines("Completed an epoch.");
    assert_eq!(epochs.len(), 2, "{log}");
    assert!(epochs[1].contains("epoch=2 epochs=2 step=120 loss=") && epochs[1].contains("eta="), "{log}");
    let last = lines("Measured the accuracy.").pop().unwrap().to_owned();
    assert!(last.contains(r#"split="test""#) && last.contains(r#"attacks="pgd-2 "#), "{log}");
    let validations = lines(r#"split="validation""#);
    assert!(
        validations.len() == 2 && validations.iter().all(|line| line.contains(r#"attack="pgd-1""#)),
        "{log}"
    );
    let evaluating = lines("Evaluating.");
    assert!(
        evaluating[0].contains(r#"on="test set" attack="pgd-2" iteration=0 iterations=2 done=0 total=500"#),
        "{log}"
    );
}

#[test]
fn a_failed_worker_leaves_the_end_of_its_log() {
    let empty = tempfile::tempdir().unwrap();
    let run = Run::new(&manifest());
    run.fail(empty.path());
    let logs: Vec<_> = fs::read_dir(run.file("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!logs.is_empty());
    for path in logs {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("attempt-1-generation-0001-rank-00"), "{name}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("Worker failed.") && text.contains("train or val is missing"), "{text}");
    }
}

#[test]
fn failures_without_progress_end_a_run_at_the_limit() {
    let mut manifest = manifest();
    manifest["spec"]["lifecycle"] = json!({"maxRestarts": 0});
    let run = Run::new(&manifest);
    let mut command = run.command(data());
    let agent = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    run.wait_for("generation");
    while worker_pids(&agent).len() < 2 {
        thread::sleep(Duration::from_millis(20));
    }
    kill(worker_pids(&agent)[1]);
    let output = agent.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let expected = "1 failure without progress exceeds lifecycle.maxRestarts (0). Last failure: rank ";
    assert!(message.contains(expected), "{message}");
}
