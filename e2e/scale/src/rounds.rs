//! Rounds: one subject with one number of objects, each on a new cluster.

use std::time::Instant;

use crate::{
    bench::Bench,
    cli::Subject,
    figures::{Figures, Round, seconds},
};

pub mod bare_client;
pub mod foreign_pods;
pub mod leader_worker_set;
pub mod operator;
pub mod reporting;
mod restarts;
pub mod takeover;

/// Runs a round. A failure is part of the result, so that the other rounds run.
pub async fn run(bench: &Bench, subject: Subject, objects: usize) -> Round {
    let start = Instant::now();
    let jobs = if subject == Subject::ForeignPods { 0 } else { objects };
    let (cluster_seconds, figures) = match bench.new_cluster(jobs).await {
        Ok(duration) => (seconds(duration), measure(bench, subject, objects).await),
        Err(error) => (0.0, Err(error)),
    };
    let figures = figures.unwrap_or_else(|error| Figures::Failed(format!("{error:#}")));
    Round {
        subject: subject.title().to_owned(),
        objects,
        cluster_seconds,
        seconds: seconds(start.elapsed()) - cluster_seconds,
        figures,
    }
}

async fn measure(bench: &Bench, subject: Subject, jobs: usize) -> anyhow::Result<Figures> {
    Ok(match subject {
        Subject::BareClient => Figures::BareClient(bare_client::run(bench, jobs).await?),
        Subject::Operator => Figures::Operator(Box::new(operator::run(bench, jobs).await?)),
        Subject::Lws => Figures::LeaderWorkerSet(leader_worker_set::run(bench, jobs).await?),
        Subject::Reporting => Figures::Reporting(Box::new(reporting::run(bench, jobs).await?)),
        Subject::ForeignPods => Figures::ForeignPods(foreign_pods::run(bench, jobs).await?),
    })
}
