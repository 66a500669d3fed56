//! `dat-trainer agent`: runs the agent of a pod until SIGTERM or SIGINT.

use std::{net::Ipv6Addr, process::ExitCode, sync::Arc};

use datjob_api::contract;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::agent::{self, Board, Config, Ending, http};

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

    let (leave, asked_to_leave) = watch::channel(false);
    let work = agent::work(&config, &board, asked_to_leave);
    tokio::pin!(work);
    let mut has_ended = false;
    loop {
        tokio::select! {
            ending = &mut work, if !has_ended => {
                match ending {
                    Ending::Left { saved } => {
                        tracing::info!(saved, "Left the job; exiting.");
                        return Ok(());
                    }
                    // The log has the reason. It does not exit: its container would be started again.
                    Ending::Superseded => {}
                    ending => tracing::info!(?ending, "Job ended; waiting for scale-down."),
                }
                has_ended = true;
                // Nobody would signal again.
                if *leave.borrow() {
                    return Ok(());
                }
                continue;
            }
            _ = terminate.recv() => tracing::info!("Received SIGTERM; leaving the job."),
            _ = interrupt.recv() => tracing::info!("Received SIGINT; leaving the job."),
        }
        // A second signal, or one after the end of the job, ends the agent at once. Dropping the future kills the workers; their
        // files are written atomically.
        if has_ended || leave.send_replace(true) {
            return Ok(());
        }
    }
}
