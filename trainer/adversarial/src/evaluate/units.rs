//! Units of an evaluation: one run of one stage of an attack on one batch, or the certification of one image. An evaluation whose
//! units are kept goes on where it was interrupted.

use serde::{Deserialize, Serialize};

/// A unit of an evaluation. Its result says which of the images that withstood the earlier units of its attack and batch
/// withstand this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// Number of the attack in the evaluation.
    pub attack: u32,
    /// Number of the stage in the attack.
    pub stage: u32,
    /// Number of the run in the stage.
    pub run: u32,
    /// Number of the batch, counted over all ranks.
    pub batch: u32,
}

/// Keeps the results of units.
pub trait UnitResults {
    /// The result of a unit on these images, if an earlier evaluation of the same network and attacks has computed it.
    fn find(&mut self, unit: Unit, images: &[usize]) -> Option<Vec<bool>>;

    /// Keeps the result of a unit on these images, a flag for each.
    fn keep(&mut self, unit: Unit, images: &[usize], robust: &[bool]);

    /// The number of radii ([`crate::certify::RADII`]) at which this image is certified, if an earlier certification of the same
    /// network has computed it.
    fn find_certified(&mut self, image: usize) -> Option<usize>;

    /// Keeps the number of radii at which an image is certified.
    fn keep_certified(&mut self, image: usize, radii: usize);
}

/// Keeps no results, for an evaluation that is short.
#[derive(Debug)]
pub struct NoUnitResults;

impl UnitResults for NoUnitResults {
    fn find(&mut self, _: Unit, _: &[usize]) -> Option<Vec<bool>> {
        None
    }

    fn keep(&mut self, _: Unit, _: &[usize], _: &[bool]) {}

    fn find_certified(&mut self, _: usize) -> Option<usize> {
        None
    }

    fn keep_certified(&mut self, _: usize, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_unit_results_keeps_nothing() {
        let unit = Unit { attack: 0, stage: 0, run: 0, batch: 0 };
        let mut results = NoUnitResults;
        results.keep(unit, &[3], &[true]);
        results.keep_certified(3, 1);
        assert_eq!(results.find(unit, &[3]), None);
        assert_eq!(results.find_certified(3), None);
    }
}
