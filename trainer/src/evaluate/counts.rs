use thiserror::Error;

/// How many images were classified correctly. Counts of ranks add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images in all.
    pub total: u64,
    /// Correct as they are.
    pub clean: u64,
    /// Robust under each attack.
    pub attacks: Vec<u64>,
    /// Robust under all attacks.
    pub worst_case: u64,
}

/// Numbers that are no counts.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} are no counts: total, clean, worst case and one for each attack, none negative, were expected"
)]
pub struct CountsError(Vec<i64>);

impl Counts {
    /// Zeros, for so many attacks.
    pub fn new(attacks: usize) -> Self {
        Self { attacks: vec![0; attacks], ..Self::default() }
    }

    /// Total, clean, worst case, then the attacks: numbers that ranks can sum up.
    pub fn to_vec(&self) -> Vec<i64> {
        let Self { total, clean, attacks, worst_case } = self;
        [total, clean, worst_case].into_iter().chain(attacks).map(|&count| count as i64).collect()
    }

    /// The counts that [`Counts::to_vec`] made, or a sum of such.
    pub fn from_slice(numbers: &[i64]) -> Result<Self, CountsError> {
        let invalid = || CountsError(numbers.to_vec());
        let counts: Result<Vec<u64>, _> = numbers.iter().map(|&number| u64::try_from(number)).collect();
        match counts.map_err(|_| invalid())?.as_slice() {
            &[total, clean, worst_case, ref attacks @ ..] => {
                Ok(Self { total, clean, attacks: attacks.to_vec(), worst_case })
            }
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_from_their_numbers() {
        let counts = Counts { total: 10, clean: 8, attacks: vec![5, 4], worst_case: 3 };
        assert_eq!(Counts::from_slice(&counts.to_vec()), Ok(counts));
        assert_eq!(Counts::from_slice(&Counts::new(2).to_vec()), Ok(Counts::new(2)));
    }

    #[test]
    fn other_numbers_are_refused() {
        assert_eq!(Counts::from_slice(&[1, 2]), Err(CountsError(vec![1, 2])));
        assert_eq!(Counts::from_slice(&[1, 2, 3, -4]), Err(CountsError(vec![1, 2, 3, -4])));
    }
}
