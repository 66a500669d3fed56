//! Tables of the creation of objects. Pure.

use super::section;
use crate::{
    figures::{Figures, Round},
    table::{Table, integer, mebibytes, number},
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
        "API calls per object",
        "API server and etcd, CPU ms per object",
        "controller, CPU ms per object",
        "peak memory",
    ]);
    for round in rounds {
        let (creation, usage) = match &round.figures {
            Figures::Operator(operator) => (&operator.creation, operator.settled.usage),
            Figures::LeaderWorkerSet(controller) => (&controller.creation, controller.usage),
            _ => continue,
        };
        let per_object = |value: f64| number(value / round.objects as f64);
        table.row([
            round.subject.clone(),
            integer(round.objects as u64),
            number(creation.created_per_second),
            format!("{} s", number(creation.stateful_sets_seconds)),
            number(creation.rates.overall),
            number(creation.rates.first_quarter),
            number(creation.rates.last_quarter),
            format!("{} s", number(creation.latency.p50)),
            format!("{} s", number(creation.latency.p99)),
            per_object(creation.calls.total() as f64),
            per_object(creation.server_cpu_seconds * 1000.0),
            per_object(usage.cpu_seconds * 1000.0),
            format!("{} MiB", mebibytes(usage.peak_memory_bytes)),
        ]);
    }
    let text = "Four clients create objects while the controller runs. P50 and P99: from the return of a create request \
                until the object's StatefulSet is seen by a watch. CPU and memory of the operator are those when all \
                statuses have settled; those of LeaderWorkerSet are those when all StatefulSets exist.";
    section("Creation", text, &table)
}
