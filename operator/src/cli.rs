//! Command line of the operator.

use std::net::SocketAddr;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

/// DatJob operator: creates the StatefulSets of trainer pods and updates the status of jobs.
#[derive(Debug, Parser)]
#[command(name = "datjob-operator", version)]
pub struct Cli {
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Print the API reference as Markdown.
    Reference,
    /// Run the operator.
    Run(Run),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Namespace to watch for jobs; all namespaces if empty.
    #[arg(long, env = "DATJOB_WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// Trainer image for jobs without spec.pod.image.
    #[arg(long, env = "DATJOB_TRAINER_IMAGE", value_parser = not_empty)]
    pub trainer_image: String,
    /// Trainer image for jobs that request GPUs and have no spec.pod.image; if empty, jobs that request GPUs are rejected.
    #[arg(long, env = "DATJOB_TRAINER_CUDA_IMAGE", default_value = "")]
    pub trainer_cuda_image: String,
    /// Whether operators elect a leader; only the leader reconciles jobs.
    #[arg(long, env = "DATJOB_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set)]
    pub leader_election: bool,
    /// Name of the installation: of its Lease for leader election, and of the field manager of the objects that it writes.
    /// spec.managedBy and status.managedBy of a job name the installation as NAMESPACE/NAME.
    #[arg(long, env = "DATJOB_NAME", default_value = "datjob-operator", value_parser = not_empty)]
    pub name: String,
    /// Namespace of the Lease and of the operator; required for leader election.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    pub lease_namespace: String,
    /// Identity of this operator in leader election; host name and process ID if empty.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub identity: String,
    /// Address that serves /metrics, /healthz and /readyz.
    #[arg(long, env = "DATJOB_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// Log format. The environment variable DATJOB_LOG sets the log filter (default: info).
    #[arg(long, env = "DATJOB_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// JSON in a cluster, human-readable elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable.
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
        assert!(!run.leader_election && run.name == "datjob-operator");
    }
}
