//! Random numbers keyed by what they are for.
//!
//! Every use has a stream of its own: ChaCha8, keyed by the SHA-256 of the seed, the purpose and the indices (epoch,
//! image, restart) that belong to it. Nothing is drawn from a global generator, so a number depends neither on the
//! world size nor on what was drawn before it; resuming needs no saved state. The mapping is fixed for ever: a seed in
//! a manifest names a run. The tests pin it.

use datjob_api::training::Norm;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers for one purpose.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// Which training images are held back for validation.
    pub fn split(seed: u64) -> Self {
        Self::new(seed, "split", &[])
    }

    /// The order of the training images in an epoch (counted from 0).
    pub fn order(seed: u64, epoch: u64) -> Self {
        Self::new(seed, "order", &[epoch])
    }

    /// The order of the images beside the data set in a pass over them (counted from 0).
    pub fn order_beside(seed: u64, pass: u64) -> Self {
        Self::new(seed, "order-beside", &[pass])
    }

    /// How the images of the data set and those beside it are mixed in a step (counted from 0) of an epoch.
    pub fn mixture(seed: u64, epoch: u64, step: u64) -> Self {
        Self::new(seed, "mixture", &[epoch, step])
    }

    /// How a training image is varied in an epoch; `image` is its index in the data set.
    pub fn augmentation(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "augmentation", &[epoch, image])
    }

    /// Which part of a training image is seen in an epoch; `image` is its index in the data set.
    pub fn resized_crop(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "resized-crop", &[epoch, image])
    }

    /// Where a square of a training image is set to zero in an epoch; `image` is its index in the data set.
    pub fn cutout(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "cutout", &[epoch, image])
    }

    /// What is mixed into a training image in an epoch; `image` is its index in the data set.
    pub fn cut_mix(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "cut-mix", &[epoch, image])
    }

    /// The start of the attack on a training image in an epoch; `image` is its index in the data set.
    pub fn training_attack(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "training-attack", &[epoch, image])
    }

    /// The start of an attack in an evaluation; `image` is its index in the data set.
    pub fn evaluation_attack(seed: u64, image: u64, restart: u64) -> Self {
        Self::new(seed, "evaluation-attack", &[image, restart])
    }

    /// The noise of the copies of a training image in an epoch; `image` is its index in the data set.
    pub fn smoothing(seed: u64, epoch: u64, image: u64) -> Self {
        Self::new(seed, "smoothing", &[epoch, image])
    }

    /// The noise of the certification of an image; `image` is its index in the data set.
    pub fn certification(seed: u64, image: u64) -> Self {
        Self::new(seed, "certification", &[image])
    }

    /// The search of a restart of Square in an evaluation; `image` is its index in the data set.
    pub fn square(seed: u64, image: u64, restart: u64) -> Self {
        Self::new(seed, "square", &[image, restart])
    }

    /// How a rank rounds what it sends of a bucket of gradients in a step (both counted from 0, the step over all epochs).
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

    /// 64 random bits, to seed another generator.
    pub fn seed(&mut self) -> i64 {
        self.0.next_u64() as i64
    }

    /// An integer in `0..bound`, each with the same probability; 0 where `bound` is 0.
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

    /// A number in [-1, 1), one of 2²⁴ equally spaced and equally likely ones, which f32 holds exactly.
    pub fn symmetric(&mut self) -> f32 {
        const HALF_RANGE: f32 = 8_388_608.0;
        (self.0.next_u32() >> 8) as f32 / HALF_RANGE - 1.0
    }

    /// A normally distributed number with mean 0 and variance 1 (Box and Muller, 1958), from two uniform ones of 32 bits:
    /// at most 6.7 in magnitude.
    pub fn normal(&mut self) -> f64 {
        const RANGE: f64 = 4_294_967_296.0;
        // From (0, 1], whose logarithm is finite.
        let radius = (f64::from(self.0.next_u32()) + 1.0) / RANGE;
        let angle = f64::from(self.0.next_u32()) / RANGE;
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Puts `items` into a random order, each with the same probability (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// How the start of an attack is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Each pixel's noise uniform in [-radius, radius): uniform in the ℓ∞ ball.
    Linf {
        /// ε, or what N-FGSM starts from.
        radius: f64,
    },
    /// A direction of equal probability and a length uniform in [0, radius): in the ℓ2 ball.
    L2 {
        /// ε.
        radius: f64,
    },
    /// Each pixel's noise normal, as TRADES and MART start: from the image itself the divergence has no gradient.
    Normal {
        /// Standard deviation.
        deviation: f64,
    },
}

impl Start {
    /// The start in the ball of a norm.
    pub fn in_ball(norm: Norm, radius: f64) -> Self {
        match norm {
            Norm::Linf => Self::Linf { radius },
            Norm::L2 => Self::L2 { radius },
        }
    }

    /// Noise for an image of so many pixels.
    fn draw(self, stream: &mut Stream, pixels: usize, noise: &mut Vec<f32>) {
        match self {
            Self::Linf { radius } => noise.extend((0..pixels).map(|_| stream.symmetric() * radius as f32)),
            Self::Normal { deviation } => {
                noise.extend((0..pixels).map(|_| (stream.normal() * deviation) as f32));
            }
            Self::L2 { radius } => {
                let direction: Vec<f64> = (0..pixels).map(|_| stream.normal()).collect();
                let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
                let factor = radius * f64::midpoint(f64::from(stream.symmetric()), 1.0) / length;
                noise.extend(direction.into_iter().map(|x| (x * factor) as f32));
            }
        }
    }
}

/// Start noise of the attack on training images, `[N, C, H, W]`: `pixels` numbers for each image, one image after the other.
///
/// `indices` are the images' indices in the data set, `epoch` counts from 0.
pub fn training_noise(seed: u64, epoch: u64, indices: &[usize], pixels: usize, start: Start) -> Vec<f32> {
    noise(indices, pixels, start, |image| Stream::training_attack(seed, epoch, image))
}

/// Noise of `samples` copies of each training image, `[N · samples, C, H, W]`: normal with deviation `sigma`, that of an
/// image's copies in consecutive rows, each of `pixels` numbers.
pub fn smoothing_noise(
    seed: u64,
    epoch: u64,
    indices: &[usize],
    pixels: usize,
    (sigma, samples): (f64, u32),
) -> Vec<f32> {
    let start = Start::Normal { deviation: sigma };
    noise(indices, pixels * samples as usize, start, |image| Stream::smoothing(seed, epoch, image))
}

/// Start noise of a restart (counted from 0) of an attack in an evaluation, `[N, C, H, W]`, as [`training_noise`].
pub fn evaluation_noise(seed: u64, restart: u64, indices: &[usize], pixels: usize, start: Start) -> Vec<f32> {
    noise(indices, pixels, start, |image| Stream::evaluation_attack(seed, image, restart))
}

fn noise(indices: &[usize], pixels: usize, start: Start, stream: impl Fn(u64) -> Stream) -> Vec<f32> {
    let mut values = Vec::with_capacity(indices.len() * pixels);
    for &index in indices {
        start.draw(&mut stream(index as u64), pixels, &mut values);
    }
    values
}

/// `count` initial values of a parameter: uniform in [-bound, bound).
pub fn uniform_weights(seed: u64, parameter: &str, count: usize, bound: f64) -> Vec<f32> {
    let mut stream = Stream::weights(seed, parameter);
    (0..count).map(|_| stream.symmetric() * bound as f32).collect()
}

/// `count` initial values of a parameter: normal around 0.
pub fn normal_weights(seed: u64, parameter: &str, count: usize, deviation: f64) -> Vec<f32> {
    let mut stream = Stream::weights(seed, parameter);
    (0..count).map(|_| (stream.normal() * deviation) as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(mut stream: Stream) -> [u32; 3] {
        std::array::from_fn(|_| stream.0.next_u32())
    }

    /// The numbers come from another implementation of SHA-256 and ChaCha8.
    #[test]
    fn the_streams_never_change() {
        let pins = [
            (Stream::split(0), [1_910_283_789, 3_398_193_902, 2_505_734_575]),
            (Stream::order(1, 2), [3_062_849_253, 321_279_366, 2_187_288_751]),
            (Stream::augmentation(1, 2, 3), [4_099_939_597, 3_126_583_255, 2_588_078_515]),
            (Stream::training_attack(1, 2, 3), [3_332_821_250, 3_296_704_985, 3_272_396_668]),
            (Stream::evaluation_attack(1, 2, 3), [2_897_047_971, 1_574_690_712, 13_170_372]),
            (Stream::weights(u64::MAX, "conv1.weight"), [3_418_368_915, 2_669_848_727, 1_676_784_324]),
        ];
        for (stream, expected) in pins {
            assert_eq!(first(stream), expected);
        }
    }

    #[test]
    fn what_is_made_of_the_streams_never_changes() {
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
        // A bound for which three draws of ten are rejected.
        let mut split = Stream::split(0);
        let numbers: [u32; 6] = std::array::from_fn(|_| split.below(3_000_000_000));
        assert_eq!(
            numbers,
            [1_334_317_812, 2_373_611_020, 1_750_235_381, 1_475_521_665, 1_291_693_947, 1_048_179_627]
        );
    }

    #[test]
    fn noise_belongs_to_the_image_and_not_to_its_place_in_the_batch() {
        let all = training_noise(7, 1, &[3, 5, 8], 4, Start::Linf { radius: 0.1 });
        let one = training_noise(7, 1, &[5], 4, Start::Linf { radius: 0.1 });
        assert_eq!(all[4..8], one);
        let other_epoch = training_noise(7, 2, &[5], 4, Start::Linf { radius: 0.1 });
        assert_ne!(one, other_epoch);
    }

    #[test]
    fn noise_is_uniform_in_the_ball() {
        let noise = evaluation_noise(0, 0, &[0, 1, 2, 3], 3 * 64 * 64, Start::Linf { radius: 0.5 });
        let mean = |of: &dyn Fn(f64) -> f64| {
            noise.iter().map(|&x| of(f64::from(x))).sum::<f64>() / noise.len() as f64
        };
        let (mean, deviation) = (mean(&|x| x), mean(&|x| x * x).sqrt());
        assert!(mean.abs() < 0.005, "{mean}");
        assert!((deviation - 1.0 / 12.0_f64.sqrt()).abs() < 0.005, "{deviation}");
        assert!(noise.iter().all(|x| (-0.5..0.5).contains(x)));
    }

    #[test]
    fn a_start_in_l2_has_a_length_below_the_radius() {
        let indices: Vec<usize> = (0..2000).collect();
        let noise = training_noise(0, 0, &indices, 3 * 8 * 8, Start::L2 { radius: 0.5 });
        let length = |image: &[f32]| image.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let lengths: Vec<f64> = noise.chunks(3 * 8 * 8).map(length).collect();
        assert!(lengths.iter().all(|&length| length <= 0.5 + 1e-6));
        assert!((lengths.iter().sum::<f64>() / 2000.0 - 0.25).abs() < 0.02);
        let mean = noise.iter().map(|&x| f64::from(x)).sum::<f64>() / noise.len() as f64;
        assert!(mean.abs() < 1e-3);
    }

    #[test]
    fn normal_numbers_have_the_moments_and_tails_of_their_distribution() {
        let mut stream = Stream::weights(0, "normal");
        let numbers: Vec<f64> = (0..200_000).map(|_| stream.normal()).collect();
        let mean = |power: i32| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / numbers.len() as f64;
        // Five standard errors of each.
        assert!(mean(1).abs() < 0.0112 && (mean(2) - 1.0).abs() < 0.0159, "{} {}", mean(1), mean(2));
        assert!(mean(3).abs() < 0.0434 && (mean(4) - 3.0).abs() < 0.11, "{} {}", mean(3), mean(4));
        let beyond = |limit: f64| numbers.iter().filter(|x| x.abs() > limit).count() as f64 / 200_000.0;
        assert!((beyond(1.0) - 0.3173).abs() < 0.0053 && (beyond(3.0) - 0.0027).abs() < 0.0006);
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
