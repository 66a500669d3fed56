use std::{path::Path, sync::Arc, time::Duration};

use datjob_api::report::{FailureReason, Phase};
use tokio::{sync::watch, time};

use crate::agent::{self, Board, Config, Ending, testing::config};

/// An agent without a spec, on a volume that has a checkpoint.
fn failing(directory: &Path) -> Config {
    let config = Config { retries_pods: true, ..config(directory) };
    std::fs::create_dir_all(config.job_directory()).unwrap();
    std::fs::write(config.job_directory().join("checkpoint-0001.json"), "{}").unwrap();
    config
}

#[tokio::test]
async fn a_pod_that_cannot_prepare_waits_once_the_job_has_trained() {
    let directory = tempfile::tempdir().unwrap();
    let (config, board) = (failing(directory.path()), Arc::new(Board::new("uid", "pod", 1)));
    let (leave, asked) = watch::channel(false);
    let work = agent::work(&config, &board, asked);
    let watch = async {
        let reported = async {
            loop {
                if let Some(failure) = board.report().failure {
                    return failure;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        let failure = time::timeout(Duration::from_secs(20), reported).await.unwrap();
        assert_eq!(failure.reason, FailureReason::Configuration);
        assert!(failure.message.starts_with("pod 0 cannot join: "), "{}", failure.message);
        assert_ne!(board.report().phase, Phase::Failed);
        leave.send_replace(true);
    };
    let (ending, ()) = tokio::join!(work, watch);
    assert_eq!(ending, Ending::Left { saved: false });
    assert!(!config.job_directory().join("verdict-1.json").exists());
}
