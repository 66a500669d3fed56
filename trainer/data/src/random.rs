//! Random numbers keyed by purpose. Pure.
//!
//! Every purpose has a separate ChaCha8 stream. Its key is the SHA-256 of the seed, the purpose and the indices (epoch,
//! image, restart). There is no global generator, so a number depends neither on the world size nor on earlier draws, and
//! resuming needs no saved state. The mapping never changes: a seed in a manifest identifies a run. The tests pin it.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

mod noise;

pub use noise::{Start, evaluation_noise, normal_weights, smoothing_noise, training_noise, uniform_weights};

/// A stream of random numbers for one purpose.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The choice of the validation images.
    pub fn split(seed: u64) -> Self {
        Self::new(seed, "split", &[])
    }

    /// The order of the training images in an epoch (counted from 0).
    pub fn order(seed: u64, epoch: u64) -> Self {
        Self::new(seed, "order", &[epoch])
    }

    /// The order of the extra images in a pass over them (counted from 0).
    pub fn extra_image_order(seed: u64, pass: u64) -> Self {
        Self::new(seed, "order-beside", &[pass])
    }

    /// The order of training and extra images in a step (counted from 0) of an epoch.
    pub fn batch_order(seed: u64, epoch: u64, step: u64) -> Self {
        Self::new(seed, "mixture", &[epoch, step])
    }

    /// The crop and flip of a training image in an epoch; `image` is its index in the data set.
    pub fn augmentation(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "augmentation", &[epoch, image])
    }

    /// The random resized crop of a training image in an epoch; `image` is its index in the data set.
    pub fn resized_crop(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "resized-crop", &[epoch, image])
    }

    /// The cutout of a training image in an epoch; `image` is its index in the data set.
    pub fn cutout(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "cutout", &[epoch, image])
    }

    /// The CutMix patch of a training image in an epoch; `image` is its index in the data set.
    pub fn cut_mix(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "cut-mix", &[epoch, image])
    }

    /// The start noise of the attack on a training image in an epoch; `image` is its index in the data set.
    pub fn training_attack(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "training-attack", &[epoch, image])
    }

    /// The start noise of an attack in an evaluation; `image` is its index in the data set. `stage` names the attack, so
    /// that two attacks on an image do not share their start.
    pub fn evaluation_attack(seed: u64, stage: &str, image: u64, restart: u64) -> Self {
        Self::new(seed, &format!("evaluation-attack/{stage}"), &[image, restart])
    }

    /// The noise of the copies of a training image in an epoch; `image` is its index in the data set.
    pub fn smoothing(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "smoothing", &[epoch, image])
    }

    /// The noise of the certification of an image; `image` is its index in the data set.
    pub fn certification(seed: u64, image: u64) -> Self {
        Self::new(seed, "certification", &[image])
    }

    /// The random search of a restart of Square in an evaluation; `image` is its index in the data set. `stage` names the
    /// attack.
    pub fn square(seed: u64, stage: &str, image: u64, restart: u64) -> Self {
        Self::new(seed, &format!("square/{stage}"), &[image, restart])
    }

    /// The stochastic rounding of a gradient bucket of a rank in a step (both counted from 0, the step over all epochs).
    pub fn compression(seed: u64, rank: u64, step: u64, bucket: u64) -> Self {
        Self::new(seed, "compression", &[rank, step, bucket])
    }

    /// The initial values of the parameter of that name.
    pub fn weights(seed: u64, parameter: &str) -> Self {
        Self::new(seed, &format!("weights/{parameter}"), &[])
    }

    /// Key: SHA-256 of "datjob/1", a zero byte, the purpose, a zero byte, then the seed and the indices as u64 in
    /// little-endian order. No purpose contains a zero byte, so no two uses share a key.
    fn new(seed: u64, purpose: &str, indices: &[u64]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"datjob/1\0");
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(seed.to_le_bytes());
        for index in indices {
            hash.update(index.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// 64 random bits to seed another generator.
    pub fn seed(&mut self) -> i64 {
        self.0.next_u64() as i64
    }

    /// A uniform integer in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Lemire, "Fast random integer generation in an interval" (2019): multiply, reject the few that would bias.
        let mut product = u64::from(self.0.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let reject_below = bound.wrapping_neg() % bound;
            while (product as u32) < reject_below {
                product = u64::from(self.0.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// True or false, each with probability ½.
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() >> 31 == 1
    }

    /// A uniform number in [-1, 1): one of 2²⁴ equally spaced values, which f32 represents exactly.
    pub fn symmetric(&mut self) -> f32 {
        const HALF_RANGE: f32 = 8_388_608.0;
        (self.0.next_u32() >> 8) as f32 / HALF_RANGE - 1.0
    }

    /// A standard normal number (Box and Muller, 1958) from two uniform numbers of 32 bits; its magnitude is at most 6.7.
    pub fn normal(&mut self) -> f64 {
        const RANGE: f64 = 4_294_967_296.0;
        // In (0, 1], so the logarithm is finite.
        let radius = (f64::from(self.0.next_u32()) + 1.0) / RANGE;
        let angle = f64::from(self.0.next_u32()) / RANGE;
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Shuffles `items` (Fisher and Yates); every order has the same probability.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(mut stream: Stream) -> [u32; 3] {
        std::array::from_fn(|_| stream.0.next_u32())
    }

    /// The expected numbers come from another implementation of SHA-256 and ChaCha8.
    #[test]
    fn the_streams_never_change() {
        let pins = [
            (Stream::split(0), [1_910_283_789, 3_398_193_902, 2_505_734_575]),
            (Stream::order(1, 2), [3_062_849_253, 321_279_366, 2_187_288_751]),
            (Stream::augmentation(1, 2, 3), [4_099_939_597, 3_126_583_255, 2_588_078_515]),
            (Stream::training_attack(1, 2, 3), [3_332_821_250, 3_296_704_985, 3_272_396_668]),
            (Stream::evaluation_attack(1, "pgd-10", 2, 3), [3_538_464_074, 1_322_653_554, 2_016_299_835]),
            (Stream::square(1, "square", 2, 3), [1_630_358_041, 3_781_540_816, 1_811_029_917]),
            (Stream::weights(u64::MAX, "conv1.weight"), [3_418_368_915, 2_669_848_727, 1_676_784_324]),
        ];
        for (stream, expected) in pins {
            assert_eq!(first(stream), expected);
        }
    }

    #[test]
    fn the_derived_numbers_never_change() {
        let mut order: Vec<usize> = (0..30).collect();
        Stream::order(1, 2).shuffle(&mut order);
        assert_eq!(
            order,
            [
                28, 16, 8, 0, 26, 27, 18, 9, 23, 20, 12, 7, 1, 6, 19, 22, 10, 15, 24, 4, 13, 17, 29, 3, 5,
                25, 11, 14, 2, 21
            ]
        );
        let mut attack = Stream::training_attack(1, 2, 3);
        let units: [f32; 3] = std::array::from_fn(|_| (attack.symmetric() + 1.0) * 8_388_608.0);
        assert_eq!(units.map(|unit| unit as u32), [13_018_833, 12_877_753, 12_782_799]);
        let mut augmentation = Stream::augmentation(1, 2, 3);
        assert_eq!((augmentation.below(9), augmentation.below(9), augmentation.coin()), (8, 6, true));
        // With this bound three of ten draws are rejected.
        let mut split = Stream::split(0);
        let numbers: [u32; 6] = std::array::from_fn(|_| split.below(3_000_000_000));
        assert_eq!(
            numbers,
            [1_334_317_812, 2_373_611_020, 1_750_235_381, 1_475_521_665, 1_291_693_947, 1_048_179_627]
        );
    }

    #[test]
    fn normal_numbers_have_the_moments_and_tails_of_the_distribution() {
        let mut stream = Stream::weights(0, "normal");
        let numbers: Vec<f64> = (0..200_000).map(|_| stream.normal()).collect();
        let mean = |power: i32| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / numbers.len() as f64;
        // Five standard errors of each.
        assert!(mean(1).abs() < 0.0112 && (mean(2) - 1.0).abs() < 0.0159, "{} {}", mean(1), mean(2));
        assert!(mean(3).abs() < 0.0434 && (mean(4) - 3.0).abs() < 0.11, "{} {}", mean(3), mean(4));
        let tail = |limit: f64| numbers.iter().filter(|x| x.abs() > limit).count() as f64 / 200_000.0;
        assert!((tail(1.0) - 0.3173).abs() < 0.0053 && (tail(3.0) - 0.0027).abs() < 0.0006);
    }

    proptest! {
        #[test]
        fn integers_stay_below_their_bound(seed: u64, bound in 1_u32..) {
            let mut stream = Stream::split(seed);
            for _ in 0..16 {
                prop_assert!(stream.below(bound) < bound);
            }
        }

        #[test]
        fn a_shuffle_keeps_every_item(seed: u64, count in 0_usize..300) {
            let mut items: Vec<usize> = (0..count).collect();
            Stream::order(seed, 0).shuffle(&mut items);
            items.sort_unstable();
            prop_assert!(items.into_iter().eq(0..count));
        }
    }
}
