//! `dat-trainer agent`: the agent in a pod, from the environment to the last signal.

use std::{net::Ipv6Addr, process::ExitCode, sync::Arc};

use datjob_api::contract;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::agent::{self, Board, Config, http};

/// Runs the agent until the pod is told to end.
pub fn main() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "Cannot start the agent.");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "Cannot start the async runtime.");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(serve(config));
    // A download under way is not waited for.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, port = contract::AGENT_PORT, "Cannot listen for signals or HTTP requests.");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> std::io::Result<()> {
    let board = Arc::new(Board::new(&config.job_uid, &config.pod_uid, config.attempt));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, contract::AGENT_PORT)).await?;
    let served = Arc::clone(&board);
    tokio::spawn(async move { axum::serve(listener, http::router(served)).await });

    let park = async {
        let ending = agent::work(&config, &board).await;
        tracing::info!(outcome = ?ending, "Job ended; waiting for scale-down.");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = park => {}
        // Dropping the agent's work ends its workers: what must last has been written atomically.
        _ = terminate.recv() => tracing::info!("Received SIGTERM; exiting."),
        _ = interrupt.recv() => tracing::info!("Received SIGINT; exiting."),
    }
    Ok(())
}
