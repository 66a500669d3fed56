//! Entry point of `datjob-operator`.

use std::process::ExitCode;

use clap::Parser as _;
use datjob_operator::{
    cli::{Cli, Command, Run},
    reference, run, telemetry,
};

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Crd => {
            print!("{}", serde_yaml::to_string(&datjob_api::datjob::definition())?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Reference => {
            print!("{}", reference::markdown(&datjob_api::datjob::definition()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(options) => run_operator(options),
    }
}

fn run_operator(options: Run) -> anyhow::Result<ExitCode> {
    telemetry::init(options.log_format);
    // Two threads are enough for thousands of jobs, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match runtime.block_on(run::run(options)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "Operator failed.");
            Ok(ExitCode::FAILURE)
        }
    }
}
