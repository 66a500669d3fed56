//! Candidates in ℓ2 (algorithm 4 of the paper, with AutoAttack's changes): the perturbation has norm ε. A candidate moves
//! mass from one window to another and adds a bump there. Pure.

use super::search::Search;

/// Keeps divisions by a norm of 0 finite.
const MIN_DIVISOR: f64 = 1e-12;
/// Number of windows of the start in a row and in a column.
const TILES: usize = 5;
/// The smallest side of a window: a bump needs a centre.
const MIN_SIDE: usize = 3;

/// The start: bumps in a grid of windows.
pub(super) fn start(search: &mut Search, epsilon: f64) -> Vec<f64> {
    let shape = search.shape;
    let side = (shape.height.min(shape.width) / TILES).max(1);
    let offset = |length: usize| (length - side * (length / side)) / 2;
    let mut perturbation = vec![0.0; search.image.len()];
    for row in 0..shape.height / side {
        for column in 0..shape.width / side {
            let corner = (offset(shape.height) + row * side, offset(shape.width) + column * side);
            let bump = bump(search, side);
            for channel in 0..shape.channels {
                let sign = search.random_sign();
                for (index, value) in shape.window(channel, corner, side).zip(&bump) {
                    perturbation[index] += value * sign;
                }
            }
        }
    }
    scale_to_epsilon(&search.image, &perturbation, epsilon)
}

/// A candidate that changes two windows.
pub(super) fn window(search: &mut Search, epsilon: f64, share: f64) -> Vec<f64> {
    let shape = search.shape;
    let shortest = shape.height.min(shape.width);
    let side = shape.window_side(share).max(MIN_SIDE);
    // An odd side has a centre.
    let side = (side + usize::from(side.is_multiple_of(2))).min(shortest);
    let mut perturbation: Vec<f64> =
        search.best.iter().zip(&search.image).map(|(best, pixel)| best - pixel).collect();
    let (to, from) = (search.random_corner(side), search.random_corner(side));
    let bump = bump(search, side);

    // The channels get equal parts of the squared norm that clipping has removed.
    let unused =
        (epsilon * epsilon - sum_of_squares(perturbation.iter().copied())).max(0.0) / shape.channels as f64;
    for channel in 0..shape.channels {
        let (into, out_of) = (shape.window(channel, to, side), shape.window(channel, from, side));
        let (into, out_of): (Vec<usize>, Vec<usize>) = (into.collect(), out_of.collect());
        let old: Vec<f64> = into.iter().map(|&index| perturbation[index]).collect();
        let (sign, scale) = (search.random_sign(), MIN_DIVISOR + sum_of_squares(old.iter().copied()).sqrt());
        let new: Vec<f64> = bump.iter().zip(&old).map(|(bump, old)| bump * sign + old / scale).collect();
        let mut available = unused;
        for index in into.iter().chain(&out_of) {
            // A pixel in both windows counts once.
            available += std::mem::take(&mut perturbation[*index]).powi(2);
        }
        let factor = available.sqrt() / (MIN_DIVISOR + sum_of_squares(new.iter().copied()).sqrt());
        into.iter().zip(new).for_each(|(&index, value)| perturbation[index] = value * factor);
    }
    scale_to_epsilon(&search.image, &perturbation, epsilon)
}

/// Adds the perturbation, scaled to norm ε, to the image and clips to pixels.
fn scale_to_epsilon(image: &[f64], perturbation: &[f64], epsilon: f64) -> Vec<f64> {
    let factor = epsilon / (MIN_DIVISOR + sum_of_squares(perturbation.iter().copied()).sqrt());
    image.iter().zip(perturbation).map(|(pixel, change)| (pixel + change * factor).clamp(0.0, 1.0)).collect()
}

fn sum_of_squares(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

/// A window of norm 1 with a positive pyramid in its upper half and a negative one in its lower half (the paper's η,
/// equation 2). It is transposed with probability ½.
fn bump(search: &mut Search, side: usize) -> Vec<f64> {
    let upper = side / 2;
    let mut rows: Vec<f64> = pyramid(upper, side);
    rows.extend(pyramid(side - upper, side).into_iter().map(|value| -value));
    let length = sum_of_squares(rows.iter().copied()).sqrt();
    let transposed = search.random.coin();
    (0..side * side)
        .map(|index| if transposed { index % side * side + index / side } else { index })
        .map(|index| rows[index] / length)
        .collect()
}

/// Nested rectangles around the centre, scaled to norm 1. The k-th adds 1/k² to all its pixels.
fn pyramid(height: usize, width: usize) -> Vec<f64> {
    let (middle_row, middle_column) = (height / 2, width / 2);
    let mut values = vec![0.0; height * width];
    for layer in 0..=middle_row.max(middle_column) {
        let weight = 1.0 / ((layer + 1) * (layer + 1)) as f64;
        let rows = middle_row.saturating_sub(layer)..(middle_row + layer + 1).min(height);
        for row in rows {
            let columns = middle_column.saturating_sub(layer)..(middle_column + layer + 1).min(width);
            columns.for_each(|column| values[row * width + column] += weight);
        }
    }
    let length = sum_of_squares(values.iter().copied()).sqrt();
    values.iter().map(|value| value / length.max(MIN_DIVISOR)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pyramid_is_highest_in_its_centre() {
        let values = pyramid(3, 3);
        // 1 + 1/4 in the centre, 1/4 around it.
        let length = (1.25_f64 * 1.25 + 8.0 * 0.0625).sqrt();
        assert!((values[4] - 1.25 / length).abs() < 1e-12 && (values[0] - 0.25 / length).abs() < 1e-12);
        assert!(pyramid(0, 1).is_empty());
    }
}
