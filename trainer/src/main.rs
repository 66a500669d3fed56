//! `dat-trainer`: trains and evaluates on a workstation (`run`, `evaluate`), lists checkpoints (`checkpoints`) and trains in the
//! pods of a DatJob (`agent`, `worker`).

use std::process::ExitCode;

use clap::Parser;
use datjob_trainer::{
    commands::{Cli, Command, agent, checkpoints, evaluate, run, worker},
    telemetry,
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Worker => {
            telemetry::start("info");
            worker::main()
        }
        Command::Agent => {
            telemetry::start("info");
            agent::main()
        }
        Command::Evaluate(options) => {
            telemetry::start("warn");
            evaluate::main(&options)
        }
        Command::Checkpoints(options) => {
            telemetry::start("warn");
            checkpoints::main(&options)
        }
        Command::Run(options) => {
            telemetry::start("warn");
            run::main(&options)
        }
    }
}
