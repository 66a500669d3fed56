use std::{sync::mpsc, time::Duration};

use datjob_api::report::{Preparation, PreparationStep};
use datjob_data::DownloadObserver;

use super::*;
use crate::agent::{Board, open_client, testing::config};

/// Waits until the report of the board has a preparation like this.
async fn wait_until(board: &Board, is_expected: impl Fn(&Preparation) -> bool) -> Preparation {
    let expected = async {
        loop {
            if let Some(preparation) = board.report().preparation.filter(&is_expected) {
                return preparation;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(30), expected).await.unwrap()
}

#[tokio::test]
async fn the_report_has_the_progress_of_a_download_and_the_error_of_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let board = Arc::new(Board::new("uid", "pod", 1));
    let client = open_client(&config, &board).await.unwrap();
    let agent = Agent::new(&config, &board, client);
    let (next, steps) = mpsc::channel::<()>();
    let fetch = move |monitor: Arc<DownloadMonitor>| {
        monitor.progress(PreparationStep::Downloading, 10, Some(100));
        monitor.retrying(&"cannot read s3://a/b: connection refused", Duration::from_secs(2));
        steps.recv().map_err(|error| error.to_string())?;
        monitor.progress(PreparationStep::Downloading, 60, Some(100));
        steps.recv().map_err(|error| error.to_string())?;
        Ok(7)
    };
    let watch = async {
        let failing = wait_until(&board, |one| one.state.error.is_some()).await;
        assert_eq!((failing.pods, failing.pod, failing.state.percent()), (1, 0, Some(10)));
        let expected = "cannot read s3://a/b: connection refused";
        assert_eq!(failing.state.error.as_deref(), Some(expected));
        assert_eq!((board.report().phase, board.report().pods_joined), (Phase::Preparing, 0));
        next.send(()).unwrap();
        wait_until(&board, |one| one.state.percent() == Some(60)).await;
        next.send(()).unwrap();
    };
    let (result, ()) = tokio::join!(agent.download("data.source", fetch), watch);
    assert_eq!(result.unwrap(), 7);
    // The next heartbeat is that of a pod that has its data.
    agent.send(&agent.heartbeat(State::Idle { ended: None }, None), &mut None).await.unwrap();
    let report = board.report();
    assert_eq!((report.preparation, report.pods_joined), (None, 1));
    assert_eq!(report.preparation_idle_seconds, Some(0));
}

#[tokio::test]
async fn a_failed_download_names_the_field() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let board = Arc::new(Board::new("uid", "pod", 1));
    let client = open_client(&config, &board).await.unwrap();
    let agent = Agent::new(&config, &board, client);
    let failed = agent.download("data.source", |_| Err::<(), _>("no such file".into())).await.unwrap_err();
    assert_eq!((failed.reason, failed.message.as_str()), (FailureReason::Data, "no such file"));
    let crash = |_: Arc<DownloadMonitor>| -> Result<(), String> { panic!("out of luck") };
    let crashed = agent.download("data.source", crash).await.unwrap_err();
    assert_eq!(crashed.reason, FailureReason::Crash);
    assert!(crashed.message.starts_with("spec.training.data.source: the download crashed: "), "{crashed:?}");
}
