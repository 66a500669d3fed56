use std::io;

use datjob_api::report::FailureReason;

use super::{
    testing::{heartbeat, host_on_stalled_volume, host_with, options},
    *,
};

mod verdicts;

fn write_failed(error: io::Error) -> FileError {
    FileError::new("write", Path::new("/checkpoints/generation"), error)
}

/// Sends heartbeats of pods 0 and 1 until they have a world.
async fn wait_for_world(host: &Arc<Host>) -> World {
    let world = async {
        loop {
            for pod in 0..2 {
                if let Some(world) = host.exchange(&heartbeat(pod, "a")).await.unwrap().world {
                    return world;
                }
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(30), world).await.unwrap()
}

/// On one thread, as in a pod with one core.
#[tokio::test]
async fn heartbeats_are_answered_while_the_volume_stalls() {
    let (host, volume) = host_on_stalled_volume(2);
    let begin = Instant::now();
    for pod in [0, 1, 0, 1] {
        let reply = host.exchange(&heartbeat(pod, "a")).await.unwrap();
        assert_eq!(reply.world, None, "the generation is not durable yet");
    }
    let snapshot = host.snapshot();
    assert_eq!((snapshot.generation, snapshot.running, snapshot.joined), (0, None, 2));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    volume.send(Ok(())).unwrap();
    assert_eq!(wait_for_world(&host).await.generation, 1);
    assert_eq!(host.snapshot().generation, 1);
}

/// As long as the volume has a fault, pods receive no world, and the report has the fault.
#[tokio::test]
async fn a_generation_that_cannot_be_recorded_is_waited_for() {
    let (host, volume) = host_on_stalled_volume(2);
    volume.send(Err(write_failed(rustix::io::Errno::IO.into()))).unwrap();
    for pod in 0..2 {
        assert_eq!(host.exchange(&heartbeat(pod, "a")).await.unwrap().world, None);
    }
    assert!(host.generation_wait().is_some());
    // In the pause before the next try.
    host.exchange(&heartbeat(0, "a")).await.unwrap();
    assert!(host.generation_wait().is_some());
    volume.send(Ok(())).unwrap();
    assert_eq!(wait_for_world(&host).await.generation, 1);
    assert!(host.generation_wait().is_none());
}

#[tokio::test]
async fn an_error_that_does_not_pass_fails_the_job() {
    let (host, volume) = host_on_stalled_volume(1);
    volume.send(Err(write_failed(io::ErrorKind::NotFound.into()))).unwrap();
    assert_eq!(host.exchange(&heartbeat(0, "a")).await.unwrap(), Reply { world: None, verdict: None });
    let reply = host.exchange(&heartbeat(0, "a")).await.unwrap();
    let Some(Verdict::Failed(failure)) = reply.verdict else { panic!("{reply:?}") };
    assert_eq!((reply.world, failure.reason), (None, FailureReason::Data));
    assert!(failure.message.starts_with("cannot write /checkpoints/generation: "), "{}", failure.message);
}

#[tokio::test]
async fn heartbeats_of_other_jobs_attempts_and_superseded_pods_are_rejected() {
    let (host, _volume) = host_on_stalled_volume(2);
    let other_job = Heartbeat { job_uid: "other".into(), ..heartbeat(1, "old") };
    let refused = Refused::OtherJob { ours: "uid".into(), theirs: "other".into() };
    assert_eq!(host.exchange(&other_job).await, Err(refused));
    let other_attempt = Heartbeat { attempt: 2, ..heartbeat(1, "old") };
    assert_eq!(host.exchange(&other_attempt).await, Err(Refused::OtherAttempt { ours: 1, theirs: 2 }));
    for pod_uid in ["old", "new"] {
        host.exchange(&heartbeat(1, pod_uid)).await.unwrap();
    }
    let superseded = host.exchange(&heartbeat(1, "old")).await.unwrap_err().to_string();
    assert_eq!(superseded, "heartbeat of pod 1 with UID old rejected: the pod with UID new replaced it");
    assert_eq!(host.snapshot().joined, 1);
}

#[tokio::test]
async fn a_replayed_heartbeat_is_rejected() {
    let host = host_with(&Options { token: Some(Token::random().unwrap()), ..options(2) });
    let beat = Heartbeat { sequence: 4, ..heartbeat(1, "a") };
    host.exchange(&beat).await.unwrap();
    let replayed = Refused::Replayed { pod: 1, sequence: 4, newest: 4 };
    assert_eq!(host.exchange(&beat).await, Err(replayed));
    host.exchange(&Heartbeat { sequence: 5, ..beat }).await.unwrap();
}
