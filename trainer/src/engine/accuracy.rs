//! Accuracy over all ranks: local counts, summed.

use std::ops::ControlFlow;

use datjob_api::report::{Accuracy, AttackCount, BothWeights, CertifiedCount, Split};
use datjob_c10d::{ProcessGroup, ReduceOp};
use tch::{Device, Tensor};

use super::TrainError;
use crate::{
    certify::{self, Certification},
    data::Images,
    evaluate::{self, Counts, EvalAttack, Evaluation},
    model::Network,
};

/// Evaluates, each image on one rank. The counts are integers, summed over the ranks and divided nowhere; they do not
/// depend on the world. `progress` hears how many of this rank's images are done, of how many.
pub(super) fn measure(
    network: &Network,
    evaluation: &Evaluation<'_>,
    group: &ProcessGroup,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Counts, TrainError> {
    let mut counts =
        evaluate::evaluate(network, evaluation, group.rank(), group.world_size(), &mut |done, total| {
            progress(done, total);
            ControlFlow::Continue(())
        })?;
    let sum = Tensor::from_slice(&counts.to_vec());
    group.all_reduce(&sum, ReduceOp::Sum)?;
    counts.set(&Vec::<i64>::try_from(&sum)?)?;
    Ok(counts)
}

/// Certifies a number of images, each on one rank.
pub(super) fn certify(
    network: &Network,
    certification: &Certification,
    images: (&Images, usize, Device),
    seed: u64,
    group: &ProcessGroup,
) -> Result<Vec<CertifiedCount>, TrainError> {
    let counts = certify::counts(network, certification, images, seed, (group.rank(), group.world_size()))?;
    let sum = Tensor::from_slice(&counts);
    group.all_reduce(&sum, ReduceOp::Sum)?;
    Ok(certify::certified(&Vec::<i64>::try_from(&sum)?))
}

/// The counts of an evaluation on the validation split, as reported: those of the more robust weights where averaged ones
/// were measured too.
pub(super) fn on_validation(
    raw: &Counts,
    averaged: Option<&Counts>,
    attack: &EvalAttack,
    epoch: u32,
) -> Accuracy {
    let better = averaged.filter(|averaged| is_better(averaged, raw)).unwrap_or(raw);
    let both = |averaged: &Counts| BothWeights {
        raw_clean: raw.clean(),
        raw_robust: raw.worst_case(),
        averaged_clean: averaged.clean(),
        averaged_robust: averaged.worst_case(),
    };
    Accuracy {
        epoch,
        split: Split::Validation,
        clean: better.clean(),
        robust: AttackCount::new(&attack.name, better.worst_case()),
        averaging: averaged.map(both),
    }
}

/// Whether averaged weights are the more robust ones.
pub(super) fn is_better(averaged: &Counts, raw: &Counts) -> bool {
    averaged.worst_case().correct > raw.worst_case().correct
}
