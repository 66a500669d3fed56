//! Tables of reporting jobs and of pods of others. Pure.

use super::{BySize, cpu_per_minute, per_minute, section};
use crate::{
    audit::Calls,
    figures::{Figures, Reporting as ReportingFigures, Round},
    process::Usage,
    table::{Table, duration, integer, mebibytes, number},
};

pub(super) fn reporting(rounds: &[Round]) -> Option<String> {
    let mut found = Vec::new();
    for round in rounds {
        if let Figures::Reporting(figures) = &round.figures {
            found.push((round.objects, figures.as_ref()));
        }
    }
    let mut table = BySize::<ReportingFigures>::new(&found);
    table.row("all jobs run after", |figures| duration(figures.running_seconds));
    table.row("a minute: reports read", |figures| {
        number(figures.reads as f64 * 60.0 / figures.interval.seconds)
    });
    table.row("time between two reads of a report: P50", |figures| duration(figures.read_intervals.p50));
    table.row("time between two reads of a report: P99", |figures| duration(figures.read_intervals.p99));
    table.row("a minute: API reads", |figures| per_minute(&figures.interval, Calls::reads));
    table.row("a minute: API writes", |figures| per_minute(&figures.interval, Calls::writes));
    table.row("a minute: CPU of the operator", |figures| cpu_per_minute(&figures.interval));
    table.row("peak memory", |figures| format!("{} MiB", mebibytes(figures.usage.peak_memory_bytes)));
    table.row("pods that fail at once", |figures| integer(figures.restarts.pods as u64));
    table.row("statuses of the pods written after", |figures| duration(figures.restarts.writes_seconds));
    table.row("state Restarting after: P50", |figures| duration(figures.restarts.restarting.p50));
    table.row("state Restarting after: P99", |figures| duration(figures.restarts.restarting.p99));
    table.row("a bare client, statuses written after: P50", |figures| duration(figures.bare_client.p50));
    table.row("a bare client, statuses written after: P99", |figures| duration(figures.bare_client.p99));
    table.row("jobs whose status had this state", |figures| {
        integer(figures.restarts.jobs_seen_restarting as u64)
    });
    table.row("restart counted after: P50", |figures| duration(figures.restarts.counted.p50));
    table.row("restart counted after: P99", |figures| duration(figures.restarts.counted.p99));
    table.row("jobs with a wrong count of restarts", |figures| integer(figures.restarts.wrong_counts as u64));
    let text = "Each job has one simulated pod that trains: its progress always changes, and it reports an evaluation every \
                two minutes, or with more than 1,000 jobs as often as 1,000 of them together would. Then the containers \
                of some pods restart at once, and their next worlds form 12 seconds later. State Restarting: from the \
                failure until the job's status shows it. Restart counted: from the report of the next world until the \
                job's status counts it. A bare client is the lower bound: without the operator, the pods fail again, and \
                16 writers write one status of each job while the simulated kubelet writes those of the pods. A count is \
                wrong if it is not the number of failures of the job's pod.";
    if found.is_empty() { None } else { section("Reporting jobs", text, &table.finish()) }
}

pub(super) fn foreign_pods(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new(["pods of others", "peak memory without them", "with them"]);
    for round in rounds {
        let Figures::ForeignPods(figures) = &round.figures else { continue };
        let memory = |usage: &Usage| format!("{} MiB", mebibytes(usage.peak_memory_bytes));
        table.row([integer(round.objects as u64), memory(&figures.without), memory(&figures.with)]);
    }
    section("Pods of others", "A new operator process without jobs.", &table)
}
