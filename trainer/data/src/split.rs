use super::DataError;
use crate::random::Stream;

/// Which images are trained on and which are held back, as sorted indices in the training part of the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Images to train on.
    pub training: Vec<usize>,
    /// Images held back: the only ones that choose anything.
    pub validation: Vec<usize>,
}

/// Holds back `validation` of `images` images, drawn by the seed.
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
        fn both_parts_together_are_all_images_once(
            (images, validation) in (1_usize..400).prop_flat_map(|images| (Just(images), 0..images)),
            seed: u64,
        ) {
            let Split { training, validation: held_back } = split(images, validation, seed).unwrap();
            prop_assert_eq!(held_back.len(), validation);
            prop_assert!(training.is_sorted() && held_back.is_sorted());
            let mut all = [training, held_back].concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..images));
        }
    }

    #[test]
    fn the_seed_draws_the_images() {
        assert_eq!(split(1000, 100, 1).unwrap(), split(1000, 100, 1).unwrap());
        assert_ne!(split(1000, 100, 1).unwrap(), split(1000, 100, 2).unwrap());
    }

    #[test]
    fn holding_back_everything_is_refused() {
        assert_eq!(
            split(10, 10, 0).unwrap_err().to_string(),
            "spec.training.data.validation.count: invalid value 10: must be less than the number of training images \
             (10)"
        );
    }
}
