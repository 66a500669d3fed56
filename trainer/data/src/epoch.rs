use crate::random::Stream;

/// The order of the training images in an epoch, cut into steps.
///
/// With N images and at most B in a step there are ⌈N/B⌉ steps; step k takes the images ⌊N·k/steps⌋ to
/// ⌊N·(k+1)/steps⌋ of the order. Steps differ by at most one image, and every image counts exactly once.
#[derive(Clone, Debug)]
pub struct Epoch {
    order: Vec<usize>,
    /// Where each step's images begin in the order, and where the last one's end.
    begins: Vec<usize>,
}

/// Images beside those of the data set, which fill a share of every batch.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The images.
    pub images: &'a [usize],
    /// Their share of a batch, from 0 to less than 1.
    pub share: f64,
    /// How many images there are in all, with those of the data set: what comes again in an epoch has an index beyond
    /// them ([`Images::read`](super::Images::read)).
    pub all: usize,
}

impl Epoch {
    /// The epoch (counted from 0) over these images with at most `batch_size` (at least 1) in a step.
    pub fn new(training: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Self {
        let mut order = training.to_vec();
        Stream::order(seed, epoch).shuffle(&mut order);
        let steps = Self::count_steps(training.len(), batch_size);
        let begins = (0..=steps).map(|step| order.len() * step / steps.max(1)).collect();
        Self { order, begins }
    }

    /// The same where images beside those of the data set fill a share of every batch: an epoch goes over the data set
    /// once, and over the others as often as their share asks for, each time in another order and without regard to where
    /// epochs begin. In each pass over them within an epoch an image has another index, and so other random numbers.
    pub fn mixed(training: &[usize], beside: Beside<'_>, batch_size: usize, seed: u64, epoch: u64) -> Self {
        let Beside { images, share, all } = beside;
        let (own_size, others_size) = Self::division(batch_size, share);
        let own = Self::new(training, own_size, seed, epoch);
        if others_size == 0 || images.is_empty() {
            return own;
        }
        let mut others = Passes::new(images, all, seed, epoch * (own.steps() * others_size) as u64);
        let mut mixed = Self { order: Vec::new(), begins: vec![0] };
        for step in 0..own.steps() {
            let begin = mixed.order.len();
            mixed.order.extend_from_slice(own.batch(step));
            mixed.order.extend(others.by_ref().take(others_size));
            // Each rank takes a part of the batch: with its share of both kinds, give or take chance.
            Stream::mixture(seed, epoch, step as u64).shuffle(&mut mixed.order[begin..]);
            mixed.begins.push(mixed.order.len());
        }
        mixed
    }

    /// Images of the data set and beside it in a batch of at most `batch_size`.
    fn division(batch_size: usize, share: f64) -> (usize, usize) {
        let others = (batch_size as f64 * share).round() as usize;
        let others = others.min(batch_size.saturating_sub(1));
        (batch_size - others, others)
    }

    /// How many steps an epoch over so many images has.
    pub fn count_steps(images: usize, batch_size: usize) -> usize {
        images.div_ceil(batch_size.max(1))
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.begins.len().saturating_sub(1)
    }

    /// How many images there are in all steps.
    pub fn images(&self) -> usize {
        self.order.len()
    }

    /// The images of a step (counted from 0), over all ranks; empty from [`Epoch::steps`] on.
    pub fn batch(&self, step: usize) -> &[usize] {
        match self.begins.get(step..=step + 1) {
            Some(&[begin, end]) => &self.order[begin..end],
            _ => &[],
        }
    }

    /// A rank's share of a step: shares are contiguous and differ by at most one image; empty for a rank outside of
    /// the world. A step of fewer images than ranks leaves some ranks with none.
    pub fn shard(&self, step: usize, rank: usize, world: usize) -> &[usize] {
        if rank < world { part(self.batch(step), rank, world) } else { &[] }
    }
}

/// Images over and over, in another order each time, and with indices of their own.
struct Passes<'a> {
    images: &'a [usize],
    all: usize,
    seed: u64,
    /// The pass that it began with.
    first: u64,
    /// How many were taken since training began.
    taken: u64,
    order: Vec<usize>,
}

impl<'a> Passes<'a> {
    /// The images after so many of them.
    fn new(images: &'a [usize], all: usize, seed: u64, taken: u64) -> Self {
        let first = taken / images.len() as u64;
        let mut passes = Self { images, all, seed, first, taken, order: Vec::new() };
        passes.shuffle();
        passes
    }

    fn shuffle(&mut self) {
        let pass = self.taken / self.images.len() as u64;
        let again = (pass - self.first) as usize * self.all;
        self.order = self.images.iter().map(|image| image + again).collect();
        Stream::order_beside(self.seed, pass).shuffle(&mut self.order);
    }
}

impl Iterator for Passes<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = (self.taken % self.images.len() as u64) as usize;
        if place == 0 {
            self.shuffle();
        }
        self.taken += 1;
        Some(self.order[place])
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
    fn images_beside_the_data_set_fill_their_share_of_every_batch() {
        let training: Vec<usize> = (0..100).collect();
        let others: Vec<usize> = (1000..1030).collect();
        let mut seen = std::collections::BTreeMap::new();
        for epoch in 0..6 {
            let beside = Beside { images: &others, share: 0.6, all: 1030 };
            let mixed = Epoch::mixed(&training, beside, 25, 1, epoch);
            assert_eq!((mixed.steps(), mixed.images()), (10, 250));
            let mut own = Vec::new();
            let mut indices = std::collections::BTreeSet::new();
            for step in 0..mixed.steps() {
                let (beside, of_data): (Vec<usize>, Vec<usize>) =
                    mixed.batch(step).iter().partition(|&&image| image >= 1000);
                assert_eq!((of_data.len(), beside.len()), (10, 15));
                own.extend(of_data);
                for index in beside {
                    assert!(indices.insert(index), "{index} twice in an epoch");
                    *seen.entry(index % 1030).or_insert(0) += 1;
                }
                let shards: Vec<&[usize]> = (0..3).map(|rank| mixed.shard(step, rank, 3)).collect();
                assert_eq!(shards.concat(), mixed.batch(step));
            }
            own.sort_unstable();
            assert_eq!(own, training);
        }
        // 900 draws are 30 passes over 30 images.
        assert_eq!(seen.len(), 30);
        assert!(seen.values().all(|&count| count == 30), "{seen:?}");
        let none = Epoch::mixed(&training, Beside { images: &[], share: 0.6, all: 100 }, 25, 1, 0);
        assert_eq!(none.images(), 100);
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
