//! What a file of weights says about the images that it was trained on. Pure.

use datjob_api::training::Dataset;
use serde::{Deserialize, Serialize};

use crate::{DataError, Split};

/// The data set of a training, and which of its training images were held out for validation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightsCard {
    /// The data set.
    pub dataset: Dataset,
    /// Number of its training images, the held-out ones included.
    pub training_images: usize,
    /// Number of held-out images.
    pub validation_count: usize,
    /// Seed of their draw.
    pub validation_seed: u64,
}

impl WeightsCard {
    /// The card as JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// The card in JSON; `None` if it is not valid, for example from a release with other data sets.
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The split that the card describes.
    pub fn split(&self) -> Result<Split, DataError> {
        crate::split(self.training_images, self.validation_count, self.validation_seed)
    }

    /// Whether weights with this card were trained on images that a training with the card `later` holds out.
    ///
    /// The draws are nested: with the same seed, a smaller validation split is a part of a larger one. Two data sets of the
    /// same kind and size are taken for the same.
    pub fn was_trained_on_validation_images_of(&self, later: &Self) -> bool {
        let same_data = self.dataset == later.dataset && self.training_images == later.training_images;
        let nested =
            self.validation_seed == later.validation_seed && later.validation_count <= self.validation_count;
        same_data && !nested
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn card(validation_count: usize, validation_seed: u64) -> WeightsCard {
        WeightsCard { dataset: Dataset::Cifar10, training_images: 200, validation_count, validation_seed }
    }

    #[test]
    fn agrees_with_the_splits() {
        let held_out = |card: &WeightsCard| BTreeSet::from_iter(card.split().unwrap().validation);
        let cards = [card(20, 0), card(30, 0), card(20, 1), card(30, 1)];
        for earlier in &cards {
            for later in &cards {
                let seen = !held_out(later).is_subset(&held_out(earlier));
                assert_eq!(earlier.was_trained_on_validation_images_of(later), seen, "{earlier:?} {later:?}");
            }
        }
    }

    #[test]
    fn another_data_set_has_no_images_in_common() {
        let other = WeightsCard { dataset: Dataset::Cifar100, ..card(20, 1) };
        assert!(!other.was_trained_on_validation_images_of(&card(20, 0)));
        let other = WeightsCard { training_images: 201, ..card(20, 1) };
        assert!(!other.was_trained_on_validation_images_of(&card(20, 0)));
    }

    #[test]
    fn reads_its_own_json_only() {
        assert_eq!(WeightsCard::from_json(&card(20, 1).to_json()), Some(card(20, 1)));
        assert_eq!(WeightsCard::from_json("{}"), None);
    }
}
