//! Tables of the operator with unschedulable pods. Pure.

use std::collections::BTreeMap;

use super::{per_minute, section};
use crate::{
    audit::Calls,
    figures::{Figures, OperatorFigures, Round},
    table::{Table, integer, mebibytes, number},
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
    let header = std::iter::once(String::new())
        .chain(rounds.iter().map(|(jobs, _)| format!("{} jobs", integer(*jobs as u64))));
    let mut table = Table::new(header);
    let mut row = |name: &str, value: &dyn Fn(&OperatorFigures) -> String| {
        table.row(std::iter::once(name.to_owned()).chain(rounds.iter().map(|(_, figures)| value(figures))));
    };
    row("all pods exist after", &|figures| format!("{} s", number(figures.settled.pods_seconds)));
    row("all statuses settled after", &|figures| format!("{} s", number(figures.settled.seconds)));
    row("peak memory until then", &|figures| {
        format!("{} MiB", mebibytes(figures.settled.usage.peak_memory_bytes))
    });
    row("an idle minute: reads", &|figures| {
        per_minute(&figures.idle, |calls| calls.total() - calls.writes())
    });
    row("an idle minute: writes", &|figures| per_minute(&figures.idle, Calls::writes));
    row("an idle minute: CPU of the operator", &|figures| {
        format!("{} s", number(figures.idle.cpu_seconds * 60.0 / figures.idle.seconds))
    });
    row("new process: ready after", &|figures| format!("{} s", number(figures.cold_start.ready_seconds)));
    row("new process: leader after", &|figures| format!("{} s", number(figures.cold_start.leader_seconds)));
    row("new process, first minute: reads", &|figures| {
        per_minute(&figures.cold_start.interval, |calls| calls.total() - calls.writes())
    });
    row("new process, first minute: writes", &|figures| {
        per_minute(&figures.cold_start.interval, Calls::writes)
    });
    row("new process, first minute: CPU", &|figures| {
        format!("{} s", number(figures.cold_start.usage.cpu_seconds))
    });
    row("new process: peak memory", &|figures| {
        format!("{} MiB", mebibytes(figures.cold_start.usage.peak_memory_bytes))
    });
    row("leader killed: Lease of the other after", &|figures| {
        format!("{} s", number(figures.killed.lease_seconds))
    });
    row("leader killed: status of a new job after", &|figures| {
        format!("{} s", number(figures.killed.status_seconds))
    });
    row("leader terminated: Lease of the other after", &|figures| {
        format!("{} s", number(figures.terminated.lease_seconds))
    });
    row("leader terminated: status of a new job after", &|figures| {
        format!("{} s", number(figures.terminated.status_seconds))
    });
    let text = "Each job has two pods that no node can run.";
    section("The operator with many jobs", text, &table).unwrap_or_default()
}
