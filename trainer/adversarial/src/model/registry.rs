//! The named tensors of a network.

use datjob_data::random::{normal_weights, uniform_weights};
use tch::{Device, Kind, TchError, Tensor};

/// A named tensor of a network.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Parameter,
    Buffer,
}

/// Creates the tensors of a network and keeps them in the order of their creation.
pub(super) struct Registry {
    seed: u64,
    options: (Kind, Device),
    entries: Vec<Entry>,
}

impl Registry {
    pub(super) fn new(seed: u64, kind: Kind, device: Device) -> Self {
        Self { seed, options: (kind, device), entries: Vec::new() }
    }

    /// Returns the tensors and empties the registry.
    pub(super) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// A parameter drawn uniformly from ±1/√`fan_in`.
    pub(super) fn uniform(&mut self, name: String, shape: &[i64], fan_in: i64) -> Result<Tensor, TchError> {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let values = uniform_weights(self.seed, &name, element_count(shape), bound);
        self.parameter_from_values(name, &values, shape)
    }

    /// A parameter drawn from a normal distribution around 0.
    pub(super) fn normal(&mut self, name: String, shape: &[i64], deviation: f64) -> Result<Tensor, TchError> {
        let values = normal_weights(self.seed, &name, element_count(shape), deviation);
        self.parameter_from_values(name, &values, shape)
    }

    /// A parameter of `length` equal values.
    pub(super) fn constant(&mut self, name: String, length: i64, value: f64) -> Result<Tensor, TchError> {
        let values = Tensor::f_full([length], value, self.options)?;
        self.parameter(name, &values)
    }

    fn parameter_from_values(
        &mut self,
        name: String,
        values: &[f32],
        shape: &[i64],
    ) -> Result<Tensor, TchError> {
        let (kind, device) = self.options;
        let values = Tensor::f_from_slice(values)?.f_view(shape)?.f_to_kind(kind)?.f_to_device(device)?;
        self.parameter(name, &values)
    }

    fn parameter(&mut self, name: String, values: &Tensor) -> Result<Tensor, TchError> {
        let tensor = values.f_set_requires_grad(true)?;
        Ok(self.register(name, tensor, Role::Parameter))
    }

    /// A buffer of `length` equal values.
    pub(super) fn buffer(&mut self, name: String, length: i64, value: f64) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_full([length], value, self.options)?;
        Ok(self.register(name, tensor, Role::Buffer))
    }

    /// A counter that starts at 0.
    pub(super) fn counter(&mut self, name: String) -> Result<Tensor, TchError> {
        let tensor = Tensor::f_zeros([] as [i64; 0], (Kind::Int64, self.options.1))?;
        Ok(self.register(name, tensor, Role::Buffer))
    }

    fn register(&mut self, name: String, tensor: Tensor, role: Role) -> Tensor {
        let handle = tensor.shallow_clone();
        self.entries.push(Entry { name, tensor, role });
        handle
    }
}

fn element_count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}
