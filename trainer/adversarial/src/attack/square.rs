//! Square (Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search",
//! arXiv 1912.00049). It changes random square windows and keeps a change if the margin decreases. It uses no gradients.
//!
//! Each image has its own random stream, so the result does not depend on the other images of the batch. A pure function.

use datjob_api::training::Norm;
use datjob_data::random::Stream;
use tch::{Kind, TchError, Tensor, no_grad};

use super::{Ball, PerturbationSet};
use crate::objective::margins;

mod l2;
mod search;

use search::{Search, Shape};

/// Initial share of the pixels that a window covers (the paper's p, with AutoAttack's value).
const INITIAL_SHARE: f64 = 0.8;
/// Numbers of queries after which the share halves (section 3.1 of the paper). The paper scales them to the budget;
/// AutoAttack does not, and results are compared with AutoAttack's.
const HALVED_AFTER: [u32; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// Parameters of [`square`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SquareParameters {
    /// The allowed perturbations.
    pub perturbations: PerturbationSet,
    /// Number of queries of the network for each image after the start; 5000 in AutoAttack.
    pub queries: u32,
}

/// Generates an adversarial example for each image, or returns the point of the smallest margin if it finds none:
/// `[N, C, H, W]` like `images`, detached.
///
/// `streams` holds a random stream for each image. `logits` returns `[N, classes]`. The search of an image ends with its
/// first adversarial example.
pub fn square(
    logits: &impl Fn(&Tensor) -> Result<Tensor, TchError>,
    images: &Tensor,
    labels: &Tensor,
    parameters: &SquareParameters,
    streams: Vec<Stream>,
) -> Result<Tensor, TchError> {
    no_grad(|| {
        let mut searches = new_searches(images, streams)?;
        let mut ball = Ball::new(parameters.perturbations, images)?;
        let mut labels = labels.shallow_clone();
        let mut result = images.copy();
        for query in 0..=parameters.queries {
            for search in &mut searches {
                search.candidate = propose(search, parameters.perturbations, query);
            }
            let candidates = ball.project(&stack(&searches, |search| &search.candidate, images)?)?;
            let margins = margins(&logits(&candidates)?, &labels)?.f_to_kind(Kind::Double)?;
            for (search, margin) in searches.iter_mut().zip(Vec::<f64>::try_from(margins)?) {
                search.update(margin);
            }
            if !searches.iter().any(Search::is_adversarial) {
                continue;
            }
            copy_rows(&mut result, &candidates, &searches, Search::is_adversarial)?;
            let remaining = indices(&searches, |search| !search.is_adversarial(), images)?;
            searches.retain(|search| !search.is_adversarial());
            if searches.is_empty() {
                return Ok(result);
            }
            labels = labels.f_index_select(0, &remaining)?;
            ball = ball.select(&remaining)?;
        }
        let best = ball.project(&stack(&searches, |search| &search.best, images)?)?;
        copy_rows(&mut result, &best, &searches, |_| true)?;
        Ok(result)
    })
}

/// The candidate of a query; query 0 is the start.
fn propose(search: &mut Search, perturbations: PerturbationSet, query: u32) -> Vec<f64> {
    let PerturbationSet { norm, epsilon } = perturbations;
    match (norm, query.checked_sub(1)) {
        (Norm::Linf, None) => linf_start(search, epsilon),
        (Norm::Linf, Some(query)) => linf_window(search, epsilon, window_share(query)),
        (Norm::L2, None) => l2::start(search, epsilon),
        (Norm::L2, Some(query)) => l2::window(search, epsilon, window_share(query)),
    }
}

/// The start in ℓ∞: vertical stripes (algorithm 3 of the paper).
fn linf_start(search: &mut Search, epsilon: f64) -> Vec<f64> {
    let Shape { channels, height, width } = search.shape;
    let stripes: Vec<f64> = (0..channels * width).map(|_| epsilon * search.random_sign()).collect();
    let stripe = |index: usize| stripes[index / (height * width) * width + index % width];
    search.image.iter().enumerate().map(|(index, pixel)| (pixel + stripe(index)).clamp(0.0, 1.0)).collect()
}

/// The candidate in ℓ∞: a square window of one sign in each channel.
fn linf_window(search: &mut Search, epsilon: f64, share: f64) -> Vec<f64> {
    let side = search.shape.window_side(share);
    let corner = search.random_corner(side);
    let mut candidate = search.best.clone();
    for channel in 0..search.shape.channels {
        let change = 2.0 * epsilon * search.random_sign();
        for index in search.shape.window(channel, corner, side) {
            let pixel = search.image[index];
            let moved = (candidate[index] + change).clamp(pixel - epsilon, pixel + epsilon);
            candidate[index] = moved.clamp(0.0, 1.0);
        }
    }
    candidate
}

/// Share of the pixels that a window covers in a query (counted from 0).
fn window_share(query: u32) -> f64 {
    INITIAL_SHARE / f64::from(1_u32 << halvings(query))
}

fn halvings(query: u32) -> usize {
    HALVED_AFTER.iter().filter(|&&after| query > after).count()
}

fn new_searches(images: &Tensor, streams: Vec<Stream>) -> Result<Vec<Search>, TchError> {
    let (_, channels, height, width) = images
        .size4()
        .map_err(|_| TchError::Shape(format!("expected [N, C, H, W], got {:?}", images.size())))?;
    let shape = Shape { channels: channels as usize, height: height as usize, width: width as usize };
    let pixels = images.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?;
    let all = Vec::<f64>::try_from(pixels.f_flatten(0, -1)?)?;
    let each = all.chunks(shape.channels * shape.height * shape.width).zip(streams).enumerate();
    let search = |(row, (image, random)): (usize, (&[f64], Stream))| Search {
        row: row as i64,
        shape,
        image: image.to_vec(),
        best: image.to_vec(),
        margin: f64::INFINITY,
        candidate: Vec::new(),
        random,
    };
    Ok(each.map(search).collect())
}

/// One point of each search as a tensor `[searches, C, H, W]`, with the kind and device of `like`.
fn stack(
    searches: &[Search],
    point: impl Fn(&Search) -> &Vec<f64>,
    like: &Tensor,
) -> Result<Tensor, TchError> {
    let all: Vec<f64> = searches.iter().flat_map(point).copied().collect();
    let size = like.size();
    let shape: Vec<i64> = std::iter::once(searches.len() as i64).chain(size.into_iter().skip(1)).collect();
    Tensor::f_from_slice(&all)?.f_view(shape.as_slice())?.f_to_kind(like.kind())?.f_to_device(like.device())
}

/// The indices of the selected searches.
fn indices(
    searches: &[Search],
    selected: impl Fn(&Search) -> bool,
    like: &Tensor,
) -> Result<Tensor, TchError> {
    let indices = (0_i64..).zip(searches).filter(|(_, search)| selected(search)).map(|(index, _)| index);
    Tensor::f_from_slice(&indices.collect::<Vec<_>>())?.f_to_device(like.device())
}

/// Copies the points of the selected searches to their rows of the batch.
fn copy_rows(
    batch: &mut Tensor,
    points: &Tensor,
    searches: &[Search],
    selected: impl Fn(&Search) -> bool,
) -> Result<(), TchError> {
    let targets: Vec<i64> =
        searches.iter().filter(|search| selected(search)).map(|search| search.row).collect();
    let targets = Tensor::f_from_slice(&targets)?.f_to_device(batch.device())?;
    let points = points.f_index_select(0, &indices(searches, selected, points)?)?;
    batch.f_index_copy_(0, &targets, &points).map(drop)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn windows_shrink_as_in_the_paper() {
        let queries = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 10_000];
        assert_eq!(queries.map(halvings), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
    }

    /// The network classifies every candidate correctly, so the test sees all of them.
    #[test]
    fn candidates_are_in_the_ball_and_near_its_border() {
        let images = Tensor::from_slice(&(0..150).map(|i| i as f32 / 149.0).collect::<Vec<_>>());
        let (images, labels) = (images.view([2, 3, 5, 5]), Tensor::from_slice(&[0_i64, 0]));
        for (norm, epsilon) in [(Norm::Linf, 0.1), (Norm::L2, 0.7)] {
            let perturbations = PerturbationSet { norm, epsilon };
            let parameters = SquareParameters { perturbations, queries: 50 };
            let border = std::cell::Cell::new(true);
            let logits = |x: &Tensor| {
                let far = Ball::perturbation_norms(norm, &(x - &images))?;
                assert!(far.max().double_value(&[]) <= epsilon + 1e-6);
                assert!(x.min().double_value(&[]) >= 0.0 && x.max().double_value(&[]) <= 1.0);
                border.set(border.get() && far.min().double_value(&[]) > epsilon * 0.5);
                Ok(Tensor::from_slice(&[1.0_f32, 0.0, 1.0, 0.0]).view([2, 2]))
            };
            let streams = (0..2).map(|image| Stream::square(0, "square", image, 0)).collect();
            let last = square(&logits, &images, &labels, &parameters, streams).unwrap();
            assert_eq!(last.size(), images.size());
            assert!(border.get(), "{norm:?}");
        }
    }

    #[test]
    fn every_pixel_of_a_candidate_in_linf_is_at_the_border() {
        let images = Tensor::from_slice(&(0..75).map(|i| i as f32 / 74.0).collect::<Vec<_>>());
        let (images, labels) = (images.view([1, 3, 5, 5]), Tensor::from_slice(&[0_i64]));
        for epsilon in [0.1, 0.4] {
            let perturbations = PerturbationSet { norm: Norm::Linf, epsilon };
            let parameters = SquareParameters { perturbations, queries: 30 };
            let logits = |x: &Tensor| {
                let distance = |sign: f64| (x - (&images + sign * epsilon).clamp(0.0, 1.0)).abs();
                let nearest = distance(-1.0).minimum(&distance(1.0));
                assert!(nearest.max().double_value(&[]) < 1e-6, "{nearest}");
                Ok(Tensor::from_slice(&[1.0_f32, 0.0]).view([1, 2]))
            };
            let streams = vec![Stream::square(0, "square", 0, 0)];
            let last = square(&logits, &images, &labels, &parameters, streams).unwrap();
            assert_eq!(last.size(), images.size());
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_other_images_of_the_batch() {
        let weights = Tensor::randn([4, 36], (Kind::Double, Device::Cpu));
        let logits = |x: &Tensor| x.f_flatten(1, -1)?.f_matmul(&weights.f_tr()?);
        let images = Tensor::rand([3, 1, 6, 6], (Kind::Double, Device::Cpu));
        let labels = logits(&images).unwrap().argmax(1, false);
        for norm in [Norm::Linf, Norm::L2] {
            let perturbations = PerturbationSet { norm, epsilon: 0.05 };
            let parameters = SquareParameters { perturbations, queries: 30 };
            let found = |rows: &[i64]| {
                let index = Tensor::from_slice(rows);
                let (images, labels) = (images.index_select(0, &index), labels.index_select(0, &index));
                let streams = rows.iter().map(|&row| Stream::square(7, "square", row as u64, 0)).collect();
                square(&logits, &images, &labels, &parameters, streams).unwrap()
            };
            assert!(found(&[0, 1, 2]).get(1).allclose(&found(&[1]).get(0), 0.0, 1e-12, false));
        }
    }
}
