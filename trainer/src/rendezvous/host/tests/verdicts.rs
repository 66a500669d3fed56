//! Final failures and the volume.

use super::*;
use crate::rendezvous::{
    State,
    host::testing::host_with_stalled_verdicts,
    verdict_file::{RecordFailure, VerdictFile},
};

fn failure() -> Failure {
    Failure::of_rank(FailureReason::Numerical, 1, "the loss is NaN")
}

fn failing(pod: u32) -> Heartbeat {
    let state = State::Idle { ended: None };
    Heartbeat { state, failure: Some(failure()), ..heartbeat(pod, "a") }
}

fn failed() -> Verdict {
    Verdict::Failed(failure())
}

/// On one thread, as in a pod with one core.
#[tokio::test]
async fn no_pod_receives_a_verdict_that_is_not_durable() {
    let (host, volume) = host_with_stalled_verdicts(2);
    for _ in 0..3 {
        for beat in [failing(1), heartbeat(0, "a")] {
            let reply = host.exchange(&beat).await.unwrap();
            assert_eq!(reply, Reply { world: None, verdict: None });
        }
    }
    assert_eq!((host.failure(), host.snapshot().verdict), (None, None));
    // A full volume is retried.
    volume.send(Err(write_failed(rustix::io::Errno::NOSPC.into()))).unwrap();
    volume.send(Ok(())).unwrap();
    let verdict = async {
        loop {
            if let Some(verdict) = host.exchange(&heartbeat(0, "a")).await.unwrap().verdict {
                return verdict;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(time::timeout(Duration::from_secs(30), verdict).await.unwrap(), failed());
    assert_eq!(host.failure(), Some(failure()));
}

/// Without a file the verdict is lost with the host, but the job still ends.
#[tokio::test]
async fn a_verdict_that_can_never_be_recorded_still_ends_the_job() {
    let (host, volume) = host_with_stalled_verdicts(1);
    volume.send(Err(write_failed(io::ErrorKind::NotFound.into()))).unwrap();
    assert_eq!(host.exchange(&failing(0)).await.unwrap().verdict, Some(failed()));
}

#[tokio::test]
async fn a_host_that_restarts_in_the_same_attempt_has_the_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let host = Arc::new(Host::open(&options(2), directory.path()).unwrap());
    assert_eq!(host.exchange(&failing(1)).await.unwrap().verdict, Some(failed()));
    drop(host);
    let restarted = Arc::new(Host::open(&options(2), directory.path()).unwrap());
    assert_eq!(restarted.snapshot().verdict, Some(failed()));
    for pod in 0..2 {
        let reply = restarted.exchange(&heartbeat(pod, "a")).await.unwrap();
        assert_eq!(reply, Reply { world: None, verdict: Some(failed()) });
    }
}

#[tokio::test]
async fn a_verdict_of_another_attempt_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    VerdictFile::new(directory.path(), "uid", 1, None).record(&failure()).unwrap();
    let second = Options { attempt: 2, ..options(2) };
    let host = Arc::new(Host::open(&second, directory.path()).unwrap());
    assert_eq!(host.failure(), None);
    let beat = Heartbeat { attempt: 2, ..heartbeat(0, "a") };
    assert_eq!(host.exchange(&beat).await.unwrap().verdict, None);
}

/// The checkpoint shows that the job has trained, whatever this host has seen.
#[tokio::test]
async fn bad_data_of_a_pod_does_not_fail_a_job_with_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let retrying = Options { retries_pods: true, ..options(2) };
    let missing = Failure::new(FailureReason::Data, "cannot read /data/x: no such file");
    let failing = Heartbeat { state: State::Preparing, failure: Some(missing.clone()), ..heartbeat(1, "a") };
    std::fs::write(directory.path().join("checkpoint-0001.json"), "{}").unwrap();
    let host = Arc::new(Host::open(&retrying, directory.path()).unwrap());
    assert_eq!(host.exchange(&failing).await.unwrap().verdict, None);
    let failure = host.snapshot().failure.unwrap();
    assert!(failure.message.starts_with("pod 1 cannot join: cannot read /data/x: "), "{}", failure.message);
    drop(host);
    std::fs::remove_file(directory.path().join("checkpoint-0001.json")).unwrap();
    let host = Arc::new(Host::open(&retrying, directory.path()).unwrap());
    assert_eq!(host.exchange(&failing).await.unwrap().verdict, Some(Verdict::Failed(missing)));
}
