//! In ℓ∞ (algorithm 3 of the paper): vertical stripes at first, then squares of one sign in each channel.

use super::search::{Search, Shape};

pub(super) fn first(search: &mut Search, epsilon: f64) -> Vec<f64> {
    let Shape { channels, height, width } = search.shape;
    let stripes: Vec<f64> = (0..channels * width).map(|_| epsilon * search.sign()).collect();
    let stripe = |index: usize| stripes[index / (height * width) * width + index % width];
    search.image.iter().enumerate().map(|(index, pixel)| (pixel + stripe(index)).clamp(0.0, 1.0)).collect()
}

pub(super) fn next(search: &mut Search, epsilon: f64, share: f64) -> Vec<f64> {
    let side = search.shape.side(share);
    let corner = search.corner(side);
    let mut candidate = search.best.clone();
    for channel in 0..search.shape.channels {
        let change = 2.0 * epsilon * search.sign();
        for index in search.shape.window(channel, corner, side) {
            let pixel = search.image[index];
            let moved = (candidate[index] + change).clamp(pixel - epsilon, pixel + epsilon);
            candidate[index] = moved.clamp(0.0, 1.0);
        }
    }
    candidate
}
