//! Tables of reporting jobs and of pods of others. Pure.

use super::{per_minute, section};
use crate::{
    audit::Calls,
    figures::{Figures, Round},
    process::Usage,
    table::{Table, integer, mebibytes, number},
};

pub(super) fn reporting(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new([
        "jobs",
        "all run after",
        "reports read per min",
        "seconds between two reads of a report: P50",
        "P99",
        "API reads per min",
        "writes per min",
        "CPU per min",
        "peak memory",
        "pods that fail at once",
        "state Restarting after: P50",
        "P99",
        "restart counted after: P50",
        "P99",
        "wrong counts",
    ]);
    for round in rounds {
        let Figures::Reporting(figures) = &round.figures else { continue };
        let minute = 60.0 / figures.interval.seconds;
        let restarts = &figures.restarts;
        table.row([
            integer(round.objects as u64),
            format!("{} s", number(figures.running_seconds)),
            number(figures.reads as f64 * minute),
            number(figures.read_intervals.p50),
            number(figures.read_intervals.p99),
            per_minute(&figures.interval, |calls| calls.total() - calls.writes()),
            per_minute(&figures.interval, Calls::writes),
            format!("{} s", number(figures.interval.cpu_seconds * minute)),
            format!("{} MiB", mebibytes(figures.usage.peak_memory_bytes)),
            integer(restarts.pods as u64),
            format!("{} s", number(restarts.restarting.p50)),
            format!("{} s", number(restarts.restarting.p99)),
            format!("{} s", number(restarts.counted.p50)),
            format!("{} s", number(restarts.counted.p99)),
            integer(restarts.wrong_counts as u64),
        ]);
    }
    let text = "Each job has one simulated pod that trains and reports: progress at all times, an evaluation every two \
                minutes. Then the containers of some pods restart at once, and their next worlds form 12 seconds later. \
                State Restarting: from the failure until the status shows it. Restart counted: from the report of the \
                next world until the status counts it. Wrong counts: jobs that count another number of restarts than \
                their pod had.";
    section("Reporting jobs", text, &table)
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
