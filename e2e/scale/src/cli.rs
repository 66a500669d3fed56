//! Command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures the DatJob operator with many jobs, on the embedded cluster.
#[derive(Debug, Parser)]
#[command(name = "datjob-scale", version)]
pub struct Cli {
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure all subjects, each on a new cluster.
    Run(Run),
    /// Check the API calls of the operator against limits, on a cluster that is up.
    Check(Check),
}

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The binary of the embedded cluster.
    #[arg(long)]
    pub cluster: PathBuf,
    /// The operator's binary.
    #[arg(long)]
    pub operator: PathBuf,
    /// The operator's chart.
    #[arg(long, default_value = "charts/datjob")]
    pub chart: PathBuf,
    /// Directory with LeaderWorkerSet's binary `lws` and its definition `crd.yaml`.
    #[arg(long)]
    pub lws: PathBuf,
    /// Directory for logs and kubeconfigs, one folder per round.
    #[arg(long)]
    pub work: PathBuf,
    /// State directory of the cluster.
    #[arg(long, default_value = "/var/lib/datjob-scale")]
    pub cluster_directory: PathBuf,
    /// Numbers of jobs.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000", value_parser = clap::value_parser!(u32).range(4..=20_000))]
    pub sizes: Vec<u32>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Subject::ALL)]
    pub subjects: Vec<Subject>,
    /// Number of pods that fail at once; all, if there are fewer.
    #[arg(long, default_value_t = 1000)]
    pub failures: usize,
    /// Number of pods that belong to no job.
    #[arg(long, default_value_t = 10_000)]
    pub foreign_pods: usize,
    /// Seconds of each interval of observation.
    #[arg(long, default_value_t = 60)]
    pub interval: u64,
    /// Document to update between its markers.
    #[arg(long)]
    pub output: Option<PathBuf>,
    /// File for all figures as JSON, written after each round.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Keep the rounds that are in the file of --json, if they succeeded on this machine with this operator and commit.
    #[arg(long, requires = "json")]
    pub resume: bool,
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The administrator's kubeconfig, in the state directory of an embedded cluster that was started with
    /// `--audit-group system:serviceaccounts:datjob-system`.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: PathBuf,
    /// The binary of the embedded cluster.
    #[arg(long)]
    pub cluster: PathBuf,
    /// The operator's binary, to start it as a process; without it, an operator is installed in datjob-system.
    #[arg(long)]
    pub operator: Option<PathBuf>,
    /// The operator's chart, to install its definition and permissions with --operator.
    #[arg(long, default_value = "charts/datjob")]
    pub chart: PathBuf,
    /// Number of jobs.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(4..=20_000))]
    pub jobs: u32,
    /// Maximum number of calls per job until all statuses have settled, except those for Leases.
    #[arg(long)]
    pub max_calls_per_job: f64,
    /// Maximum number of calls in an idle minute, except those for Leases.
    #[arg(long)]
    pub max_idle_calls: u64,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// DatJobs, children and statuses, without an operator.
    BareClient,
    /// The operator with pods that no node can run.
    Operator,
    /// LeaderWorkerSet with pods that no node can run.
    Lws,
    /// The operator with simulated pods that report, of which many fail at once.
    Reporting,
    /// Memory of the operator without jobs, with pods of others; once, not for each size.
    ForeignPods,
}

impl Subject {
    /// All subjects, in the order of a run.
    pub const ALL: [Self; 5] =
        [Self::BareClient, Self::Operator, Self::Lws, Self::Reporting, Self::ForeignPods];

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its name in the tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::BareClient => "bare client",
            Self::Operator => "DatJob",
            Self::Lws => "LeaderWorkerSet 0.7.0",
            Self::Reporting => "DatJob, reporting jobs",
            Self::ForeignPods => "DatJob, pods of others",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
