//! Accuracy over all ranks: local counts, summed.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use datjob_api::report::{Accuracy, AttackCount, CertifiedCount, EvaluationPart, RawAndAveraged, Split};
use datjob_c10d::{ProcessGroup, ReduceOp};
use tch::Tensor;

use super::{Tell, TrainError};
use crate::worker_protocol::{EvaluationState, Event, Stage};
use datjob_adversarial::{
    certify::{self, Certification, CertificationImages},
    evaluate::{self, Counts, Evaluation, UnitResults, Work},
    model::Network,
    shard::Shard,
};

/// Shortest time between two reports within a run of an attack.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Evaluates, each image on one rank. The counts are integers, summed over the ranks and divided nowhere; they do not
/// depend on the world. Rank 0 reports its progress.
pub(super) fn measure(
    network: &Network,
    evaluation: &Evaluation<'_>,
    group: &ProcessGroup,
    units: &mut dyn UnitResults,
    part: EvaluationPart,
    tell: Tell<'_>,
) -> Result<Counts, TrainError> {
    tell(Event::Stage(Stage::from(part)));
    let is_first = group.rank() == 0;
    let mut last_report: Option<Instant> = None;
    let mut counts = evaluate::evaluate(network, evaluation, shard(group), units, &mut |progress| {
        let is_within_run = progress.run.is_some_and(|run| run.iteration > 0);
        let is_due = !is_within_run || last_report.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if is_first && is_due {
            last_report = Some(Instant::now());
            tell(Event::Evaluating(EvaluationState::new(part, progress)));
        }
        ControlFlow::Continue(())
    })?;
    counts.load(&summed(&counts.to_vec(), group)?)?;
    Ok(counts)
}

/// Certifies a number of images, each on one rank. Rank 0 reports its progress.
pub(super) fn certify(
    network: &Network,
    certification: &Certification,
    images: CertificationImages<'_>,
    seed: u64,
    group: &ProcessGroup,
    units: &mut dyn UnitResults,
    tell: Tell<'_>,
) -> Result<Vec<CertifiedCount>, TrainError> {
    tell(Event::Stage(Stage::Certification));
    let is_first = group.rank() == 0;
    let mut progress = |work: Work| {
        if is_first {
            tell(Event::Evaluating(EvaluationState::certification(work)));
        }
    };
    let shard = shard(group);
    let counts = certify::count_certified(network, certification, images, seed, shard, units, &mut progress)?;
    Ok(certify::certified_counts(&summed(&counts, group)?))
}

/// This rank's shard of the images.
pub(super) fn shard(group: &ProcessGroup) -> Shard {
    Shard { rank: group.rank(), world_size: group.world_size() }
}

/// The sums over all ranks.
fn summed(numbers: &[i64], group: &ProcessGroup) -> Result<Vec<i64>, TrainError> {
    let sum = Tensor::from_slice(numbers);
    group.all_reduce(&sum, ReduceOp::Sum)?;
    Ok(Vec::try_from(&sum)?)
}

/// The counts of an evaluation on the validation split, as reported: those of the more robust weights where averaged ones
/// were measured too. The first attack decides; a second is the single step.
pub(super) fn on_validation(raw: &Counts, averaged: Option<&Counts>, attack: &str, epoch: u32) -> Accuracy {
    let better = averaged.filter(|averaged| is_better(averaged, raw)).unwrap_or(raw);
    let both = |averaged: &Counts| RawAndAveraged {
        raw_clean: raw.clean(),
        raw_robust: raw.under_attack(0),
        averaged_clean: averaged.clean(),
        averaged_robust: averaged.under_attack(0),
    };
    Accuracy {
        epoch,
        split: Split::Validation,
        clean: better.clean(),
        robust: AttackCount::new(attack, better.under_attack(0)),
        averaging: averaged.map(both),
        single_step: (better.attacks.len() > 1).then(|| better.under_attack(1)),
        overfitting: None,
    }
}

/// Whether averaged weights are the more robust ones.
pub(super) fn is_better(averaged: &Counts, raw: &Counts) -> bool {
    averaged.robust(0) > raw.robust(0)
}
