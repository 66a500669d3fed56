use tch::{TchError, Tensor};

/// Images under attack, and what belongs to each.
pub(super) struct Batch {
    /// Their indices in the data set.
    pub indices: Vec<usize>,
    /// Their labels.
    pub classes: Vec<usize>,
    /// `[N, C, H, W]` in [0, 1].
    pub images: Tensor,
    /// i64 `[N]`, the labels on the device.
    pub labels: Tensor,
    /// The classes of each image by its logits, the likeliest first.
    pub ranking: Tensor,
    /// `[C, H, W]`.
    pub image_shape: [i64; 3],
}

impl Batch {
    /// Those images that are wanted, a flag for each.
    pub(super) fn keep(&self, wanted: &[bool]) -> Result<Self, TchError> {
        let rows: Vec<i64> = (0..).zip(wanted).filter(|(_, wanted)| **wanted).map(|(row, _)| row).collect();
        let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.images.device())?;
        Ok(Self {
            indices: only(&self.indices, wanted),
            classes: only(&self.classes, wanted),
            images: self.images.f_index_select(0, &rows)?,
            labels: self.labels.f_index_select(0, &rows)?,
            ranking: self.ranking.f_index_select(0, &rows)?,
            image_shape: self.image_shape,
        })
    }

    /// The labels of those images that are wanted.
    pub(super) fn classes_of(&self, wanted: &[bool]) -> Vec<usize> {
        only(&self.classes, wanted)
    }

    /// All of them, the tensors shared.
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

fn only(all: &[usize], wanted: &[bool]) -> Vec<usize> {
    all.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(one, _)| *one).collect()
}
