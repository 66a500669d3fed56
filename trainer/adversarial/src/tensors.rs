//! Conversion of image batches and random numbers to tensors. Pure.

use datjob_data::{
    ImageBatch,
    random::{self, Start},
};
use tch::{Device, Kind, TchError, Tensor};

/// Images as u8 `[N, C, H, W]`, for [`to_float`], and labels as i64 `[N]`; both in host memory.
pub fn byte_batch(loaded: &ImageBatch) -> Result<(Tensor, Tensor), TchError> {
    let images = batch(&Tensor::f_from_slice(&loaded.pixels)?, loaded.labels.len(), loaded.shape)?;
    Ok((images, Tensor::f_from_slice(&loaded.labels)?))
}

/// [`byte_batch`] with the images converted [to floats](to_float), on `device`.
pub fn float_batch(loaded: &ImageBatch, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let (pixels, labels) = byte_batch(loaded)?;
    Ok((to_float(&pixels.f_to_device(device)?)?, labels.f_to_device(device)?))
}

/// Converts bytes to f32 in [0, 1] (byte / 255) on their device. The transfer of bytes takes a quarter of that of floats.
pub fn to_float(pixels: &Tensor) -> Result<Tensor, TchError> {
    pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)
}

/// The targets of a loss: labels i64 `[N]`, or for mixed images class probabilities f32 `[N, classes]`. Their cross-entropy
/// is the weighted sum of the cross-entropies of both labels.
pub fn targets(loaded: &ImageBatch, classes: i64) -> Result<Tensor, TchError> {
    let labels = Tensor::f_from_slice(&loaded.labels)?;
    if loaded.mixed_labels.is_empty() {
        return Ok(labels);
    }
    let (others, own): (Vec<i64>, Vec<f32>) = loaded.mixed_labels.iter().copied().unzip();
    let own = Tensor::f_from_slice(&own)?.f_unsqueeze(1)?;
    let one_hot = |labels: &Tensor| labels.f_one_hot(classes)?.f_to_kind(Kind::Float);
    let (labels, others) = (one_hot(&labels)?, one_hot(&Tensor::f_from_slice(&others)?)?);
    others.f_lerp_tensor(&labels, &own)
}

/// [`random::training_noise`] as f32 `[N, C, H, W]` on the CPU; `shape` is channels, height, width.
pub fn training_noise(
    seed: u64,
    epoch: u64,
    indices: &[usize],
    shape: [i64; 3],
    start: Start,
) -> Result<Tensor, TchError> {
    let noise = random::training_noise(seed, epoch, indices, pixels(shape), start);
    batch(&Tensor::f_from_slice(&noise)?, indices.len(), shape)
}

/// [`random::smoothing_noise`] as f32 `[N · samples, C, H, W]` on the CPU; `shape` is channels, height, width.
pub fn smoothing_noise(
    seed: u64,
    epoch: u64,
    indices: &[usize],
    shape: [i64; 3],
    sigma: f64,
    samples: u32,
) -> Result<Tensor, TchError> {
    let noise = random::smoothing_noise(seed, epoch, indices, pixels(shape), sigma, samples);
    batch(&Tensor::f_from_slice(&noise)?, indices.len() * samples as usize, shape)
}

/// [`random::evaluation_noise`] as f32 `[N, C, H, W]` on the CPU; `shape` is channels, height, width.
pub fn evaluation_noise(
    seed: u64,
    stage: &str,
    restart: u64,
    indices: &[usize],
    shape: [i64; 3],
    start: Start,
) -> Result<Tensor, TchError> {
    let noise = random::evaluation_noise(seed, stage, restart, indices, pixels(shape), start);
    batch(&Tensor::f_from_slice(&noise)?, indices.len(), shape)
}

fn batch(values: &Tensor, images: usize, [channels, height, width]: [i64; 3]) -> Result<Tensor, TchError> {
    values.f_view([images as i64, channels, height, width])
}

fn pixels(shape: [i64; 3]) -> usize {
    shape.iter().product::<i64>() as usize
}

#[cfg(test)]
mod tests {
    use datjob_data::{Augmentation, Images};

    use super::*;

    #[test]
    fn a_batch_holds_the_selected_images_as_floats_from_0_to_1() {
        let images = Images::new([1, 1, 2], vec![0, 51, 102, 153, 204, 255], vec![3, 1, 999]);
        let (pixels, labels) = float_batch(&images.read(&[2, 0], None).unwrap(), Device::Cpu).unwrap();
        assert_eq!(pixels.size(), [2, 1, 1, 2]);
        assert_eq!(
            Vec::<f32>::try_from(pixels.flatten(0, -1)).unwrap(),
            [204.0 / 255.0, 1.0, 0.0, 51.0 / 255.0]
        );
        assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [999, 3]);
    }

    #[test]
    fn targets_of_mixed_images_are_weighted_labels() {
        let images = Images::new([1, 8, 8], [[0; 64], [200; 64]].concat(), vec![0, 2]);
        let variation = datjob_api::training::Variation {
            crop: 0,
            flip: false,
            random_resized_crop: None,
            cutout: 0,
            cut_mix: Some(datjob_api::training::CutMix::default()),
        };
        // The bright image is the only partner.
        let augmentation = Augmentation::new(&variation, &[1], 0, 0);
        let loaded = images.read(&[0; 1], Some(&augmentation)).unwrap();
        let bright = loaded.pixels.iter().map(|&pixel| u32::from(pixel)).sum::<u32>() / 200;
        assert!(bright > 0 && bright < 64, "{bright}");
        let probabilities = Vec::<f32>::try_from(targets(&loaded, 3).unwrap().flatten(0, -1)).unwrap();
        let share = bright as f32 / 64.0;
        assert!(
            (probabilities[0] - (1.0 - share)).abs() < 1e-6 && (probabilities[2] - share).abs() < 1e-6,
            "{probabilities:?}"
        );
        assert!(probabilities[1].abs() < 1e-9);
        // λ · CE(first label) + (1 − λ) · CE(second label).
        let logits = Tensor::from_slice(&[0.3_f32, -1.2, 2.0]).view([1, 3]);
        let entropy = |labels: &Tensor| crate::objective::summed_cross_entropy(&logits, labels).unwrap();
        let entropy_of = |class: i64| entropy(&Tensor::from_slice(&[class])).double_value(&[]);
        let expected = f64::from(1.0 - share) * entropy_of(0) + f64::from(share) * entropy_of(2);
        let found = entropy(&targets(&loaded, 3).unwrap()).double_value(&[]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        let plain = targets(&images.read(&[0, 1], None).unwrap(), 3).unwrap();
        assert_eq!(Vec::<i64>::try_from(plain).unwrap(), [0, 2]);
    }

    #[test]
    fn an_empty_batch_has_no_rows() {
        let images = Images::new([1, 1, 2], vec![0, 51], vec![3]);
        assert_eq!(
            float_batch(&images.read(&[], None).unwrap(), Device::Cpu).unwrap().0.size(),
            [0, 1, 1, 2]
        );
    }
}
