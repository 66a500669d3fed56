//! Runs all rounds and writes their figures.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    bench::Bench,
    cli::{self, Subject},
    cluster::Cluster,
    document, environment,
    figures::{Figures, Run},
    markdown, rounds,
};

/// Runs all rounds. Fails at the end if a round failed.
pub async fn run(options: cli::Run) -> anyhow::Result<()> {
    if let Some(path) = &options.output {
        document::check(path)?;
    }
    let mut bench = Bench {
        cluster: Cluster::new(options.cluster, options.cluster_directory),
        operator: options.operator,
        chart: options.chart,
        lws: options.lws,
        work: options.work.clone(),
        failures: options.failures,
        interval: Duration::from_secs(options.interval),
    };
    let mut run = Run { environment: environment::describe(&bench.operator).await, rounds: Vec::new() };
    let sized = options.subjects.iter().filter(|subject| **subject != Subject::ForeignPods);
    let mut plan: Vec<(Subject, usize)> = options
        .sizes
        .iter()
        .flat_map(|size| sized.clone().map(|subject| (*subject, *size as usize)))
        .collect();
    if options.subjects.contains(&Subject::ForeignPods) {
        plan.push((Subject::ForeignPods, options.foreign_pods));
    }
    for (subject, objects) in plan {
        eprintln!("==> {}, {objects}", subject.title());
        bench.work = options.work.join(format!("{}-{objects}", subject.name()));
        let round = rounds::run(&bench, subject, objects).await;
        if let Figures::Failed(error) = &round.figures {
            eprintln!("    failed: {error}");
        }
        if let Some(version) = kubernetes_version(&bench).await {
            run.environment.kubernetes = version;
        }
        run.rounds.push(round);
        if let Some(path) = &options.json {
            write_json(path, &run)?;
        }
    }
    bench.cluster.stop().await?;
    let text = markdown::render(&run);
    println!("{text}");
    if let Some(path) = &options.output {
        document::update(path, &text)?;
    }
    let failed = run.rounds.iter().filter(|round| matches!(round.figures, Figures::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} of {} rounds failed; logs are in {}", run.rounds.len(), options.work.display());
    }
    Ok(())
}

async fn kubernetes_version(bench: &Bench) -> Option<String> {
    let client = bench.administrator().await.ok()?;
    Some(client.apiserver_version().await.ok()?.git_version)
}

fn write_json(path: &Path, run: &Run) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(run).context("cannot encode the figures")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
