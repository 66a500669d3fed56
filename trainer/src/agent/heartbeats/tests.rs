use std::{sync::Arc, time::Duration};

use datjob_api::report::{Failure, FailureReason, Phase};
use tokio::{sync::watch, time};

use crate::{
    agent::{self, Board, Config, Ending, http::testing::serve, testing::config},
    rendezvous::{
        host::testing::{heartbeat, host_on_stalled_volume},
        verdict_file::{RecordFailure, VerdictFile},
    },
};

/// Its failure, a missing file of the spec, would end the job.
#[tokio::test]
async fn the_agent_of_a_superseded_pod_stops_and_cannot_fail_the_job() {
    let (host, _volume) = host_on_stalled_volume(2);
    for pod_uid in ["old", "new"] {
        host.exchange(&heartbeat(1, pod_uid)).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let rendezvous_port = serve(Arc::clone(&host)).await;
    let config = Config { pod_index: 1, pod_uid: "old".into(), rendezvous_port, ..config(directory.path()) };
    let board = Arc::new(Board::new("uid", "old", 1));
    let work = time::timeout(Duration::from_secs(30), agent::work(&config, &board, watch::channel(false).1));
    assert_eq!(work.await.unwrap(), Ending::Superseded);
    assert_eq!(host.snapshot().verdict, None);
}

fn verdict_file(config: &Config) -> VerdictFile {
    VerdictFile::new(&config.job_directory(), "uid", 1, None)
}

/// The spec of this agent is missing, so it fails as soon as it prepares.
async fn work(config: &Config, board: &Arc<Board>) -> Ending {
    let work = agent::work(config, board, watch::channel(false).1);
    time::timeout(Duration::from_secs(30), work).await.unwrap()
}

#[tokio::test]
async fn an_agent_reports_a_final_failure_that_is_on_the_volume() {
    let directory = tempfile::tempdir().unwrap();
    let (config, board) = (config(directory.path()), Arc::new(Board::new("uid", "pod", 1)));
    let Ending::Failed(failure) = work(&config, &board).await else { panic!() };
    assert_eq!(failure.reason, FailureReason::Configuration);
    assert_eq!(verdict_file(&config).read().unwrap(), Some(failure.clone()));
    let report = board.report();
    assert_eq!((report.phase, report.failure), (Phase::Failed, Some(failure)));
}

#[tokio::test]
async fn pod_0_that_restarts_after_the_end_of_the_job_reports_the_recorded_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (config, board) = (config(directory.path()), Arc::new(Board::new("uid", "pod", 1)));
    std::fs::create_dir_all(config.job_directory()).unwrap();
    let failure = Failure::of_rank(FailureReason::Numerical, 1, "the loss is NaN");
    verdict_file(&config).record(&failure).unwrap();
    assert_eq!(work(&config, &board).await, Ending::Failed(failure.clone()));
    let report = board.report();
    assert_eq!((report.phase, report.failure), (Phase::Failed, Some(failure)));
}
