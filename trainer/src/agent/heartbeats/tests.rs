use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use crate::{
    agent::{self, Board, Config, Ending, http::testing::serve, testing::config},
    rendezvous::host::testing::{heartbeat, host_on_stalled_volume},
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
