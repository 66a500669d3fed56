use thiserror::Error;

/// Numbers of images by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByClass(Vec<u64>);

/// How many images were classified correctly, by class. Counts of ranks add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Images in all.
    pub total: ByClass,
    /// Correct as they are.
    pub clean: ByClass,
    /// Robust under all attacks.
    pub worst_case: ByClass,
    /// Of the correct ones, those at which the cross-entropy has no gradient. Counted where an attack is checked.
    pub without_gradient: ByClass,
    /// Those whose logits were others when asked again. Counted where an attack is checked.
    pub unsteady: ByClass,
    /// Robust after each stage of each attack and those before it in the attack.
    pub attacks: Vec<Vec<ByClass>>,
}

/// Numbers that are no counts.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("invalid counts {found:?}; expected {expected} non-negative numbers")]
pub struct CountsError {
    found: Vec<i64>,
    expected: usize,
}

impl ByClass {
    /// Counts an image of each of these classes; classes that there are not are not counted.
    pub fn add(&mut self, classes: &[usize]) {
        for &class in classes {
            if let Some(count) = self.0.get_mut(class) {
                *count += 1;
            }
        }
    }

    /// Images of all classes.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// A number for each class.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

impl Counts {
    /// Zeros, for so many classes, and attacks of so many stages.
    pub fn new(classes: usize, stages: impl IntoIterator<Item = usize>) -> Self {
        let zero = ByClass(vec![0; classes]);
        Self {
            total: zero.clone(),
            clean: zero.clone(),
            worst_case: zero.clone(),
            without_gradient: zero.clone(),
            unsteady: zero.clone(),
            attacks: stages.into_iter().map(|stages| vec![zero.clone(); stages]).collect(),
        }
    }

    /// Images that are robust under an attack: after its last stage.
    pub fn robust(&self, attack: usize) -> u64 {
        self.attacks.get(attack).and_then(|stages| stages.last()).map_or(0, ByClass::sum)
    }

    /// Numbers that ranks can sum up.
    pub fn to_vec(&self) -> Vec<i64> {
        let Self { total, clean, worst_case, without_gradient, unsteady, attacks } = self;
        let all = [total, clean, worst_case, without_gradient, unsteady].into_iter();
        all.chain(attacks.iter().flatten()).flat_map(|counts| &counts.0).map(|&count| count as i64).collect()
    }

    /// Takes over what [`Counts::to_vec`] made of counts of this shape, or a sum of such.
    pub fn set(&mut self, numbers: &[i64]) -> Result<(), CountsError> {
        let Self { total, clean, worst_case, without_gradient, unsteady, attacks } = self;
        let all = [total, clean, worst_case, without_gradient, unsteady].into_iter();
        let places: Vec<&mut u64> =
            all.chain(attacks.iter_mut().flatten()).flat_map(|counts| &mut counts.0).collect();
        let counts: Result<Vec<u64>, _> = numbers.iter().map(|&number| u64::try_from(number)).collect();
        match counts {
            Ok(counts) if counts.len() == places.len() => {
                places.into_iter().zip(counts).for_each(|(place, count)| *place = count);
                Ok(())
            }
            _ => Err(CountsError { found: numbers.to_vec(), expected: places.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_from_their_numbers() {
        let mut counts = Counts::new(3, [1, 2]);
        counts.total.add(&[0, 2, 2, 1]);
        counts.attacks[1][1].add(&[2, 2]);
        let mut read = Counts::new(3, [1, 2]);
        read.set(&counts.to_vec()).unwrap();
        assert_eq!(read, counts);
        assert_eq!((read.total.sum(), read.robust(0), read.robust(1)), (4, 0, 2));
        assert_eq!(read.total.as_slice(), [1, 1, 2]);
    }

    #[test]
    fn other_numbers_are_refused() {
        let mut counts = Counts::new(1, [1]);
        assert!(counts.set(&[1, 2]).unwrap_err().to_string().contains("expected 6 non-negative numbers"));
        assert!(counts.set(&[1, 2, 3, 4, 5, -6]).is_err());
        assert_eq!(counts, Counts::new(1, [1]));
    }
}
