//! Which of its two neighbours a number becomes.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How numbers between two levels are rounded.
#[derive(Clone, Debug)]
pub enum Rounding {
    /// To the nearest.
    Nearest,
    /// Up with the probability that leaves the expectation as it was (Alistarh et al., section 3.1).
    Stochastic(Stochastic),
}

/// Random numbers of 16 bits.
#[derive(Clone, Debug)]
pub struct Stochastic {
    generator: Xoshiro256PlusPlus,
    /// Those that are left of the last 64 bits.
    bits: u64,
    left: u32,
}

impl Rounding {
    /// At random, by a stream of that seed.
    pub fn stochastic(seed: u64) -> Self {
        let generator = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self::Stochastic(Stochastic { generator, bits: 0, left: 0 })
    }

    /// What is added to a number, in units of 2⁻¹⁶, before it is rounded down.
    pub(super) fn offset(&mut self) -> i32 {
        match self {
            Self::Nearest => 1 << 15,
            Self::Stochastic(random) => random.next(),
        }
    }
}

impl Stochastic {
    fn next(&mut self) -> i32 {
        if self.left == 0 {
            self.bits = self.generator.next_u64();
            self.left = 4;
        }
        let offset = (self.bits & 0xFFFF) as i32;
        self.bits >>= 16;
        self.left -= 1;
        offset
    }
}
