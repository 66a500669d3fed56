//! Pseudo-random tensors that the scripts in `reference/` reproduce.

use tch::Tensor;

/// Numbers in [-1, 1), exact in float64: the hash lowbias32 of (index + stream · 0x9E3779B9).
pub(crate) fn numbers(stream: u32, shape: &[i64]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product::<i64>() as u32)
        .map(|index| {
            let mut x = index.wrapping_add(stream.wrapping_mul(0x9E37_79B9));
            x ^= x >> 16;
            x = x.wrapping_mul(0x7FEB_352D);
            x ^= x >> 15;
            x = x.wrapping_mul(0x846C_A68B);
            x ^= x >> 16;
            f64::from(x) / 2.0_f64.powi(31) - 1.0
        })
        .collect();
    Tensor::from_slice(&values).view(shape)
}

/// Values for a tensor of a network's state. `stream` is its index in the state.
pub(crate) fn filled(stream: u32, name: &str, shape: &[i64]) -> Tensor {
    let values = numbers(stream, shape);
    if name.ends_with("num_batches_tracked") {
        Tensor::from(i64::from(stream))
    } else if name.ends_with("running_var") {
        1.0 + 0.5 * values
    } else if name.ends_with("running_mean") {
        0.1 * values
    } else if shape.len() == 1 && name.ends_with("weight") {
        1.0 + 0.2 * values
    } else if shape.len() == 1 {
        0.1 * values
    } else {
        values * (2.0 / (shape[1..].iter().product::<i64>() as f64).sqrt())
    }
}
