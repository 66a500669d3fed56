//! Certified accuracy by randomised smoothing (Cohen et al., "Certified adversarial robustness via randomized smoothing",
//! arXiv 1902.02918, algorithm CERTIFY): the class that the network gives most often under Gaussian noise is certain within
//! σ Φ⁻¹(p) in ℓ2, p a lower bound of its probability.
//!
//! Ranks take whole images; the noise belongs to the seed and the image, and is drawn in batches of a fixed size: the
//! counts are those of every world. It is drawn on the device (a hundred thousand images of noise for one), so a GPU's
//! differ from a CPU's.

use datjob_api::{report::CertifiedCount, training::Certify};
use datjob_data::{Images, random::Stream};
use statrs::{
    distribution::{ContinuousCDF, Normal},
    function::beta::beta_reg,
};
use tch::{Device, TchError, Tensor, no_grad};

use crate::{
    evaluate::{Classifier, EvaluateError},
    tensors::float_batch,
};

/// Radii at which accuracy is counted: those of the paper of distributed adversarial training (table 2), and larger ones.
pub const RADII: [&str; 12] =
    ["0.0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.4", "0.5", "0.75", "1.0", "1.5"];
/// Noisy images in a batch. Part of the definition of a result: never changes.
const BATCH: u32 = 1000;

/// How images are certified.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certification {
    /// Deviation of the noise, in units of the pixel range.
    pub sigma: f64,
    /// Copies that choose the class.
    pub selection_samples: u32,
    /// Other copies that bound its probability.
    pub samples: u32,
    /// Probability that a certificate is wrong.
    pub alpha: f64,
}

impl Certification {
    /// As the spec asks, with noise of that deviation.
    pub fn new(spec: &Certify, sigma: f64) -> Self {
        let Certify { selection_samples, samples, alpha, .. } = *spec;
        Self { sigma, selection_samples, samples, alpha }
    }

    /// The class of an image `[1, C, H, W]` and the radius within which it is certain; nothing where it is too close to
    /// call. `draws` seeds the device's generator.
    pub fn certify(
        &self,
        classifier: &dyn Classifier,
        image: &Tensor,
        draws: &mut Stream,
    ) -> Result<Option<(i64, f64)>, TchError> {
        tch::manual_seed(draws.seed());
        let selection = self.counts(classifier, image, self.selection_samples)?;
        let class = selection.f_argmax(0, false)?.f_int64_value(&[])?;
        let estimation = self.counts(classifier, image, self.samples)?;
        let hits = estimation.f_int64_value(&[class])?;
        let probability = lower_bound(hits as u64, u64::from(self.samples), self.alpha);
        Ok((probability > 0.5).then(|| (class, self.sigma * quantile(probability))))
    }

    /// How often each class is given under noise.
    fn counts(&self, classifier: &dyn Classifier, image: &Tensor, samples: u32) -> Result<Tensor, TchError> {
        no_grad(|| {
            let size = image.size();
            let mut total: Option<Tensor> = None;
            for begin in (0..samples).step_by(BATCH as usize) {
                let rows = i64::from(BATCH.min(samples - begin));
                let shape = [&[rows], size.get(1..).unwrap_or_default()].concat();
                let noise = Tensor::f_randn(shape.as_slice(), (image.kind(), image.device()))?;
                let noisy = classifier.input(&noise.f_mul_scalar(self.sigma)?.f_add(image)?)?;
                let logits = classifier.logits(&noisy)?;
                let counts = logits.f_argmax(1, false)?.f_bincount(None::<&Tensor>, logits.size()[1])?;
                total = Some(match total {
                    Some(total) => total.f_add(&counts)?,
                    None => counts,
                });
            }
            total.ok_or_else(|| TchError::Torch("the number of noisy copies must be at least 1".to_owned()))
        })
    }
}

/// For each of [`RADII`] how many of a rank's images are certainly of their label, then how many images it had: numbers
/// that ranks can sum up. `count` images, evenly spaced over `images`.
pub fn counts(
    classifier: &dyn Classifier,
    certification: &Certification,
    (images, count, device): (&Images, usize, Device),
    seed: u64,
    (rank, world): (usize, usize),
) -> Result<Vec<i64>, EvaluateError> {
    let mut counts = vec![0; RADII.len() + 1];
    for number in (rank..count).step_by(world.max(1)) {
        let index = number * images.len() / count;
        let (image, _) = float_batch(&images.read(&[index], None)?, device)?;
        let mut draws = Stream::certification(seed, index as u64);
        let found = certification.certify(classifier, &image, &mut draws)?;
        let label = i64::from(images.label(index));
        if let Some((_, radius)) = found.filter(|(class, _)| *class == label) {
            let radii = RADII.iter().map(|radius| radius.parse().unwrap_or(f64::INFINITY));
            counts.iter_mut().zip(radii).for_each(|(count, least)| *count += i64::from(radius >= least));
        }
        if let Some(total) = counts.last_mut() {
            *total += 1;
        }
    }
    Ok(counts)
}

/// The sum of [`counts`] over all ranks, as results have it.
pub fn certified(counts: &[i64]) -> Vec<CertifiedCount> {
    let total = counts.get(RADII.len()).copied().unwrap_or(0).unsigned_abs();
    RADII
        .iter()
        .zip(counts)
        .map(|(radius, count)| CertifiedCount {
            radius: (*radius).to_owned(),
            correct: count.unsigned_abs(),
            total,
        })
        .collect()
}

/// A bound that the probability of a success is not below with probability 1 − α, from independent trials (Clopper and
/// Pearson, one-sided): the p at which so many successes or more have the probability α.
pub fn lower_bound(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == 0 || trials == 0 {
        return 0.0;
    }
    let (a, b) = (successes as f64, trials.saturating_sub(successes) as f64 + 1.0);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // Halved until the numbers are neighbours.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if beta_reg(a, b, middle) < alpha { low = middle } else { high = middle }
    }
    low
}

/// Φ⁻¹.
fn quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    /// Two classes, decided by a plane: the smoothed network's radius is the distance to it.
    struct Linear {
        normal: Tensor,
        offset: f64,
    }

    impl Classifier for Linear {
        fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
            let side = images.f_flatten(1, -1)?.f_mv(&self.normal)?.f_add_scalar(self.offset)?;
            Tensor::f_stack(&[side.f_zeros_like()?, side], 1)
        }
    }

    #[test]
    fn a_linear_network_is_certified_up_to_its_plane() {
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        // So sure that no draw of the generator, which all tests of the process share, can matter.
        let certification =
            Certification { sigma: 0.25, selection_samples: 100, samples: 20_000, alpha: 1e-9 };
        for offset in [-1.7, -2.3, -1.6, -1.2] {
            // The normal has length 2.
            let linear = Linear { normal: Tensor::ones([4], (Kind::Double, Device::Cpu)), offset };
            let mut draws = Stream::certification(0, 1);
            let (class, radius) = certification.certify(&linear, &image, &mut draws).unwrap().unwrap();
            assert_eq!(class, i64::from(2.0 + offset > 0.0));
            let exact = (2.0 + offset).abs() / 2.0;
            assert!(radius <= exact && radius > exact - 0.05, "{radius} of {exact}");
        }
    }

    #[test]
    fn an_image_on_the_plane_is_too_close_to_call() {
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        let linear = Linear { normal: Tensor::ones([4], (Kind::Double, Device::Cpu)), offset: -2.0 };
        let certification = Certification { sigma: 0.25, selection_samples: 100, samples: 2000, alpha: 1e-9 };
        assert_eq!(certification.certify(&linear, &image, &mut Stream::certification(0, 0)).unwrap(), None);
    }

    /// The certificate is wrong as often as α says, and no more: 10,000 draws at α = 0.05.
    #[test]
    fn the_bound_is_wrong_as_often_as_it_says() {
        let mut draws = Stream::certification(1, 1);
        let (trials, probability, alpha) = (100, 0.8, 0.05);
        let threshold = (probability * 2.0 - 1.0) as f32;
        let wrong = (0..10_000)
            .filter(|_| {
                let hits = (0..trials).filter(|_| draws.symmetric() < threshold).count();
                lower_bound(hits as u64, trials, alpha) > probability
            })
            .count();
        // Five standard errors; the bound is conservative by the steps of a count.
        assert!((200..=609).contains(&wrong), "{wrong} of 10000");
    }

    #[test]
    fn bounds_are_those_of_the_literature() {
        // α^(1/n) where all trials succeed.
        for (trials, alpha) in [(100_u64, 0.001_f64), (100_000, 0.001), (10, 0.05)] {
            let expected = alpha.powf(1.0 / trials as f64);
            assert!((lower_bound(trials, trials, alpha) - expected).abs() < 1e-10);
        }
        // 5 of 10 at α = 0.025: the 95 % interval of Clopper and Pearson begins at 0.18709.
        assert!((lower_bound(5, 10, 0.025) - 0.187_086).abs() < 1e-6);
        assert!(lower_bound(0, 10, 0.05).abs() < f64::EPSILON);
        assert!((quantile(0.975) - 1.959_963_985).abs() < 1e-8);
    }

    #[test]
    fn counts_of_ranks_add_up_to_those_of_one() {
        let pixels: Vec<u8> = (0..40).map(|index| index * 6).collect();
        let images = Images::new([1, 2, 2], pixels, vec![1; 10]);
        let linear = Linear { normal: Tensor::ones([4], (Kind::Float, Device::Cpu)), offset: -1.0 };
        let certification = Certification { sigma: 0.25, selection_samples: 10, samples: 200, alpha: 0.01 };
        let part = |rank, world| {
            counts(&linear, &certification, (&images, 5, Device::Cpu), 3, (rank, world)).unwrap()
        };
        let alone = part(0, 1);
        assert_eq!(alone.last(), Some(&5));
        assert!(alone[0] > alone[11] && alone[0] < 5, "{alone:?}");
        let results = certified(&alone);
        assert_eq!((results[0].radius.as_str(), results[0].total), ("0.0", 5));
    }
}
