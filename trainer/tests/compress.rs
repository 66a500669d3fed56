//! The compressed all-reduce over Gloo.

use std::sync::atomic::Ordering;

use datjob_data::random::Stream;
use datjob_trainer::engine::compress::{CompressedAllReduce, Format, Formats, Residual, Rounding};
use tch::Tensor;

#[path = "common/ranks.rs"]
mod ranks;

use ranks::run_ranks;

const INT8: Format = Format::Int8 { block: 512 };

/// The same format for contributions and averages.
fn symmetric(format: Format) -> Formats {
    Formats { contribution: format, average: format }
}

/// Deterministic normal values of a rank.
fn rank_values(rank: usize, count: usize) -> Vec<f32> {
    let mut stream = Stream::order(99, rank as u64);
    (0..count).map(|_| stream.normal() as f32).collect()
}

/// The mean that each rank receives from the all-reduce, and the number of bytes that it sent.
fn compressed_means(world_size: usize, formats: Formats, count: usize) -> Vec<(Vec<f32>, u64)> {
    run_ranks(world_size, |group| {
        let rank = group.rank();
        let tensor = Tensor::from_slice(&rank_values(rank, count));
        let mut all_reduce = CompressedAllReduce::new(group, formats, false);
        all_reduce.mean(0, &tensor, Rounding::stochastic(rank as u64)).unwrap();
        (Vec::try_from(tensor).unwrap(), all_reduce.sent().load(Ordering::Relaxed))
    })
}

fn exact_mean(world_size: usize, count: usize) -> Vec<f64> {
    let all: Vec<Vec<f32>> = (0..world_size).map(|rank| rank_values(rank, count)).collect();
    (0..count)
        .map(|i| all.iter().map(|values| f64::from(values[i])).sum::<f64>() / world_size as f64)
        .collect()
}

#[test]
fn all_ranks_receive_bitwise_equal_means_and_count_sent_bytes() {
    for world_size in [1, 2, 3, 4] {
        // Includes sizes that neither ranks nor blocks divide, and one with fewer values than ranks.
        for count in [1, 513, 4096, 5000] {
            let expected = exact_mean(world_size, count);
            let one_sided = Formats { contribution: INT8, average: Format::Fp32 };
            for (formats, error) in [
                (symmetric(INT8), 0.06),
                (one_sided, 0.035),
                (symmetric(Format::Fp16), 0.005),
                (symmetric(Format::Bf16), 0.04),
                (symmetric(Format::Fp32), 1e-6),
            ] {
                let means = compressed_means(world_size, formats, count);
                for (mean, sent) in &means {
                    assert_eq!(mean, &means[0].0, "{world_size} ranks, {count} numbers, {formats:?}");
                    let block = formats.contribution.block();
                    let chunk = count.div_ceil(world_size).next_multiple_of(block);
                    let bytes = formats.contribution.bytes(chunk) + formats.average.bytes(chunk);
                    assert_eq!(*sent, ((world_size - 1) * bytes) as u64);
                }
                for (value, expected) in means[0].0.iter().zip(&expected) {
                    let difference = (f64::from(*value) - expected).abs();
                    assert!(
                        difference <= error,
                        "{difference} with {world_size} ranks, {count} numbers, {formats:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn int8_sends_about_a_quarter_of_the_bytes() {
    // 2(M−1)/M · (n + 4n/512), and one-sided (M−1)/M · (5n + 4n/512).
    let count = 512 * 64;
    let n = count as u64;
    assert_eq!(compressed_means(4, symmetric(INT8), count)[0].1, 2 * 3 * (n + n / 128) / 4);
    let one_sided = Formats { contribution: INT8, average: Format::Fp32 };
    assert_eq!(compressed_means(4, one_sided, count)[0].1, 3 * (5 * n + n / 128) / 4);
}

#[test]
fn rounding_errors_of_ranks_cancel() {
    // All ranks have the same values, so that the mean has only a rounding error.
    let error = |world_size: usize, seed: fn(usize) -> u64| {
        let values = rank_values(0, 512 * 32);
        let one_sided = Formats { contribution: INT8, average: Format::Fp32 };
        let means = run_ranks(world_size, |group| {
            let tensor = Tensor::from_slice(&values);
            let rounding = Rounding::stochastic(seed(group.rank()));
            CompressedAllReduce::new(group, one_sided, false).mean(0, &tensor, rounding).unwrap();
            Vec::<f32>::try_from(tensor).unwrap()
        });
        let squares = means[0].iter().zip(&values).map(|(mean, value)| f64::from(mean - value).powi(2));
        squares.sum::<f64>() / values.len() as f64
    };
    let (two, eight) = (error(2, |rank| rank as u64), error(8, |rank| rank as u64));
    assert!((eight * 4.0 / two - 1.0).abs() < 0.1, "the variance falls as 1/M: {two} and {eight}");
    // With the same random numbers on all ranks, rounding errors do not cancel.
    let same = error(8, |_| 5);
    assert!(same > 3.0 * eight, "{same} and {eight}");
}

#[test]
fn error_feedback_bounds_the_accumulated_error() {
    const STEPS: usize = 64;
    let count = 600;
    let drift = |feedback: bool| {
        let sums = run_ranks(2, |group| {
            let rank = group.rank();
            let mut all_reduce = CompressedAllReduce::new(group, symmetric(INT8), feedback);
            let mut sum = vec![0.0_f64; count];
            for _ in 0..STEPS {
                let tensor = Tensor::from_slice(&rank_values(rank, count));
                all_reduce.mean(3, &tensor, Rounding::Nearest).unwrap();
                let mean = Vec::<f32>::try_from(tensor).unwrap();
                sum.iter_mut().zip(mean).for_each(|(sum, value)| *sum += f64::from(value));
            }
            sum
        });
        let expected = exact_mean(2, count);
        let errors = sums[0].iter().zip(expected).map(|(sum, mean)| (sum - mean * STEPS as f64).abs());
        errors.fold(0.0, f64::max)
    };
    // With feedback, only the error of the last step remains. Without it, every step adds the same error.
    assert!(drift(true) < 0.08, "{}", drift(true));
    assert!(drift(false) > 0.3, "{}", drift(false));
}

/// A training that resumes from a checkpoint gets the bits of one that was not interrupted.
#[test]
fn error_feedback_continues_with_restored_residuals() {
    run_ranks(2, |group| {
        let values = rank_values(group.rank(), 600);
        let mut all_reduce = CompressedAllReduce::new(group, symmetric(INT8), true);
        let residuals = all_reduce.residuals().unwrap();
        let mut mean = || {
            let tensor = Tensor::from_slice(&values);
            all_reduce.mean(3, &tensor, Rounding::Nearest).unwrap();
            Vec::<f32>::try_from(tensor).unwrap()
        };
        mean();
        assert_eq!(residuals.names(), [3]);
        let saved = residuals.get(3).to_values();
        let expected = mean();
        residuals.insert(3, Residual::from_values(&saved, 2));
        assert_eq!(mean(), expected);
        residuals.insert(3, Residual::default());
        assert_ne!(mean(), expected);
    });
}

#[test]
fn nan_reaches_every_rank() {
    for format in [INT8, Format::Fp16] {
        let means = run_ranks(2, |group| {
            let mut values = rank_values(group.rank(), 2000);
            if group.rank() == 1 {
                values[1500] = f32::NAN;
            }
            let tensor = Tensor::from_slice(&values);
            let rounding = Rounding::stochastic(group.rank() as u64);
            CompressedAllReduce::new(group, symmetric(format), false).mean(0, &tensor, rounding).unwrap();
            Vec::<f32>::try_from(tensor).unwrap()
        });
        for mean in means {
            assert!(mean[1500].is_nan() && mean[0].is_finite());
        }
    }
}

#[test]
fn reports_the_loss_of_a_rank() {
    let errors = run_ranks(2, |group| {
        let tensor = Tensor::from_slice(&rank_values(0, 100));
        if group.rank() == 1 {
            group.abort().unwrap();
            return None;
        }
        let mut all_reduce = CompressedAllReduce::new(group, symmetric(INT8), false);
        Some(all_reduce.mean(0, &tensor, Rounding::Nearest).unwrap_err().to_string())
    });
    let error = errors[0].clone().unwrap();
    assert!(error.contains("lost the connection to a peer") && error.contains("rank 0 of 2"), "{error}");
}
