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
    let environment = environment::describe(&bench.operator).await;
    let earlier = options.json.as_deref().filter(|_| options.resume).map(read_json).transpose()?;
    let mut run = match earlier {
        Some(earlier) => earlier.resumed(&environment)?,
        None => Run { environment, rounds: Vec::new() },
    };
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
        if run.has(subject.title(), objects) {
            continue;
        }
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
        // An interruption costs only the round that runs.
        if let Some(path) = &options.json {
            write_json(path, &run)?;
        }
        if let Some(path) = &options.output {
            document::update(path, &markdown::render(&run))?;
        }
    }
    bench.cluster.stop().await?;
    println!("{}", markdown::render(&run));
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

fn read_json(path: &Path) -> anyhow::Result<Run> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("invalid figures in {}", path.display()))
}

fn write_json(path: &Path, run: &Run) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(run).context("cannot encode the figures")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
