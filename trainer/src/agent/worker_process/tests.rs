use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::*;
use crate::worker_protocol::Accelerator;

fn ended_by(signal: i32, tail: &[&str]) -> Failure {
    let tail: Vec<String> = tail.iter().map(|&line| line.to_owned()).collect();
    unexplained(1, &Ok(ExitStatus::from_raw(signal)), &tail, Killer::Process)
}

#[test]
fn an_uncaught_exception_names_the_failure() {
    let terminate = "terminate called after throwing an instance of 'c10::DistBackendError'";
    let timeout = "  what():  [PG ID 0 PG GUID 0 Rank 1] Process group watchdog thread terminated with exception: \
                   [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12)";
    let failure = ended_by(6, &["Epoch 3.", terminate, timeout]);
    assert_eq!(failure.reason, FailureReason::Communication);
    assert!(failure.message.contains("Watchdog caught"), "{}", failure.message);
    let lost = "  what():  CUDA error: unspecified launch failure";
    assert_eq!(ended_by(6, &[terminate, lost]).reason, FailureReason::Device);
    assert_eq!(ended_by(6, &[terminate, "  what():  vector::_M_range_check"]).reason, FailureReason::Crash);
    assert_eq!(ended_by(11, &["NCCL is fine."]).reason, FailureReason::Crash);
}

#[test]
fn a_kill_is_out_of_memory_only_if_the_kernel_counted_it() {
    let killed = |killer| unexplained(1, &Ok(ExitStatus::from_raw(9)), &[], killer);
    assert_eq!([Killer::Process, Killer::Unknown].map(|one| killed(one).reason), [FailureReason::Crash; 2]);
    for (killer, advice) in [
        (Killer::KernelInPod, "raise spec.pod.resources.limits.memory"),
        (Killer::KernelOnWorkstation, "lower --workers"),
    ] {
        let failure = killed(killer);
        assert_eq!(failure.reason, FailureReason::OutOfMemory);
        assert!(failure.message.contains(advice), "{}", failure.message);
    }
    let aborted = unexplained(1, &Ok(ExitStatus::from_raw(6)), &[], Killer::KernelInPod);
    assert_eq!(aborted.reason, FailureReason::Crash);
}

/// Watches a shell script as the worker of rank 3 in generation 2.
async fn watch_script(script: &str, checkpoints: &Path) -> End {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let manifest = serde_json::json!({
        "model": {"architecture": "small-cnn"},
        "data": {"dataset": "mnist", "source": {"volume": {"persistentVolumeClaim": {"claimName": "x"}}}},
        "threatModel": {"epsilon": "0.1"}, "attack": {"fgsm": {}}, "schedule": {"epochs": 1, "batchSize": 8}
    });
    let assignment = Assignment {
        job_uid: "uid".into(),
        attempt: 1,
        training: serde_json::from_value(manifest).unwrap(),
        data: PathBuf::new(),
        files: BTreeMap::new(),
        checkpoints: checkpoints.to_owned(),
        checkpoints_below_volume: "uid".into(),
        generation: 2,
        rank: 3,
        world_size: 4,
        store_host: String::new(),
        store_port: 0,
        address: String::new(),
        threads: 1,
        accelerator: Accelerator::None,
    };
    let (events, _inbox) = mpsc::unbounded_channel();
    let (_orders, received) = mpsc::unbounded_channel();
    watch(shell.spawn().unwrap(), &assignment, received, &events).await.unwrap()
}

#[tokio::test]
async fn a_failed_worker_leaves_the_end_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
    let end = watch_script(script, directory.path()).await;
    assert_eq!(end.log_tail.len(), LOG_TAIL);
    let path = end.log_file.unwrap().unwrap();
    assert_eq!(path, "uid/logs/attempt-1-generation-0002-rank-003.log");
    let file = directory.path().join(path.strip_prefix("uid/").unwrap());
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!((text.lines().next(), text.lines().last()), (Some("line 100"), Some("line 299")));
}

#[tokio::test]
async fn a_worker_that_succeeds_leaves_no_log() {
    let directory = tempfile::tempdir().unwrap();
    let end = watch_script("echo done >&2", directory.path()).await;
    assert!(end.is_success() && end.log_file.is_none());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
