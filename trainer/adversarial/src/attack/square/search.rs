//! The state of the search on one image. Pure.

use datjob_data::random::Stream;

/// The shape of an image, stored as channels of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// The search on one image, on the host, with pixels in f64.
pub(super) struct Search {
    /// Row of the image in the batch.
    pub(super) row: i64,
    pub(super) shape: Shape,
    pub(super) image: Vec<f64>,
    /// The point of the smallest margin so far.
    pub(super) best: Vec<f64>,
    pub(super) margin: f64,
    pub(super) candidate: Vec<f64>,
    pub(super) random: Stream,
}

impl Search {
    /// Keeps the candidate if its margin is smaller.
    pub(super) fn update(&mut self, margin: f64) {
        if margin < self.margin {
            self.margin = margin;
            std::mem::swap(&mut self.best, &mut self.candidate);
        }
    }

    pub(super) fn is_adversarial(&self) -> bool {
        self.margin < 0.0
    }

    /// -1 or 1, each with probability ½.
    pub(super) fn random_sign(&mut self) -> f64 {
        if self.random.coin() { 1.0 } else { -1.0 }
    }

    /// The first row and column of a random window, uniformly distributed.
    pub(super) fn random_corner(&mut self, side: usize) -> (usize, usize) {
        let Shape { height, width, .. } = self.shape;
        let row = self.random.below((height - side + 1) as u32) as usize;
        (row, self.random.below((width - side + 1) as u32) as usize)
    }
}

impl Shape {
    /// The side length of a window that covers a share of the pixels: rounded, at most the image's shorter side.
    pub(super) fn window_side(self, share: f64) -> usize {
        let side = (share * (self.height * self.width) as f64).sqrt().round_ties_even() as usize;
        side.clamp(1, self.height.min(self.width))
    }

    /// Indices of a window's pixels in a channel, row by row.
    pub(super) fn window(
        self,
        channel: usize,
        (row, column): (usize, usize),
        side: usize,
    ) -> impl Iterator<Item = usize> {
        let first = (channel * self.height + row) * self.width + column;
        (0..side).flat_map(move |y| (0..side).map(move |x| first + y * self.width + x))
    }
}
