//! How often the running epoch trained on each image, counted by the indices of the images that steps were applied for. No image
//! of an epoch is lost or trained on twice, also if the epoch was interrupted.

use datjob_c10d::{ProcessGroup, ReduceOp};
use datjob_data::Epoch;
use tch::Tensor;

use super::{Rank, TrainError};
use crate::{outputs::samples::EpochSamples, worker_protocol::Event};

/// The name of the counts in a checkpoint within an epoch: i64 `[images]`, the sums over all ranks.
pub(super) const NAME: &str = "epoch.samples";

/// The counts of one rank.
#[derive(Debug)]
pub(super) struct SampleCounts {
    /// By index in the data set, additional images included. Those of rank 0 begin with the counts of the checkpoint that the
    /// training resumed from, those of other ranks with zeros.
    counts: Vec<i64>,
    /// Whether they include every completed step of the epoch. Valid on rank 0.
    is_complete: bool,
}

impl SampleCounts {
    /// Counts `images` images from the first step of an epoch, or if `resumed` from a later one. `earlier` has the counts of
    /// the steps before, i64 `[images]`; on rank 0 only, and not if the checkpoint is of an older trainer.
    pub(super) fn new(images: usize, resumed: bool, earlier: Option<&Tensor>) -> Result<Self, TrainError> {
        let earlier = earlier.map(Vec::<i64>::try_from).transpose()?;
        let earlier = earlier.filter(|counts| resumed && counts.len() == images);
        let is_complete = !resumed || earlier.is_some();
        Ok(Self { counts: earlier.unwrap_or_else(|| vec![0; images]), is_complete })
    }

    /// Counts the images of this rank in a step, after the step. Indices are those of [`Epoch::shard`].
    pub(super) fn add(&mut self, indices: &[usize]) {
        let images = self.counts.len();
        for index in indices {
            self.counts[index % images] += 1;
        }
    }

    /// The sums over all ranks, i64 `[images]`; `None` if steps of the epoch were not counted. Valid on rank 0. All ranks call
    /// it.
    pub(super) fn sum(&self, group: &ProcessGroup) -> Result<Option<Tensor>, TrainError> {
        let sum = Tensor::f_from_slice(&self.counts)?;
        group.all_reduce(&sum, ReduceOp::Sum)?;
        Ok(self.is_complete.then_some(sum))
    }

    /// The images of a completed epoch, compared with its plan; `None` if steps of the epoch were not counted. Valid on rank 0.
    /// All ranks call it.
    fn compare(&self, plan: &Epoch, group: &ProcessGroup) -> Result<Option<EpochSamples>, TrainError> {
        let Some(counted) = self.sum(group)? else { return Ok(None) };
        let counted: Vec<u64> = Vec::<i64>::try_from(&counted)?.into_iter().map(i64::unsigned_abs).collect();
        let mut planned = vec![0; counted.len()];
        for step in 0..plan.steps() {
            for index in plan.batch(step) {
                planned[index % counted.len()] += 1;
            }
        }
        Ok(Some(EpochSamples::new(&counted, &planned)))
    }
}

impl Rank<'_> {
    /// The images that the epoch that has just ended trained on, on rank 0. Warns if they are not those of its plan. All ranks
    /// call it.
    pub(super) fn count_samples(
        &mut self,
        counts: &SampleCounts,
        plan: &Epoch,
    ) -> Result<Option<EpochSamples>, TrainError> {
        let samples = counts.compare(plan, &self.group)?;
        if !self.is_first() {
            return Ok(None);
        }
        let epoch = self.state.epoch;
        if samples.is_none() {
            tracing::warn!(
                epoch,
                "Cannot count the images of this epoch: it resumed from a checkpoint without counts."
            );
        }
        if let Some(warning) = samples.as_ref().and_then(|samples| samples.warning(epoch)) {
            (self.tell)(Event::Warning(warning));
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use datjob_data::ExtraImages;

    use super::{super::world::ranks::run_ranks, *};

    /// Images of the data set and all images, of which the last ones are additional.
    const IMAGES: [usize; 2] = [50, 57];

    /// An epoch in which the additional images are used several times.
    fn plan() -> Epoch {
        let [images, total_images] = IMAGES;
        let training: Vec<usize> = (10..images).collect();
        let additional: Vec<usize> = (images..total_images).collect();
        let extra = ExtraImages { indices: &additional, fraction: 0.5, total_images };
        Epoch::with_extra_images(&training, extra, 8, 1, 3)
    }

    /// The result of rank 0 after a world has made some steps of the epoch, on top of earlier counts.
    fn run<T: Send>(
        world_size: usize,
        steps: std::ops::Range<usize>,
        earlier: Option<Tensor>,
        result: impl Fn(&SampleCounts, &ProcessGroup) -> Option<T> + Sync,
    ) -> Option<T> {
        let earlier = Mutex::new(earlier);
        let results = run_ranks(world_size, |group| {
            let own = if group.rank() == 0 { earlier.lock().unwrap().take() } else { None };
            let mut counts = SampleCounts::new(IMAGES[1], steps.start > 0, own.as_ref()).unwrap();
            for step in steps.clone() {
                counts.add(plan().shard(step, group.rank(), world_size));
            }
            result(&counts, &group)
        });
        results.into_iter().next().flatten()
    }

    #[test]
    fn an_epoch_of_several_worlds_counts_every_image_once() {
        let plan = plan();
        let compare = |counts: &SampleCounts, group: &ProcessGroup| counts.compare(&plan, group).unwrap();
        let sum = |counts: &SampleCounts, group: &ProcessGroup| counts.sum(group).unwrap();
        let (images, steps) = (plan.images() as u64, plan.steps());
        let exact = EpochSamples { images, distinct_images: 47, missing_images: 0, repeated_images: 0 };
        assert_eq!(run(3, 0..steps, None, compare), Some(exact));
        // Two worlds were interrupted; the second one lost the steps after its checkpoint.
        let first = run(3, 0..4, None, sum);
        let second = run(2, 4..7, first, sum).unwrap();
        assert_eq!(run(4, 7..steps, Some(second.shallow_clone()), compare), Some(exact));
        // A step that is left out, and one that is made twice.
        let batch = plan.batch(7).len() as u64;
        let missing = run(2, 8..steps, Some(second.shallow_clone()), compare).unwrap();
        assert_eq!((missing.missing_images, missing.repeated_images), (batch, 0));
        let repeated = run(2, 6..steps, Some(second), compare).unwrap();
        assert_eq!((repeated.missing_images, repeated.repeated_images), (0, plan.batch(6).len() as u64));
    }

    #[test]
    fn an_epoch_that_resumed_without_counts_has_none() {
        let plan = plan();
        let compare = |counts: &SampleCounts, group: &ProcessGroup| counts.compare(&plan, group).unwrap();
        assert_eq!(run(2, 4..plan.steps(), None, compare), None);
        // A checkpoint later in this epoch has no counts either.
        assert!(run(2, 4..7, None, |counts, group| counts.sum(group).unwrap()).is_none());
    }
}
