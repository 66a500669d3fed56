//! Counts of correctly classified images. Pure.

use thiserror::Error;

/// Number of images of each class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts(Vec<u64>);

/// Number of correctly classified images of each class. The counts of ranks can be summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// All images.
    pub total: ClassCounts,
    /// Images that are classified correctly without perturbation.
    pub clean: ClassCounts,
    /// Images that are robust under all attacks.
    pub worst_case: ClassCounts,
    /// Correctly classified images whose cross-entropy gradient is zero. Counted if an attack has sanity checks.
    pub zero_gradient: ClassCounts,
    /// Images whose logits differ between two forward passes. Counted if an attack has sanity checks.
    pub nondeterministic: ClassCounts,
    /// For each attack and each of its stages: images that are robust under this stage and all earlier ones.
    pub attacks: Vec<Vec<ClassCounts>>,
}

/// Invalid counts from another rank.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("invalid counts {found:?}; expected {expected} non-negative numbers")]
pub struct CountsError {
    found: Vec<i64>,
    expected: usize,
}

impl ClassCounts {
    /// Adds one image for each of these classes. Ignores unknown classes.
    pub fn add(&mut self, classes: &[usize]) {
        for &class in classes {
            if let Some(count) = self.0.get_mut(class) {
                *count += 1;
            }
        }
    }

    /// Number of images of all classes.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The number of images of each class.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl Counts {
    /// All zero. `stages` holds the number of stages of each attack.
    pub fn new(classes: usize, stages: impl IntoIterator<Item = usize>) -> Self {
        let zero = ClassCounts(vec![0; classes]);
        Self {
            total: zero.clone(),
            clean: zero.clone(),
            worst_case: zero.clone(),
            zero_gradient: zero.clone(),
            nondeterministic: zero.clone(),
            attacks: stages.into_iter().map(|stages| vec![zero.clone(); stages]).collect(),
        }
    }

    /// Number of images that are robust under all stages of an attack.
    pub fn robust(&self, attack: usize) -> u64 {
        self.attacks.get(attack).and_then(|stages| stages.last()).map_or(0, ClassCounts::sum)
    }

    /// The counts as numbers, which an all-reduce can sum.
    pub fn to_vec(&self) -> Vec<i64> {
        let Self { total, clean, worst_case, zero_gradient, nondeterministic, attacks } = self;
        let all = [total, clean, worst_case, zero_gradient, nondeterministic].into_iter();
        all.chain(attacks.iter().flatten()).flat_map(|counts| &counts.0).map(|&count| count as i64).collect()
    }

    /// Replaces these counts by the output of [`Counts::to_vec`] for counts of this shape, or by a sum of them.
    pub fn load(&mut self, numbers: &[i64]) -> Result<(), CountsError> {
        let Self { total, clean, worst_case, zero_gradient, nondeterministic, attacks } = self;
        let all = [total, clean, worst_case, zero_gradient, nondeterministic].into_iter();
        let slots: Vec<&mut u64> =
            all.chain(attacks.iter_mut().flatten()).flat_map(|counts| &mut counts.0).collect();
        let counts: Result<Vec<u64>, _> = numbers.iter().map(|&number| u64::try_from(number)).collect();
        match counts {
            Ok(counts) if counts.len() == slots.len() => {
                slots.into_iter().zip(counts).for_each(|(slot, count)| *slot = count);
                Ok(())
            }
            _ => Err(CountsError { found: numbers.to_vec(), expected: slots.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_counts_from_their_numbers() {
        let mut counts = Counts::new(3, [1, 2]);
        counts.total.add(&[0, 2, 2, 1]);
        counts.attacks[1][1].add(&[2, 2]);
        let mut read = Counts::new(3, [1, 2]);
        read.load(&counts.to_vec()).unwrap();
        assert_eq!(read, counts);
        assert_eq!((read.total.sum(), read.robust(0), read.robust(1)), (4, 0, 2));
        assert_eq!(read.total.as_slice(), [1, 1, 2]);
    }

    #[test]
    fn rejects_invalid_numbers() {
        let mut counts = Counts::new(1, [1]);
        assert!(counts.load(&[1, 2]).unwrap_err().to_string().contains("expected 6 non-negative numbers"));
        assert!(counts.load(&[1, 2, 3, 4, 5, -6]).is_err());
        assert_eq!(counts, Counts::new(1, [1]));
    }
}
