//! The order of the images in an epoch, its steps and the shards of the ranks. Pure.

use crate::random::Stream;

/// The order of the training images in an epoch, cut into steps.
///
/// With N images and at most B in a step there are ⌈N/B⌉ steps; step k takes the images ⌊N·k/steps⌋ to
/// ⌊N·(k+1)/steps⌋ of the order. Steps differ by at most one image, and every image counts exactly once.
#[derive(Clone, Debug)]
pub struct Epoch {
    order: Vec<usize>,
    /// The offset of each step in the order, and the end of the last step.
    offsets: Vec<usize>,
}

/// Images outside the data set that fill a fraction of every batch.
#[derive(Clone, Copy, Debug)]
pub struct ExtraImages<'a> {
    /// Their indices.
    pub indices: &'a [usize],
    /// Their fraction of a batch, from 0 to less than 1.
    pub fraction: f64,
    /// The number of all images, those of the data set included. Repetitions within an epoch get indices from here on
    /// ([`Images::read`](super::Images::read)).
    pub total_images: usize,
}

impl Epoch {
    /// An epoch (counted from 0) over these images with at most `batch_size` (at least 1) images in a step.
    pub fn new(training: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Self {
        let mut order = training.to_vec();
        Stream::order(seed, epoch).shuffle(&mut order);
        let steps = Self::count_steps(training.len(), batch_size);
        let offsets = (0..=steps).map(|step| order.len() * step / steps.max(1)).collect();
        Self { order, offsets }
    }

    /// An epoch in which extra images fill a fraction of every batch.
    ///
    /// An epoch is one pass over the data set. The passes over the extra images continue across epochs, and each pass has
    /// a different order. In each pass within an epoch an image has a different index, and so different random numbers.
    pub fn with_extra_images(
        training: &[usize],
        extra: ExtraImages<'_>,
        batch_size: usize,
        seed: u64,
        epoch: u64,
    ) -> Self {
        let (training_size, extra_size) = Self::split_batch(batch_size, extra.fraction);
        let base = Self::new(training, training_size, seed, epoch);
        if extra_size == 0 || extra.indices.is_empty() {
            return base;
        }
        let mut sampler = InfiniteSampler::new(extra, seed, epoch * (base.steps() * extra_size) as u64);
        let mut mixed = Self { order: Vec::new(), offsets: vec![0] };
        for step in 0..base.steps() {
            let start = mixed.order.len();
            mixed.order.extend_from_slice(base.batch(step));
            mixed.order.extend(sampler.by_ref().take(extra_size));
            // Each rank takes a contiguous shard of the batch; after the shuffle it has both kinds of images.
            Stream::batch_order(seed, epoch, step as u64).shuffle(&mut mixed.order[start..]);
            mixed.offsets.push(mixed.order.len());
        }
        mixed
    }

    /// The number of images of the data set and of extra images in a batch of at most `batch_size`.
    fn split_batch(batch_size: usize, fraction: f64) -> (usize, usize) {
        let extra = (batch_size as f64 * fraction).round() as usize;
        let extra = extra.min(batch_size.saturating_sub(1));
        (batch_size - extra, extra)
    }

    /// The number of steps of an epoch over `images` images.
    pub fn count_steps(images: usize, batch_size: usize) -> usize {
        images.div_ceil(batch_size.max(1))
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The number of images in all steps.
    pub fn images(&self) -> usize {
        self.order.len()
    }

    /// The images of a step (counted from 0), over all ranks; empty from [`Epoch::steps`] on.
    pub fn batch(&self, step: usize) -> &[usize] {
        match self.offsets.get(step..=step + 1) {
            Some(&[start, end]) => &self.order[start..end],
            _ => &[],
        }
    }

    /// The shard of a rank in a step. Shards are contiguous, and their sizes differ by at most one image. The shard is empty
    /// for a rank outside the world, and for some ranks if the step has fewer images than ranks.
    pub fn shard(&self, step: usize, rank: usize, world: usize) -> &[usize] {
        if rank < world { contiguous_part(self.batch(step), rank, world) } else { &[] }
    }
}

/// Repeats the extra images without end. Each pass has a different order and different indices.
struct InfiniteSampler<'a> {
    extra: ExtraImages<'a>,
    seed: u64,
    /// The first pass of this sampler, counted from the start of training.
    first_pass: u64,
    /// The number of images drawn since the start of training.
    drawn: u64,
    order: Vec<usize>,
}

impl<'a> InfiniteSampler<'a> {
    /// A sampler that continues after `drawn` images.
    fn new(extra: ExtraImages<'a>, seed: u64, drawn: u64) -> Self {
        let first_pass = drawn / extra.indices.len() as u64;
        let mut sampler = Self { extra, seed, first_pass, drawn, order: Vec::new() };
        sampler.shuffle();
        sampler
    }

    fn shuffle(&mut self) {
        let pass = self.drawn / self.extra.indices.len() as u64;
        let offset = (pass - self.first_pass) as usize * self.extra.total_images;
        self.order = self.extra.indices.iter().map(|index| index + offset).collect();
        Stream::extra_image_order(self.seed, pass).shuffle(&mut self.order);
    }
}

impl Iterator for InfiniteSampler<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let position = (self.drawn % self.extra.indices.len() as u64) as usize;
        if position == 0 {
            self.shuffle();
        }
        self.drawn += 1;
        Some(self.order[position])
    }
}

/// Part `index` of `parts` contiguous parts.
fn contiguous_part(items: &[usize], index: usize, parts: usize) -> &[usize] {
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
    fn extra_images_fill_their_fraction_of_every_batch() {
        let training: Vec<usize> = (0..100).collect();
        let extra: Vec<usize> = (1000..1030).collect();
        let mut seen = std::collections::BTreeMap::new();
        for epoch in 0..6 {
            let extra = ExtraImages { indices: &extra, fraction: 0.6, total_images: 1030 };
            let mixed = Epoch::with_extra_images(&training, extra, 25, 1, epoch);
            assert_eq!((mixed.steps(), mixed.images()), (10, 250));
            let mut from_data_set = Vec::new();
            let mut indices = std::collections::BTreeSet::new();
            for step in 0..mixed.steps() {
                let (extra, training): (Vec<usize>, Vec<usize>) =
                    mixed.batch(step).iter().partition(|&&image| image >= 1000);
                assert_eq!((training.len(), extra.len()), (10, 15));
                from_data_set.extend(training);
                for index in extra {
                    assert!(indices.insert(index), "{index} twice in an epoch");
                    *seen.entry(index % 1030).or_insert(0) += 1;
                }
                let shards: Vec<&[usize]> = (0..3).map(|rank| mixed.shard(step, rank, 3)).collect();
                assert_eq!(shards.concat(), mixed.batch(step));
            }
            from_data_set.sort_unstable();
            assert_eq!(from_data_set, training);
        }
        // 900 draws are 30 passes over 30 images.
        assert_eq!(seen.len(), 30);
        assert!(seen.values().all(|&count| count == 30), "{seen:?}");
        let empty = ExtraImages { indices: &[], fraction: 0.6, total_images: 100 };
        let none = Epoch::with_extra_images(&training, empty, 25, 1, 0);
        assert_eq!(none.images(), 100);
    }

    #[test]
    fn an_epoch_has_the_fewest_steps_for_its_batch_size() {
        let epoch = Epoch::new(&(0..59_000).collect::<Vec<_>>(), 128, 0, 0);
        assert_eq!(epoch.steps(), 461);
        assert!((0..461).all(|step| matches!(epoch.batch(step).len(), 127 | 128)));
        assert!(epoch.batch(461).is_empty());
    }

    #[test]
    fn order_depends_on_seed_and_epoch() {
        let training: Vec<usize> = (0..100).collect();
        let order = |seed, epoch| Epoch::new(&training, 100, seed, epoch).batch(0).to_vec();
        assert_eq!(order(0, 1), order(0, 1));
        assert_ne!(order(0, 0), order(0, 1));
        assert_ne!(order(0, 0), order(1, 0));
    }
}
