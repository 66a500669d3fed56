//! What is measured. The names of the fields are those of the JSON output.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    audit::Calls,
    process::Usage,
    statistics::{Percentiles, Rates},
};

/// All rounds of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Where and how the rounds ran.
    pub environment: Environment,
    /// The rounds, in their order.
    pub rounds: Vec<Round>,
}

impl Run {
    /// Whether a round of this subject and size is there.
    pub fn has(&self, subject: &str, objects: usize) -> bool {
        self.rounds.iter().any(|round| round.subject == subject && round.objects == objects)
    }

    /// The rounds that succeeded, to be continued in `environment`. Fails if machine, operator or commit differ.
    pub fn resumed(mut self, environment: &Environment) -> anyhow::Result<Self> {
        let Environment { processor, cores, operator, commit, .. } = environment;
        let before = &self.environment;
        if (&before.processor, &before.cores) != (processor, cores) {
            anyhow::bail!(
                "the earlier rounds ran on {} with {} cores, not on {processor} with {cores}; measure all rounds again",
                before.processor,
                before.cores
            );
        }
        if (&before.operator, &before.commit) != (operator, commit) {
            anyhow::bail!(
                "the earlier rounds measured DatJob {} ({}), not {operator} ({commit}); measure all rounds again",
                before.operator,
                before.commit
            );
        }
        self.rounds.retain(|round| !matches!(round.figures, Figures::Failed(_)));
        Ok(self)
    }
}

/// Where and how the rounds ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    /// Model of the processor.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of Kubernetes.
    pub kubernetes: String,
    /// Version of the operator.
    pub operator: String,
    /// Commit of the checkout, if known.
    pub commit: String,
    /// Start of the run, UTC.
    pub date: String,
    /// Command line.
    pub command: String,
}

/// One subject with one number of jobs on a new cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// What was measured.
    pub subject: String,
    /// Number of jobs; for `ForeignPods`, of pods.
    pub objects: usize,
    /// Time to remove the previous cluster and to start a new one. No figure includes it.
    pub cluster_seconds: f64,
    /// Time of the rest of the round.
    pub seconds: f64,
    /// The figures, or why they are missing.
    pub figures: Figures,
}

/// Figures of a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Figures {
    /// Requests without an operator.
    BareClient(BareClient),
    /// The operator with pods that no node can run.
    Operator(Box<OperatorFigures>),
    /// LeaderWorkerSet with pods that no node can run.
    LeaderWorkerSet(Creation),
    /// The operator with jobs that report.
    Reporting(Box<Reporting>),
    /// The operator without jobs, with pods of others.
    ForeignPods(ForeignPods),
    /// The round failed.
    Failed(String),
}

/// Requests without an operator: what the API server can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BareClient {
    /// Created DatJobs per second.
    pub created_per_second: f64,
    /// Jobs per second whose children and status were written, after all were created.
    pub children_per_second: f64,
    /// Jobs per second over both.
    pub total_per_second: f64,
    /// Processor time of API server and etcd to create the DatJobs, in seconds.
    pub create_server_cpu_seconds: f64,
    /// Processor time of API server and etcd to write children and status, in seconds.
    pub children_server_cpu_seconds: f64,
    /// Requests for children and status.
    pub calls: Calls,
}

/// From the first request until all StatefulSets exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Creation {
    /// Created objects per second, by the clients of the benchmark.
    pub created_per_second: f64,
    /// Time from the first request until the last StatefulSet was seen.
    pub stateful_sets_seconds: f64,
    /// StatefulSets per second since the first request.
    pub rates: Rates,
    /// For each object: from the return of its request until its StatefulSet was seen, in seconds.
    pub latency: Percentiles,
    /// Processor time of API server and etcd, in seconds.
    pub server_cpu_seconds: f64,
    /// Memory and processor time of the controller at the end.
    pub usage: Usage,
    /// Requests of the controller.
    pub calls: Calls,
}

/// The operator with pods that no node can run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorFigures {
    /// From the first request until all StatefulSets exist.
    pub creation: Creation,
    /// Until every status reports unschedulable pods and no status changes.
    pub settled: Settled,
    /// A minute without changes.
    pub idle: Interval,
    /// A new process with all jobs.
    pub cold_start: ColdStart,
    /// A standby after SIGKILL of the leader.
    pub killed: Takeover,
    /// A standby after SIGTERM of the leader.
    pub terminated: Takeover,
}

/// Until every status reports unschedulable pods and no status changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// Time from the first request until all pods exist.
    pub pods_seconds: f64,
    /// Time from the first request until the last change of a status.
    pub seconds: f64,
    /// Requests of the operator since the first request.
    pub calls: Calls,
    /// Memory and processor time of the operator.
    pub usage: Usage,
}

/// An interval of observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// Its length.
    pub seconds: f64,
    /// Requests of the operator.
    pub calls: Calls,
    /// Processor time of the operator.
    pub cpu_seconds: f64,
}

/// A new process with all jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColdStart {
    /// Time until the previous process exited after SIGTERM.
    pub stop_seconds: f64,
    /// Time from the start of the process until /readyz answers 200.
    pub ready_seconds: f64,
    /// Time from the start of the process until /readyz answers that it leads.
    pub leader_seconds: f64,
    /// The minute after the start of the process.
    pub interval: Interval,
    /// Memory and processor time at the end of the minute.
    pub usage: Usage,
}

/// A standby takes over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// Time from the signal until the Lease names the other operator.
    pub lease_seconds: f64,
    /// Time from the signal until a job that was created right after it has a status.
    pub status_seconds: f64,
}

/// The operator with jobs that report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reporting {
    /// Time from the first create request until every status says that its job runs.
    pub running_seconds: f64,
    /// A minute of training.
    pub interval: Interval,
    /// Memory and processor time of the operator at its end.
    pub usage: Usage,
    /// Reports read in the minute.
    pub reads: u64,
    /// Time between two reads of one report, in seconds.
    pub read_intervals: Percentiles,
    /// Pods that failed at once.
    pub restarts: Restarts,
    /// Without an operator: from the failure until a client has written the status of each job, in seconds.
    pub bare_client: Percentiles,
}

/// Pods whose containers restarted at once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Restarts {
    /// Number of pods, each of a different job.
    pub pods: usize,
    /// From the failure until the simulated kubelet had written the statuses of all these pods, in seconds.
    pub writes_seconds: f64,
    /// From the failure until the status says that the job restarts, in seconds.
    pub restarting: Percentiles,
    /// Number of jobs whose status said so.
    pub jobs_seen_restarting: usize,
    /// From the report of the next world until the status counts the restart, in seconds.
    pub counted: Percentiles,
    /// Number of jobs whose count is not 1 with, or not 0 without a failure.
    pub wrong_counts: usize,
}

/// The operator without jobs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ForeignPods {
    /// Without pods.
    pub without: Usage,
    /// With pods that belong to no job.
    pub with: Usage,
}

/// Seconds of a duration.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(commit: &str) -> Environment {
        Environment {
            processor: "p".into(),
            cores: 2,
            memory_bytes: 1,
            kubernetes: "v1".into(),
            operator: "0.1.0".into(),
            commit: commit.into(),
            date: "d".into(),
            command: "c".into(),
        }
    }

    #[test]
    fn a_run_is_resumed_with_the_rounds_that_succeeded() {
        let round = |objects, figures| Round {
            subject: "DatJob".into(),
            objects,
            cluster_seconds: 1.0,
            seconds: 2.0,
            figures,
        };
        let usage = Usage::default();
        let rounds = vec![
            round(100, Figures::ForeignPods(ForeignPods { without: usage, with: usage })),
            round(1000, Figures::Failed("timed out".into())),
        ];
        let run = Run { environment: environment("abc"), rounds };
        let json = serde_json::to_string(&run).unwrap();
        let read = || serde_json::from_str::<Run>(&json).unwrap();
        let resumed = read().resumed(&environment("abc")).unwrap();
        assert!(resumed.has("DatJob", 100) && !resumed.has("DatJob", 1000) && !resumed.has("other", 100));
        let error = read().resumed(&environment("def")).unwrap_err().to_string();
        assert!(error.contains("measured DatJob 0.1.0 (abc), not 0.1.0 (def)"), "{error}");
    }
}
