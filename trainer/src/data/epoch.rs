use crate::random::Stream;

/// The order of the training images in an epoch, cut into steps.
///
/// With N images and at most B in a step there are ⌈N/B⌉ steps; step k takes the images ⌊N·k/steps⌋ to
/// ⌊N·(k+1)/steps⌋ of the order. Steps differ by at most one image, and every image counts exactly once.
#[derive(Clone, Debug)]
pub struct Epoch {
    order: Vec<usize>,
    steps: usize,
}

impl Epoch {
    /// The epoch (counted from 0) over these images with at most `batch_size` (at least 1) in a step.
    pub fn new(training: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Self {
        let mut order = training.to_vec();
        Stream::order(seed, epoch).shuffle(&mut order);
        Self { order, steps: Self::count_steps(training.len(), batch_size) }
    }

    /// How many steps an epoch over so many images has.
    pub fn count_steps(images: usize, batch_size: usize) -> usize {
        images.div_ceil(batch_size.max(1))
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The images of a step (counted from 0), over all ranks; empty from [`Epoch::steps`] on.
    pub fn batch(&self, step: usize) -> &[usize] {
        if step < self.steps { part(&self.order, step, self.steps) } else { &[] }
    }

    /// A rank's share of a step: shares are contiguous and differ by at most one image; empty for a rank outside of
    /// the world. A step of fewer images than ranks leaves some ranks with none.
    pub fn shard(&self, step: usize, rank: usize, world: usize) -> &[usize] {
        if rank < world { part(self.batch(step), rank, world) } else { &[] }
    }
}

/// The `index`-th of `parts` parts.
fn part(items: &[usize], index: usize, parts: usize) -> &[usize] {
    &items[items.len() * index / parts..items.len() * (index + 1) / parts]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_image_is_in_exactly_one_shard(
            images in 0_usize..500,
            batch_size in 1_usize..600,
            world in 1_usize..20,
            seed: u64,
            epoch: u64,
        ) {
            let training: Vec<usize> = (0..images).map(|i| 3 * i).collect();
            let epoch = Epoch::new(&training, batch_size, seed, epoch);
            let mut seen = Vec::new();
            for step in 0..epoch.steps() {
                let batch = epoch.batch(step);
                prop_assert!(batch.len() <= batch_size);
                prop_assert!(batch.len().abs_diff(epoch.batch(0).len()) <= 1);
                let shards: Vec<&[usize]> = (0..world).map(|rank| epoch.shard(step, rank, world)).collect();
                prop_assert_eq!(shards.concat(), batch);
                prop_assert!(shards.iter().all(|s| s.len().abs_diff(batch.len() / world) <= 1));
                seen.extend_from_slice(batch);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, training);
        }
    }

    #[test]
    fn steps_are_as_few_as_the_batch_size_allows() {
        let epoch = Epoch::new(&(0..59_000).collect::<Vec<_>>(), 128, 0, 0);
        assert_eq!(epoch.steps(), 461);
        assert!((0..461).all(|step| matches!(epoch.batch(step).len(), 127 | 128)));
        assert!(epoch.batch(461).is_empty());
    }

    #[test]
    fn each_epoch_has_its_own_order() {
        let training: Vec<usize> = (0..100).collect();
        let order = |seed, epoch| Epoch::new(&training, 100, seed, epoch).batch(0).to_vec();
        assert_eq!(order(0, 1), order(0, 1));
        assert_ne!(order(0, 0), order(0, 1));
        assert_ne!(order(0, 0), order(1, 0));
    }
}
