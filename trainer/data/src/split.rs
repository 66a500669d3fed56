//! Splits the training images into training and validation. Pure.

use super::DataError;
use crate::random::Stream;

/// Training and validation images, as sorted indices in the training images of the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The images to train on.
    pub training: Vec<usize>,
    /// The held-out images. Only they select a checkpoint.
    pub validation: Vec<usize>,
}

/// Selects `validation` of `images` images at random for validation.
///
/// ```
/// let split = datjob_data::split(10, 3, 0)?;
/// assert_eq!((split.training.len(), split.validation.len()), (7, 3));
/// # Ok::<(), datjob_data::DataError>(())
/// ```
pub fn split(images: usize, validation: usize, seed: u64) -> Result<Split, DataError> {
    if validation >= images {
        return Err(DataError::Split { images, validation });
    }
    let mut order: Vec<usize> = (0..images).collect();
    Stream::split(seed).shuffle(&mut order);
    let mut training = order.split_off(validation);
    training.sort_unstable();
    order.sort_unstable();
    Ok(Split { training, validation: order })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_image_is_in_exactly_one_subset(
            (images, validation) in (1_usize..400).prop_flat_map(|images| (Just(images), 0..images)),
            seed: u64,
        ) {
            let Split { training, validation: held_out } = split(images, validation, seed).unwrap();
            prop_assert_eq!(held_out.len(), validation);
            prop_assert!(training.is_sorted() && held_out.is_sorted());
            let mut all = [training, held_out].concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..images));
        }
    }

    #[test]
    fn the_split_depends_on_the_seed() {
        assert_eq!(split(1000, 100, 1).unwrap(), split(1000, 100, 1).unwrap());
        assert_ne!(split(1000, 100, 1).unwrap(), split(1000, 100, 2).unwrap());
    }

    #[test]
    fn rejects_a_split_without_training_images() {
        assert_eq!(
            split(10, 10, 0).unwrap_err().to_string(),
            "spec.training.data.validation.count: invalid value 10: must be less than the number of training images \
             (10)"
        );
    }
}
