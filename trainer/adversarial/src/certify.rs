//! Certified accuracy by randomised smoothing (Cohen et al., "Certified adversarial robustness via randomized smoothing",
//! arXiv 1902.02918, algorithm CERTIFY). The class that the network predicts most often under Gaussian noise is certified
//! within the ℓ2 radius σ Φ⁻¹(p), where p is a lower bound of its probability.
//!
//! Each rank certifies whole images. The noise depends on the seed and the image only, and is drawn in batches of a fixed
//! size, so the counts do not depend on the world size. The network computes a batch in parts that fit in memory. The device
//! draws the noise (100,000 noisy images for each image), so a GPU's counts differ from a CPU's.

use datjob_api::{report::CertifiedCount, training::Certify};
use datjob_data::{Images, random::Stream};
use statrs::{
    distribution::{ContinuousCDF, Normal},
    function::beta::beta_reg,
};
use tch::{Device, TchError, Tensor, no_grad};

use crate::{
    evaluate::{Classifier, EvaluateError, UnitResults, Work},
    parts::Parts,
    shard::Shard,
    tensors::float_batch,
};

/// Radii at which certified accuracy is counted: those of the paper of distributed adversarial training (table 2), and
/// larger ones.
pub const RADII: [&str; 12] =
    ["0.0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.4", "0.5", "0.75", "1.0", "1.5"];
/// Number of noisy images in a batch. Results depend on it, so it must never change.
const BATCH: u32 = 1000;

/// Parameters of algorithm CERTIFY.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certification {
    /// Standard deviation of the noise, in units of the pixel range.
    pub sigma: f64,
    /// Number of noisy copies that select the class.
    pub selection_samples: u32,
    /// Number of further copies that bound its probability.
    pub samples: u32,
    /// Probability of a wrong certificate.
    pub alpha: f64,
}

impl Certification {
    /// Takes the parameters from the spec; `sigma` is the deviation of the noise.
    pub fn new(spec: &Certify, sigma: f64) -> Self {
        let Certify { selection_samples, samples, alpha, .. } = *spec;
        Self { sigma, selection_samples, samples, alpha }
    }

    /// Certifies an image `[1, C, H, W]`: its class and the certified radius, or `None` if CERTIFY abstains. `random`
    /// seeds the device's generator.
    fn certify(
        &self,
        classifier: &dyn Classifier,
        image: &Tensor,
        random: &mut Stream,
        parts: &mut Parts,
    ) -> Result<Option<(i64, f64)>, TchError> {
        tch::manual_seed(random.seed());
        let selection = self.count_classes(classifier, image, self.selection_samples, parts)?;
        let class = selection.f_argmax(0, false)?.f_int64_value(&[])?;
        let estimation = self.count_classes(classifier, image, self.samples, parts)?;
        let hits = estimation.f_int64_value(&[class])?;
        let probability = clopper_pearson_lower_bound(hits as u64, u64::from(self.samples), self.alpha);
        Ok((probability > 0.5).then(|| (class, self.sigma * quantile(probability))))
    }

    /// How often the classifier predicts each class under noise.
    fn count_classes(
        &self,
        classifier: &dyn Classifier,
        image: &Tensor,
        samples: u32,
        parts: &mut Parts,
    ) -> Result<Tensor, TchError> {
        no_grad(|| {
            let size = image.size();
            let mut total: Option<Tensor> = None;
            for start in (0..samples).step_by(BATCH as usize) {
                let rows = i64::from(BATCH.min(samples - start));
                let shape = [&[rows], size.get(1..).unwrap_or_default()].concat();
                // In place: a thousand copies of a large image take much memory.
                let mut noisy = Tensor::f_randn(shape.as_slice(), (image.kind(), image.device()))?;
                let noisy = noisy.f_mul_scalar_(self.sigma)?.f_add_(image)?;
                let logits = parts.compute(rows as usize, |part| {
                    let part = noisy.f_narrow(0, part.start as i64, part.len() as i64)?;
                    classifier.logits(&classifier.prepare_input(&part)?)
                })?;
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

/// The images to certify.
#[derive(Clone, Copy, Debug)]
pub struct CertificationImages<'a> {
    /// The test set.
    pub images: &'a Images,
    /// Number of images to certify, evenly spaced over the test set.
    pub count: usize,
    /// The device of the network.
    pub device: Device,
}

/// Number of [`RADII`], which rise, that are at most `radius`.
fn radii_within(radius: f64) -> usize {
    let radii = RADII.iter().map(|radius| radius.parse().unwrap_or(f64::INFINITY));
    radii.take_while(|within: &f64| radius >= *within).count()
}

/// Certifies this rank's images. Returns the number of certified images for each of [`RADII`], then the number of images.
/// The sum over ranks is the result; see [`certified_counts`]. Images whose results are in `units` are not computed.
/// `progress` receives the finished images of this rank, before each image.
pub fn count_certified(
    classifier: &dyn Classifier,
    certification: &Certification,
    images: CertificationImages<'_>,
    seed: u64,
    shard: Shard,
    units: &mut dyn UnitResults,
    progress: &mut dyn FnMut(Work),
) -> Result<Vec<i64>, EvaluateError> {
    let CertificationImages { images, count, device } = images;
    let mut counts = vec![0; RADII.len() + 1];
    let mut parts = Parts::new(device, images.shape(), BATCH as usize);
    let numbers: Vec<usize> = shard.select(0..count).collect();
    let mut work = Work { done: 0, total: numbers.len() as u64, known: None };
    for number in &numbers {
        let index = number * images.len() / count;
        let radii = if let Some(radii) = units.find_certified(index) {
            progress(work);
            radii
        } else {
            work.known.get_or_insert(work.done);
            progress(work);
            let (image, _) = float_batch(&images.read(&[index], None)?, device)?;
            let mut random = Stream::certification(seed, index as u64);
            let certificate = certification.certify(classifier, &image, &mut random, &mut parts)?;
            let label = i64::from(images.label(index));
            let radii = certificate
                .filter(|(class, _)| *class == label)
                .map_or(0, |(_, radius)| radii_within(radius));
            units.keep_certified(index, radii);
            radii
        };
        work.done += 1;
        counts.iter_mut().take(radii.min(RADII.len())).for_each(|count| *count += 1);
        if let Some(total) = counts.last_mut() {
            *total += 1;
        }
    }
    Ok(counts)
}

/// Converts the sum of [`count_certified`] over all ranks into results.
pub fn certified_counts(counts: &[i64]) -> Vec<CertifiedCount> {
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

/// The one-sided Clopper-Pearson lower confidence bound of a success probability at level 1 − α: the p at which this many
/// successes or more have probability α.
pub fn clopper_pearson_lower_bound(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == 0 || trials == 0 {
        return 0.0;
    }
    let (a, b) = (successes as f64, trials.saturating_sub(successes) as f64 + 1.0);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // 100 bisections: then `low` and `high` are adjacent numbers.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if beta_reg(a, b, middle) < alpha { low = middle } else { high = middle }
    }
    low
}

/// Φ⁻¹, the quantile function of the standard normal distribution.
fn quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Kind;

    use super::*;
    use crate::evaluate::Unit;

    /// Two classes, separated by a plane. The smoothed network's radius is the distance to the plane.
    struct Linear {
        normal: Tensor,
        offset: f64,
        /// The number of images that fit in memory.
        memory: i64,
    }

    impl Classifier for Linear {
        fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
            if images.size()[0] > self.memory {
                return Err(TchError::Torch("CUDA out of memory. Tried to allocate 2.00 GiB.".into()));
            }
            let side = images.f_flatten(1, -1)?.f_mv(&self.normal)?.f_add_scalar(self.offset)?;
            Tensor::f_stack(&[side.f_zeros_like()?, side], 1)
        }
    }

    /// The normal has length 2.
    fn linear(kind: Kind, offset: f64) -> Linear {
        Linear { normal: Tensor::ones([4], (kind, Device::Cpu)), offset, memory: i64::MAX }
    }

    fn parts() -> Parts {
        Parts::new(Device::Cpu, [1, 2, 2], BATCH as usize)
    }

    #[test]
    fn counts_as_many_noisy_copies_as_asked_for() {
        let certification = Certification { sigma: 0.25, selection_samples: 100, samples: 1, alpha: 1e-3 };
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        for samples in [1, BATCH, BATCH + 1, 2 * BATCH + 500] {
            let counts = certification
                .count_classes(&linear(Kind::Double, -2.0), &image, samples, &mut parts())
                .unwrap();
            assert_eq!(counts.sum(Kind::Int64).int64_value(&[]), i64::from(samples));
        }
    }

    #[test]
    fn certifies_a_linear_network_up_to_its_plane() {
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        // A tiny α: no draw can fail the test. All tests of the process share the generator.
        let certification =
            Certification { sigma: 0.25, selection_samples: 100, samples: 20_000, alpha: 1e-9 };
        for offset in [-1.7, -2.3, -1.6, -1.2] {
            let linear = linear(Kind::Double, offset);
            let mut random = Stream::certification(0, 1);
            let (class, radius) =
                certification.certify(&linear, &image, &mut random, &mut parts()).unwrap().unwrap();
            assert_eq!(class, i64::from(2.0 + offset > 0.0));
            let exact = (2.0 + offset).abs() / 2.0;
            assert!(radius <= exact && radius > exact - 0.05, "{radius} of {exact}");
        }
    }

    #[test]
    fn a_batch_that_does_not_fit_is_computed_in_parts() {
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        let certification =
            Certification { sigma: 0.25, selection_samples: 100, samples: 20_000, alpha: 1e-9 };
        let certify = |memory| {
            let linear = Linear { memory, ..linear(Kind::Double, -1.6) };
            certification.certify(&linear, &image, &mut Stream::certification(0, 1), &mut parts())
        };
        let (class, radius) = certify(300).unwrap().unwrap();
        // A part that is lost or counted twice changes the radius: p is 0.79.
        assert!(class == 1 && radius <= 0.2 && radius > 0.18, "{class} {radius}");
        assert!(certify(0).unwrap_err().to_string().contains("out of memory"));
    }

    #[test]
    fn abstains_for_an_image_on_the_plane() {
        let image = Tensor::full([1, 1, 2, 2], 0.5, (Kind::Double, Device::Cpu));
        let linear = linear(Kind::Double, -2.0);
        let certification = Certification { sigma: 0.25, selection_samples: 100, samples: 2000, alpha: 1e-9 };
        let mut random = Stream::certification(0, 0);
        assert_eq!(certification.certify(&linear, &image, &mut random, &mut parts()).unwrap(), None);
    }

    /// The share of wrong bounds is α: 10,000 draws at α = 0.05.
    #[test]
    fn the_lower_bound_has_its_error_rate() {
        let mut random = Stream::certification(1, 1);
        let (trials, probability, alpha) = (100, 0.8, 0.05);
        let threshold = (probability * 2.0 - 1.0) as f32;
        let wrong = (0..10_000)
            .filter(|_| {
                let hits = (0..trials).filter(|_| random.symmetric() < threshold).count();
                clopper_pearson_lower_bound(hits as u64, trials, alpha) > probability
            })
            .count();
        // Five standard errors; the bound is conservative because counts are discrete.
        assert!((200..=609).contains(&wrong), "{wrong} of 10000");
    }

    #[test]
    fn lower_bounds_match_the_literature() {
        // α^(1/n) if all trials succeed.
        for (trials, alpha) in [(100_u64, 0.001_f64), (100_000, 0.001), (10, 0.05)] {
            let expected = alpha.powf(1.0 / trials as f64);
            assert!((clopper_pearson_lower_bound(trials, trials, alpha) - expected).abs() < 1e-10);
        }
        // 5 of 10 at α = 0.025: the 95 % interval of Clopper and Pearson starts at 0.18709.
        assert!((clopper_pearson_lower_bound(5, 10, 0.025) - 0.187_086).abs() < 1e-6);
        assert!(clopper_pearson_lower_bound(0, 10, 0.05).abs() < f64::EPSILON);
        assert!((quantile(0.975) - 1.959_963_985).abs() < 1e-8);
    }

    #[derive(Default)]
    struct InMemory(BTreeMap<usize, usize>);

    impl UnitResults for InMemory {
        fn find(&mut self, _: Unit, _: &[usize]) -> Option<Vec<bool>> {
            None
        }

        fn keep(&mut self, _: Unit, _: &[usize], _: &[bool]) {}

        fn find_certified(&mut self, image: usize) -> Option<usize> {
            self.0.get(&image).copied()
        }

        fn keep_certified(&mut self, image: usize, radii: usize) {
            self.0.insert(image, radii);
        }
    }

    #[test]
    fn radii_are_counted_from_the_smallest() {
        assert_eq!([0.0, 0.049, 0.05, 0.76, 9.0].map(radii_within), [1, 1, 2, 10, 12]);
    }

    #[test]
    fn counts_radii_of_a_single_process() {
        let pixels: Vec<u8> = (0..40).map(|index| index * 6).collect();
        let images = Images::new([1, 2, 2], pixels, vec![1; 10]);
        let linear = linear(Kind::Float, -1.0);
        let certification = Certification { sigma: 0.25, selection_samples: 10, samples: 200, alpha: 0.01 };
        let sample = CertificationImages { images: &images, count: 5, device: Device::Cpu };
        let mut seen = Vec::new();
        let mut progress = |work: Work| seen.push((work.done, work.total, work.known));
        let mut units = InMemory::default();
        let counts =
            count_certified(&linear, &certification, sample, 3, Shard::WHOLE, &mut units, &mut progress)
                .unwrap();
        assert_eq!(seen, [0, 1, 2, 3, 4].map(|done| (done, 5, Some(0))));
        // A certification that was interrupted after four images.
        units.0.retain(|image, _| *image < 8);
        assert_eq!(units.0.len(), 4);
        let mut seen = Vec::new();
        let mut progress = |work: Work| seen.push((work.done, work.known));
        let again =
            count_certified(&linear, &certification, sample, 3, Shard::WHOLE, &mut units, &mut progress)
                .unwrap();
        assert_eq!(again, counts);
        assert_eq!(seen, [(0, None), (1, None), (2, None), (3, None), (4, Some(4))]);
        assert_eq!(counts.last(), Some(&5));
        assert!(counts[0] > counts[11] && counts[0] < 5, "{counts:?}");
        let results = certified_counts(&counts);
        assert_eq!((results[0].radius.as_str(), results[0].total), ("0.0", 5));
    }
}
