//! Compares several ranks with a single process, over Gloo.

use datjob_adversarial::{
    model::{Mode, Network},
    objective,
};
use datjob_api::training::{Architecture, CrossEntropy, Objective};
use datjob_c10d::{ProcessGroup, Reducer, ReducerOptions};
use datjob_data::random::Stream;
use datjob_trainer::engine::batch_norm;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

#[path = "common/ranks.rs"]
mod ranks;

use ranks::run_ranks;

fn small_cnn() -> Network {
    Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 5, (Kind::Double, Device::Cpu)).unwrap()
}

/// Deterministic images and labels.
fn batch(count: usize) -> (Tensor, Tensor) {
    let mut stream = Stream::order(17, 0);
    let pixels: Vec<f64> = (0..count * 784).map(|_| f64::from(stream.symmetric()).abs()).collect();
    let labels: Vec<i64> = (0..count as i64).map(|index| index % 10).collect();
    (Tensor::from_slice(&pixels).view([-1, 1, 28, 28]), Tensor::from_slice(&labels))
}

fn gradients(network: &Network) -> Vec<Vec<f64>> {
    let flat = |tensor: &Tensor| Vec::<f64>::try_from(tensor.grad().flatten(0, -1)).unwrap();
    network.parameters().iter().map(|(_, parameter)| flat(parameter)).collect()
}

/// The gradients of the objective on a batch after the all-reduce, on one rank of a world.
fn distributed_gradients(group: &ProcessGroup, count: usize, clean_weight: f64) -> Vec<Vec<f64>> {
    let network = small_cnn();
    let mut reducer = Reducer::new(&network.parameters(), group, ReducerOptions::default()).unwrap();
    let (images, labels) = batch(count);
    let (rank, world_size) = (group.rank(), group.world_size());
    let (start, end) = (count * rank / world_size, count * (rank + 1) / world_size);
    let shard = |tensor: &Tensor| tensor.narrow(0, start as i64, (end - start) as i64);
    let (images, labels) = (shard(&images), shard(&labels));
    let adversarial = (&images * 0.9_f64).clamp(0.0, 1.0);
    reducer.prepare_forward().unwrap();
    let objective = Objective::CrossEntropy(CrossEntropy { clean_weight, label_smoothing: 0.0 });
    let scale = world_size as f64 / count as f64;
    let loss =
        objective::loss(&network, &objective, Mode::Train, &images, &adversarial, &labels, scale).unwrap();
    reducer.prepare_backward().unwrap();
    loss.backward();
    gradients(&network)
}

/// The gradients of the mean over the whole batch in one process.
fn single_process_gradients(count: usize, clean_weight: f64) -> Vec<Vec<f64>> {
    let network = small_cnn();
    let (images, labels) = batch(count);
    let adversarial = (&images * 0.9_f64).clamp(0.0, 1.0);
    // tch's cross_entropy_for_logits computes in f32.
    let mean = |x: &Tensor| {
        let logits = network.forward(x, Mode::Train).unwrap();
        logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)
    };
    (mean(&adversarial) + mean(&images) * clean_weight).backward();
    gradients(&network)
}

#[test]
fn gradients_match_a_single_process_with_even_and_uneven_shards() {
    for (world_size, count) in [(1, 5), (2, 8), (2, 7), (3, 9), (3, 10), (3, 11)] {
        for clean_weight in [0.0, 0.5] {
            let expected = single_process_gradients(count, clean_weight);
            for gradients in run_ranks(world_size, |group| distributed_gradients(&group, count, clean_weight))
            {
                for (gradient, expected) in gradients.iter().zip(&expected) {
                    for (value, expected) in gradient.iter().zip(expected) {
                        assert!((value - expected).abs() < 1e-12, "{world_size} ranks, {count} images");
                    }
                }
            }
        }
    }
}

#[test]
fn batch_norm_statistics_are_averaged_over_ranks() {
    let averaged = run_ranks(3, |group| {
        // Each rank has a different mean and variance.
        let rank = group.rank() as f64;
        let mean = Tensor::from_slice(&[rank as f32, 100.0 + rank as f32]);
        let variance = Tensor::from_slice(&[1.0_f32 + rank as f32, 4.0]);
        let count = Tensor::from(7_i64);
        let buffers =
            [("bn.running_mean", &mean), ("bn.running_var", &variance), ("bn.num_batches_tracked", &count)];
        let buffers = buffers.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
        no_grad(|| batch_norm::average(&buffers, &group).unwrap());
        assert_eq!(count.int64_value(&[]), 7);
        (Vec::<f32>::try_from(&mean).unwrap(), Vec::<f32>::try_from(&variance).unwrap())
    });
    for (mean, variance) in averaged {
        assert_eq!(mean, [1.0, 101.0]);
        // E[x²] − E[x]²: the means of 1, 2, 3 and of 0, 1, 4 give 2 + 5/3 − 1; a constant 4 and the same means 4 + 2/3.
        for (value, expected) in variance.iter().zip([2.0 + 5.0 / 3.0 - 1.0, 4.0 + 2.0 / 3.0]) {
            assert!((value - expected as f32).abs() < 1e-4, "{variance:?}");
        }
    }
}
