//! `dat-trainer agent`: runs the agent of a pod until SIGTERM or SIGINT.

use std::{net::Ipv6Addr, process::ExitCode, sync::Arc};

use datjob_api::contract;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::agent::{self, Board, Config, http};

/// Runs the agent until it receives a termination signal.
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
    let result = runtime.block_on(serve(config));
    // Do not wait for a download that is still running.
    runtime.shutdown_background();
    match result {
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
    let router = http::router(Arc::clone(&board));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let work = async {
        let outcome = agent::work(&config, &board).await;
        tracing::info!(?outcome, "Job ended; waiting for scale-down.");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        // Dropping the future kills the workers. Their files are written atomically.
        _ = terminate.recv() => tracing::info!("Received SIGTERM; exiting."),
        _ = interrupt.recv() => tracing::info!("Received SIGINT; exiting."),
    }
    Ok(())
}
