//! The number of images that an epoch trained on. Plain data.

use serde::{Deserialize, Serialize};

/// The images that the steps of an epoch trained on, on all ranks, counted by their indices in the data set.
///
/// `images` is the number that the epoch plans, without `missing_images` and with `repeated_images`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochSamples {
    /// Number of images. Additional images count as often as they were used.
    pub images: u64,
    /// Number of different images.
    pub distinct_images: u64,
    /// Number of images of the epoch that no step trained on.
    pub missing_images: u64,
    /// Number of images that steps trained on again, although the epoch does not repeat them.
    pub repeated_images: u64,
}

impl EpochSamples {
    /// Compares how often each image was trained on with how often the epoch plans it.
    pub fn new(counted: &[u64], planned: &[u64]) -> Self {
        let mut samples = Self::default();
        for (&counted, &planned) in counted.iter().zip(planned) {
            samples.images += counted;
            samples.distinct_images += u64::from(counted > 0);
            samples.missing_images += planned.saturating_sub(counted);
            samples.repeated_images += counted.saturating_sub(planned);
        }
        samples
    }

    /// A warning about the epoch, counted from 1, unless it trained on the images that it plans.
    pub fn warning(&self, epoch: u32) -> Option<String> {
        let Self { missing_images: missing, repeated_images: repeated, .. } = self;
        (missing + repeated > 0).then(|| {
            format!(
                "Epoch {epoch} did not train on each of its images once (missing: {missing}, repeated: {repeated}); this is a \
                 bug in the trainer: report it with the log of pod 0"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_repeated_image_do_not_cancel() {
        let exact = EpochSamples::new(&[1, 0, 1, 3], &[1, 0, 1, 3]);
        let counts = |images, distinct_images, missing_images, repeated_images| EpochSamples {
            images,
            distinct_images,
            missing_images,
            repeated_images,
        };
        assert_eq!(exact, counts(5, 3, 0, 0));
        assert_eq!(exact.warning(3), None);
        // One image was trained on twice, one that is held out was trained on, and one additional image is missing.
        let wrong = EpochSamples::new(&[2, 1, 1, 2], &[1, 0, 1, 3]);
        assert_eq!(wrong, counts(6, 4, 1, 2));
        let warning = wrong.warning(3).unwrap();
        assert!(
            warning.starts_with("Epoch 3 did not") && warning.contains("(missing: 1, repeated: 2)"),
            "{warning}"
        );
    }
}
