//! Rounding errors that the error feedback adds to the next tensor.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The rounding errors of a tensor on one rank; empty before its first all-reduce.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Residual {
    /// Of the values of this rank, `[ranks · chunk]`: the tensor, padded to chunks of equal length.
    pub contribution: Vec<f32>,
    /// Of the average that this rank sends, `[chunk]`.
    pub average: Vec<f32>,
}

impl Residual {
    /// Both parts, `[(ranks + 1) · chunk]`.
    pub fn to_values(&self) -> Vec<f32> {
        [&*self.contribution, &*self.average].concat()
    }

    /// The residual with these values, in a world of this size.
    pub fn from_values(values: &[f32], world_size: usize) -> Self {
        let (contribution, average) = values.split_at(values.len() / (world_size + 1) * world_size);
        Self { contribution: contribution.to_vec(), average: average.to_vec() }
    }
}

/// The residuals of all tensors of one rank, by the tensors' names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Residuals(Arc<Mutex<BTreeMap<usize, Residual>>>);

impl Residuals {
    /// The tensors that have a residual, in ascending order.
    pub fn names(&self) -> Vec<usize> {
        self.lock().keys().copied().collect()
    }

    /// A copy of the residual of a tensor. Valid while no all-reduce runs.
    pub fn get(&self, name: usize) -> Residual {
        self.lock().get(&name).cloned().unwrap_or_default()
    }

    /// Replaces the residual of a tensor.
    pub fn insert(&self, name: usize, residual: Residual) {
        self.lock().insert(name, residual);
    }

    /// Removes the residual of a tensor.
    pub(super) fn take(&self, name: usize) -> Residual {
        self.lock().remove(&name).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Residual>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
