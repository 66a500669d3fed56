//! Tables of the operator with unschedulable pods. Pure.

use std::collections::BTreeMap;

use super::{BySize, cpu_per_minute, per_minute, section};
use crate::{
    audit::Calls,
    figures::{Figures, OperatorFigures, Round},
    process::Usage,
    table::{Table, duration, integer, mebibytes, number},
};

/// Kinds of calls below this number per job are added up.
const MIN_CALLS_PER_JOB: f64 = 0.05;

/// The operator's rounds, with their numbers of jobs.
pub(super) fn operator_rounds(rounds: &[Round]) -> Vec<(usize, &OperatorFigures)> {
    let mut found = Vec::new();
    for round in rounds {
        if let Figures::Operator(figures) = &round.figures {
            found.push((round.objects, figures.as_ref()));
        }
    }
    found
}

pub(super) fn operator_calls(rounds: &[(usize, &OperatorFigures)]) -> String {
    let mut table = Table::new(
        std::iter::once("calls per job".to_owned())
            .chain(rounds.iter().map(|(jobs, _)| format!("{} jobs", integer(*jobs as u64)))),
    );
    let columns: Vec<(f64, &Calls)> =
        rounds.iter().map(|(jobs, figures)| (*jobs as f64, &figures.settled.calls)).collect();
    for (kind, per_job) in calls_per_job(&columns) {
        table.row(std::iter::once(kind).chain(per_job.into_iter().map(number)));
    }
    let text = "From the first create request until all statuses have settled: pods exist and are reported as \
                unschedulable. Leases are not counted.";
    section("API calls of the operator", text, &table).unwrap_or_default()
}

/// Calls per job by kind, for each column; the total first, rare kinds as one.
fn calls_per_job(columns: &[(f64, &Calls)]) -> Vec<(String, Vec<f64>)> {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (column, (jobs, calls)) in columns.iter().enumerate() {
        for (kind, count) in calls.by_kind.iter().filter(|(kind, _)| !kind.ends_with(" leases")) {
            kinds.entry(kind).or_insert_with(|| vec![0.0; columns.len()])[column] = *count as f64 / jobs;
        }
    }
    let mut rows =
        vec![("total".to_owned(), columns.iter().map(|(jobs, calls)| calls.total() as f64 / jobs).collect())];
    let mut rare = vec![0.0; columns.len()];
    for (kind, per_job) in kinds {
        if per_job.iter().any(|count| *count >= MIN_CALLS_PER_JOB) {
            rows.push((kind.to_owned(), per_job));
        } else {
            for (sum, count) in rare.iter_mut().zip(per_job) {
                *sum += count;
            }
        }
    }
    rows.push(("others".to_owned(), rare));
    rows
}

pub(super) fn operator_table(rounds: &[(usize, &OperatorFigures)]) -> String {
    let memory = |usage: &Usage| format!("{} MiB", mebibytes(usage.peak_memory_bytes));
    let mut table = BySize::new(rounds);
    table.row("all pods exist after", |figures| duration(figures.settled.pods_seconds));
    table.row("all statuses settled after", |figures| duration(figures.settled.seconds));
    table.row("peak memory until then", |figures| memory(&figures.settled.usage));
    table.row("an idle minute: API reads", |figures| per_minute(&figures.idle, Calls::reads));
    table.row("an idle minute: API writes", |figures| per_minute(&figures.idle, Calls::writes));
    table.row("an idle minute: CPU of the operator", |figures| cpu_per_minute(&figures.idle));
    table.row("stopped after", |figures| duration(figures.cold_start.stop_seconds));
    table.row("new process: ready after", |figures| duration(figures.cold_start.ready_seconds));
    table.row("new process: leader after", |figures| duration(figures.cold_start.leader_seconds));
    table.row("new process, first minute: API reads", |figures| {
        per_minute(&figures.cold_start.interval, Calls::reads)
    });
    table.row("new process, first minute: API writes", |figures| {
        per_minute(&figures.cold_start.interval, Calls::writes)
    });
    table.row("new process, first minute: CPU", |figures| cpu_per_minute(&figures.cold_start.interval));
    table.row("new process: peak memory", |figures| memory(&figures.cold_start.usage));
    table.row("leader killed: Lease of the other after", |figures| duration(figures.killed.lease_seconds));
    table.row("leader killed: status of a new job after", |figures| duration(figures.killed.status_seconds));
    table.row("leader terminated: Lease of the other after", |figures| {
        duration(figures.terminated.lease_seconds)
    });
    table.row("leader terminated: status of a new job after", |figures| {
        duration(figures.terminated.status_seconds)
    });
    let text = "Each job has two pods that no node can run.";
    section("The operator with many jobs", text, &table.finish()).unwrap_or_default()
}
