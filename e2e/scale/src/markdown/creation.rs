//! Tables of the creation of objects. Pure.

use super::section;
use crate::{
    figures::{Creation, Figures, Round},
    table::{Table, duration, integer, mebibytes, number},
};

pub(super) fn bare_client(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new([
        "client",
        "jobs",
        "DatJobs created per s",
        "then children and status, jobs/s",
        "both, jobs/s",
        "API server and etcd, CPU ms per DatJob",
        "per children and status",
    ]);
    for round in rounds {
        let Figures::BareClient(bare) = &round.figures else { continue };
        let per_job = |seconds: f64| number(seconds * 1000.0 / round.objects as f64);
        table.row([
            round.subject.clone(),
            integer(round.objects as u64),
            number(bare.created_per_second),
            number(bare.children_per_second),
            number(bare.total_per_second),
            per_job(bare.create_server_cpu_seconds),
            per_job(bare.children_server_cpu_seconds),
        ]);
    }
    let text = "The API server alone: 4 clients create DatJobs, then 16 write the five children and the status of each.";
    section("Without an operator", text, &table)
}

/// Rounds of controllers, with the name and the number of objects.
fn controllers(rounds: &[Round]) -> impl Iterator<Item = (String, usize, &Creation)> {
    rounds.iter().filter_map(|round| {
        let creation = match &round.figures {
            Figures::Operator(operator) => &operator.creation,
            Figures::LeaderWorkerSet(creation) => creation,
            _ => return None,
        };
        Some((round.subject.clone(), round.objects, creation))
    })
}

pub(super) fn creation(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new([
        "controller",
        "objects",
        "created per s",
        "all StatefulSets after",
        "objects/s",
        "first quarter",
        "last quarter",
        "P50",
        "P99",
    ]);
    for (subject, objects, creation) in controllers(rounds) {
        table.row([
            subject,
            integer(objects as u64),
            number(creation.created_per_second),
            duration(creation.stateful_sets_seconds),
            number(creation.rates.overall),
            number(creation.rates.first_quarter),
            number(creation.rates.last_quarter),
            duration(creation.latency.p50),
            duration(creation.latency.p99),
        ]);
    }
    let text = "Four clients create objects while the controller runs. P50 and P99: from the return of a create request \
                until the object's StatefulSet is seen by a watch.";
    section("Creation", text, &table)
}

pub(super) fn cost(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new([
        "controller",
        "objects",
        "API reads per object",
        "API writes per object",
        "API server and etcd, CPU ms per object",
        "controller, CPU ms per object",
        "peak memory",
    ]);
    for (subject, objects, creation) in controllers(rounds) {
        let per_object = |value: f64| number(value / objects as f64);
        table.row([
            subject,
            integer(objects as u64),
            per_object(creation.calls.reads() as f64),
            per_object(creation.calls.writes() as f64),
            per_object(creation.server_cpu_seconds * 1000.0),
            per_object(creation.usage.cpu_seconds * 1000.0),
            format!("{} MiB", mebibytes(creation.usage.peak_memory_bytes)),
        ]);
    }
    let text =
        "Until all StatefulSets exist. API server and etcd also create pods and serve the other controllers.";
    section("Cost of creation", text, &table)
}
