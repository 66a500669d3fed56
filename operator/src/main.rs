//! datjob-operator: arguments, logs, start.

use clap::Parser as _;
use datjob_operator::{
    cli::{Cli, Command},
    run, telemetry,
};

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => {
            print!("{}", serde_yaml::to_string(&datjob_api::datjob::definition())?);
            Ok(())
        }
        Command::Run(options) => {
            telemetry::start(options.log_format);
            // Two threads do for thousands of jobs; each further one costs memory.
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(run::run(options))
        }
    }
}
