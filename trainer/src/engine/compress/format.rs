//! Numbers in fewer bits.

use half::{bf16, f16};

use super::Rounding;

/// The highest level of 8 bits with a sign; −128 is left out, so that levels lie symmetrically.
const HIGHEST: f32 = 127.0;
/// The least scale: levels of smaller ones would not be finite on their way, and are as good as 0.
const SMALLEST: f32 = 1e-30;
/// Bytes of a block's scale.
const SCALE: usize = 4;

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32 bits: as it is.
    Fp32,
    /// IEEE half precision; beyond 65504 it becomes infinite.
    Fp16,
    /// The upper half of 32 bits.
    Bf16,
    /// A level from −127 to 127 of a block's scale: its largest magnitude / 127, in 32 bits before the block's levels.
    Int8 {
        /// Numbers that share a scale.
        block: usize,
    },
}

impl Format {
    /// Numbers come in whole multiples of so many.
    pub fn block(self) -> usize {
        match self {
            Self::Int8 { block } => block,
            Self::Fp32 | Self::Fp16 | Self::Bf16 => 1,
        }
    }

    /// Bytes of `count` numbers, a multiple of [`block`](Self::block).
    pub fn bytes(self, count: usize) -> usize {
        match self {
            Self::Fp32 => count * 4,
            Self::Fp16 | Self::Bf16 => count * 2,
            Self::Int8 { block } => count / block * (SCALE + block),
        }
    }

    /// The numbers, a multiple of [`block`](Self::block), as bytes. `rounding` is that of 8 bits; 16 bits round to the
    /// nearest. What is not finite stays so, in 8 bits with its whole block.
    pub fn encode(self, values: &[f32], rounding: &mut Rounding) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes(values.len()));
        match self {
            Self::Fp32 => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Self::Fp16 => values.iter().for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes())),
            Self::Bf16 => values.iter().for_each(|&value| bytes.extend(bf16::from_f32(value).to_le_bytes())),
            Self::Int8 { block } => {
                values.chunks_exact(block).for_each(|block| encode_block(block, rounding, &mut bytes));
            }
        }
        bytes
    }

    /// The numbers that [`encode`](Self::encode) wrote; as many as there are in `values`.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::Fp32 => each(bytes, values, f32::from_le_bytes),
            Self::Fp16 => each(bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::Bf16 => each(bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::Int8 { block } => {
                for (bytes, values) in bytes.chunks_exact(SCALE + block).zip(values.chunks_exact_mut(block)) {
                    let (scale, levels) = bytes.split_first_chunk().unwrap_or((&[0; SCALE], &[]));
                    let scale = f32::from_le_bytes(*scale);
                    for (value, level) in values.iter_mut().zip(levels) {
                        *value = f32::from(level.cast_signed()) * scale;
                    }
                }
            }
        }
    }
}

fn each<const N: usize>(bytes: &[u8], values: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (bytes, value) in bytes.as_chunks().0.iter().zip(values) {
        *value = number(*bytes);
    }
}

fn encode_block(values: &[f32], rounding: &mut Rounding, bytes: &mut Vec<u8>) {
    /// Levels are rounded as integers with 16 more bits.
    const FRACTION: f32 = 65536.0;
    let mut largest = 0.0_f32;
    let mut unlike_zero = 0.0_f32;
    for value in values {
        largest = largest.max(value.abs());
        // 0, but for what is not finite.
        unlike_zero += value * 0.0;
    }
    let scale = if unlike_zero.is_nan() { f32::NAN } else { largest / HIGHEST };
    let scale = if scale < SMALLEST { 0.0 } else { scale };
    bytes.extend(scale.to_le_bytes());
    // A block of zeros stays one, and what is multiplied by NaN does not matter.
    let factor = if scale > 0.0 { FRACTION / scale } else { 0.0 };
    bytes.extend(values.iter().map(|value| {
        let level = ((value * factor) as i32 + rounding.offset()) >> 16;
        (level.clamp(-127, 127) as i8).cast_unsigned()
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use datjob_data::random::Stream;

    const INT8: Format = Format::Int8 { block: 64 };

    fn numbers(count: usize) -> Vec<f32> {
        let mut stream = Stream::weights(1, "compress");
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    fn through(format: Format, values: &[f32], rounding: &mut Rounding) -> Vec<f32> {
        let bytes = format.encode(values, rounding);
        assert_eq!(bytes.len(), format.bytes(values.len()));
        let mut decoded = vec![f32::NAN; values.len()];
        format.decode(&bytes, &mut decoded);
        decoded
    }

    fn scale(block: &[f32]) -> f64 {
        f64::from(block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))) / 127.0
    }

    #[test]
    fn stochastic_rounding_is_unbiased_and_its_error_is_bounded() {
        const DRAWS: usize = 4000;
        let values = numbers(256);
        let mut rounding = Rounding::stochastic(7);
        let mut sums = vec![0.0_f64; values.len()];
        let mut squared_error = 0.0;
        for _ in 0..DRAWS {
            for ((sum, drawn), value) in
                sums.iter_mut().zip(through(INT8, &values, &mut rounding)).zip(&values)
            {
                *sum += f64::from(drawn);
                squared_error += f64::from(drawn - value).powi(2) / DRAWS as f64;
            }
        }
        let mut bound = 0.0;
        for (index, (sum, value)) in sums.iter().zip(&values).enumerate() {
            let delta = scale(&values[index / 64 * 64..][..64]);
            // The variance of a number is at most Δ²/4.
            let standard_error = delta / 2.0 / (DRAWS as f64).sqrt();
            let bias = sum / DRAWS as f64 - f64::from(*value);
            assert!(bias.abs() < 5.0 * standard_error, "{index}: {bias} of {standard_error}");
            bound += delta * delta / 4.0;
        }
        assert!(squared_error <= bound, "{squared_error} of {bound}");
        // Nearest rounding errs less, and always in the same way.
        let nearest = through(INT8, &values, &mut Rounding::Nearest);
        assert_eq!(nearest, through(INT8, &values, &mut Rounding::Nearest));
        for (index, (value, rounded)) in values.iter().zip(&nearest).enumerate() {
            let delta = scale(&values[index / 64 * 64..][..64]);
            assert!(f64::from(value - rounded).abs() <= 0.501 * delta, "{index}");
        }
    }

    #[test]
    fn zeros_stay_zeros_and_extremes_keep_their_value() {
        let mut rounding = Rounding::stochastic(0);
        let mut values = vec![0.0; 192];
        // Too small for a scale.
        values[64] = 1e-33;
        values[128] = -3.5;
        values[129] = f32::MIN_POSITIVE;
        for _ in 0..100 {
            let decoded = through(INT8, &values, &mut rounding);
            assert!(decoded[..128].iter().all(|value| value.abs() < f32::MIN_POSITIVE));
            assert!((decoded[128] + 3.5).abs() < 1e-6, "{}", decoded[128]);
        }
        let huge = through(INT8, &[f32::MAX / 2.0; 64], &mut rounding);
        assert!(huge.iter().all(|value| *value > 1.6e38 && value.is_finite()), "{huge:?}");
    }

    #[test]
    fn what_is_no_number_comes_through() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = numbers(128);
            values[70] = bad;
            for format in [Format::Fp32, Format::Fp16, Format::Bf16, INT8] {
                let decoded = through(format, &values, &mut Rounding::Nearest);
                assert!(!decoded[70].is_finite(), "{format:?}");
                assert!(decoded[..64].iter().all(|value| value.is_finite()), "{format:?}");
            }
        }
    }

    #[test]
    fn sixteen_bits_are_those_of_the_standard_formats() {
        let values = numbers(100);
        assert_eq!(through(Format::Fp32, &values, &mut Rounding::Nearest), values);
        for (format, precision) in [(Format::Fp16, 2.0_f32.powi(-11)), (Format::Bf16, 2.0_f32.powi(-8))] {
            for (value, rounded) in values.iter().zip(through(format, &values, &mut Rounding::Nearest)) {
                assert!((value - rounded).abs() <= value.abs() * precision, "{format:?}: {value} {rounded}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0_usize..300) {
            for format in [Format::Fp32, Format::Fp16, Format::Bf16, INT8, Format::Int8 { block: 16 }] {
                format.decode(&bytes, &mut vec![0.0; count]);
            }
        }

        #[test]
        fn blocks_of_every_magnitude_are_rounded_to_their_levels(exponent in -45_i32..38, seed: u64) {
            let largest = 10.0_f32.powi(exponent);
            let values: Vec<f32> = (0..64).map(|index| largest * (index as f32 - 32.0) / 32.0).collect();
            let decoded = through(INT8, &values, &mut Rounding::stochastic(seed));
            for (value, decoded) in values.iter().zip(decoded) {
                prop_assert!((value - decoded).abs() <= (largest / 126.0).max(2e-28), "{value} {decoded}");
            }
        }

        #[test]
        fn no_numbers_panic(bits in proptest::collection::vec(any::<u32>(), 64)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            for format in [Format::Fp16, Format::Bf16, INT8] {
                through(format, &values, &mut Rounding::stochastic(0));
            }
        }
    }
}
