//! A batch of an evaluation.

use std::ops::Range;

use tch::{TchError, Tensor};

/// Images under attack, with their labels.
pub(super) struct Batch {
    /// Their indices in the data set.
    pub indices: Vec<usize>,
    /// Their labels.
    pub classes: Vec<usize>,
    /// `[N, C, H, W]` in [0, 1].
    pub images: Tensor,
    /// i64 `[N]`, the labels on the device.
    pub labels: Tensor,
    /// The classes of each image, sorted by its clean logits, the largest first.
    pub ranking: Tensor,
    /// `[C, H, W]`.
    pub image_shape: [i64; 3],
}

impl Batch {
    /// The images whose flag in `mask` is set.
    pub(super) fn select(&self, mask: &[bool]) -> Result<Self, TchError> {
        let rows: Vec<i64> = (0..).zip(mask).filter(|(_, selected)| **selected).map(|(row, _)| row).collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.images.device())?;
        Ok(Self {
            indices: selected(&self.indices, mask),
            classes: selected(&self.classes, mask),
            images: self.images.f_index_select(0, &rows)?,
            labels: self.labels.f_index_select(0, &rows)?,
            ranking: self.ranking.f_index_select(0, &rows)?,
            image_shape: self.image_shape,
        })
    }

    /// These rows; the tensors are views.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Self, TchError> {
        let narrow = |tensor: &Tensor| tensor.f_narrow(0, rows.start as i64, rows.len() as i64);
        Ok(Self {
            indices: self.indices[rows.clone()].to_vec(),
            classes: self.classes[rows.clone()].to_vec(),
            images: narrow(&self.images)?,
            labels: narrow(&self.labels)?,
            ranking: narrow(&self.ranking)?,
            image_shape: self.image_shape,
        })
    }

    /// The labels of the images whose flag in `mask` is set.
    pub(super) fn selected_classes(&self, mask: &[bool]) -> Vec<usize> {
        selected(&self.classes, mask)
    }

    /// A copy that shares the tensors.
    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            indices: self.indices.clone(),
            classes: self.classes.clone(),
            images: self.images.shallow_clone(),
            labels: self.labels.shallow_clone(),
            ranking: self.ranking.shallow_clone(),
            image_shape: self.image_shape,
        }
    }
}

fn selected(items: &[usize], mask: &[bool]) -> Vec<usize> {
    items.iter().zip(mask).filter(|(_, selected)| **selected).map(|(item, _)| *item).collect()
}
