//! Entry point of `datjob-scale`.

use std::{future::Future, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use datjob_scale::{
    check,
    cli::{Cli, Command},
    run,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let interrupted = interruption()?;
        tokio::select! {
            result = execute(cli.command) => result,
            () = interrupted => anyhow::bail!("interrupted"),
        }
    });
    // A command may still run.
    runtime.shutdown_background();
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datjob-scale: {error:#}");
            ExitCode::FAILURE
        }
    })
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(options) => run::run(options).await,
        Command::Check(options) => check::run(options).await,
    }
}

/// Resolves at SIGTERM or SIGINT, so that the processes of the benchmark are stopped.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
