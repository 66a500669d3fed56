//! The command line.

use std::net::SocketAddr;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

/// The operator of DatJob: makes StatefulSets of trainer pods and keeps the jobs' status.
#[derive(Debug, Parser)]
#[command(name = "datjob-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Print the reference of the API as Markdown.
    Reference,
    /// Run the operator.
    Run(Run),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The namespace whose jobs are reconciled; all where empty.
    #[arg(long, env = "DATJOB_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// The trainer's image for jobs that name none.
    #[arg(long, env = "DATJOB_TRAINER_IMAGE", value_parser = not_empty)]
    pub trainer_image: String,
    /// The trainer's image for jobs that ask for GPUs and name none; where empty, such jobs are refused.
    #[arg(long, env = "DATJOB_TRAINER_CUDA_IMAGE", default_value = "")]
    pub trainer_cuda_image: String,
    /// Whether several operators elect one that reconciles.
    #[arg(long, env = "DATJOB_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set)]
    pub leader_election: bool,
    /// The lease of the election.
    #[arg(long, env = "DATJOB_LEASE_NAME", default_value = "datjob-operator")]
    pub lease_name: String,
    /// The namespace of the lease, and of the operator; needed for the election.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub lease_namespace: String,
    /// The name of this operator in the election; the host's name where empty.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub identity: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "DATJOB_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// How logs are written; what is logged is said by DATJOB_LOG (a filter, default "info").
    #[arg(long, env = "DATJOB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// JSON in a cluster, pretty elsewhere.
    Auto,
    /// A JSON object a line.
    Json,
    /// For people.
    Pretty,
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn leader_election_takes_a_value() {
        let cli = Cli::parse_from(["x", "run", "--trainer-image=i", "--leader-election", "false"]);
        let Command::Run(run) = cli.command else { panic!() };
        assert!(!run.leader_election && run.lease_name == "datjob-operator");
    }
}
