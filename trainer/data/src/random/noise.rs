//! Start noise of attacks, smoothing noise and initial weights. Pure.

use datjob_api::training::Norm;

use super::Stream;

/// The distribution of the start noise of an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Uniform in the ℓ∞ ball: each pixel is uniform in [-radius, radius).
    Linf {
        /// ε, or the start radius of N-FGSM.
        radius: f64,
    },
    /// In the ℓ2 ball: a uniform direction, and a length that is uniform in [0, radius).
    L2 {
        /// ε.
        radius: f64,
    },
    /// Normal noise, as in TRADES and MART: at the image itself the gradient of the divergence is zero.
    Normal {
        /// The standard deviation.
        deviation: f64,
    },
}

impl Start {
    /// Start noise in the ball of a norm.
    pub fn in_ball(norm: Norm, radius: f64) -> Self {
        match norm {
            Norm::Linf => Self::Linf { radius },
            Norm::L2 => Self::L2 { radius },
        }
    }

    /// Appends the noise of an image of `pixels` pixels.
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

/// Start noise of the attack on training images, `[N, C, H, W]`: `pixels` numbers per image.
///
/// `indices` are the indices of the images in the data set; `epoch` counts from 0.
pub fn training_noise(seed: u64, epoch: u64, indices: &[usize], pixels: usize, start: Start) -> Vec<f32> {
    noise(indices, pixels, start, |image| Stream::training_attack(seed, epoch, image))
}

/// Normal noise with standard deviation `sigma` for `samples` copies of each training image, `[N · samples, C, H, W]`. The
/// copies of an image are consecutive rows of `pixels` numbers.
pub fn smoothing_noise(
    seed: u64,
    epoch: u64,
    indices: &[usize],
    pixels: usize,
    sigma: f64,
    samples: u32,
) -> Vec<f32> {
    let start = Start::Normal { deviation: sigma };
    noise(indices, pixels * samples as usize, start, |image| Stream::smoothing(seed, epoch, image))
}

/// Start noise of a restart (counted from 0) of an attack in an evaluation, `[N, C, H, W]`; see [`training_noise`] and
/// [`Stream::evaluation_attack`].
pub fn evaluation_noise(
    seed: u64,
    stage: &str,
    restart: u64,
    indices: &[usize],
    pixels: usize,
    start: Start,
) -> Vec<f32> {
    noise(indices, pixels, start, |image| Stream::evaluation_attack(seed, stage, image, restart))
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

/// `count` initial values of a parameter: normal with mean 0.
pub fn normal_weights(seed: u64, parameter: &str, count: usize, deviation: f64) -> Vec<f32> {
    let mut stream = Stream::weights(seed, parameter);
    (0..count).map(|_| (stream.normal() * deviation) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_depend_on_the_position_in_the_batch() {
        let all = training_noise(7, 1, &[3, 5, 8], 4, Start::Linf { radius: 0.1 });
        let one = training_noise(7, 1, &[5], 4, Start::Linf { radius: 0.1 });
        assert_eq!(all[4..8], one);
        let other_epoch = training_noise(7, 2, &[5], 4, Start::Linf { radius: 0.1 });
        assert_ne!(one, other_epoch);
    }

    #[test]
    fn linf_noise_is_uniform_in_the_ball() {
        let noise = evaluation_noise(0, "pgd-10", 0, &[0, 1, 2, 3], 3 * 64 * 64, Start::Linf { radius: 0.5 });
        let mean = |of: &dyn Fn(f64) -> f64| {
            noise.iter().map(|&x| of(f64::from(x))).sum::<f64>() / noise.len() as f64
        };
        let (mean, deviation) = (mean(&|x| x), mean(&|x| x * x).sqrt());
        assert!(mean.abs() < 0.005, "{mean}");
        assert!((deviation - 1.0 / 12.0_f64.sqrt()).abs() < 0.005, "{deviation}");
        assert!(noise.iter().all(|x| (-0.5..0.5).contains(x)));
    }

    #[test]
    fn l2_noise_is_within_the_radius() {
        let indices: Vec<usize> = (0..2000).collect();
        let noise = training_noise(0, 0, &indices, 3 * 8 * 8, Start::L2 { radius: 0.5 });
        let length = |image: &[f32]| image.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let lengths: Vec<f64> = noise.chunks(3 * 8 * 8).map(length).collect();
        assert!(lengths.iter().all(|&length| length <= 0.5 + 1e-6));
        assert!((lengths.iter().sum::<f64>() / 2000.0 - 0.25).abs() < 0.02);
        let mean = noise.iter().map(|&x| f64::from(x)).sum::<f64>() / noise.len() as f64;
        assert!(mean.abs() < 1e-3);
    }
}
