//! The networks. Their parameters have the names of RobustBench's and torchvision's PyTorch models.
//!
//! They do not use `tch::nn`. Its `VarStore` returns parameters in a hash map's order and draws weights from the global
//! generator, and its BatchNorm cannot use batch statistics without updating the running ones.

use std::collections::{BTreeMap, btree_map::Entry as MapEntry};

use datjob_api::training::{Architecture, Contents, Dataset, Model};
use datjob_c10d::{C10dError, libtorch_message};
use datjob_data::pulse;
use tch::{Device, Kind, TchError, Tensor, no_grad};
use thiserror::Error;

mod activation;
mod batch_norm;
mod conv;
mod linear;
mod normalization;
mod preactivation;
mod registry;
mod resnet;
mod small_cnn;

use crate::state_dict::StateDict;
use normalization::Normalization;
use preactivation::Preactivation;
use registry::{Entry, Registry, Role};
use resnet::{RESNET_18, RESNET_34, RESNET_50, Resnet};
use small_cnn::SmallCnn;

/// The statistics that BatchNorm uses. Networks without BatchNorm behave the same in all modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; the running statistics are updated.
    Train,
    /// Batch statistics; the running statistics do not change (single-step attacks, as in Wong et al.).
    TrainFrozenStatistics,
    /// The running statistics.
    Eval,
}

/// A state dict does not fit a network or an optimizer.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The state lacks a tensor.
    #[error("missing tensor {0} in the state dict")]
    Missing(String),
    /// The state has an unknown tensor.
    #[error("unexpected tensor {0} in the state dict")]
    Unexpected(String),
    /// The state has two tensors of the same name.
    #[error("duplicate tensor {0} in the state dict")]
    Duplicate(String),
    /// A tensor has another shape.
    #[error("tensor {name} in the state dict: expected shape {expected:?}, got {found:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Its shape in the state.
        found: Vec<i64>,
        /// The shape that the network expects.
        expected: Vec<i64>,
    },
    /// libtorch failed.
    #[error("{}", libtorch_message(.0))]
    Tensor(#[from] TchError),
}

/// A network that maps images with pixels in [0, 1] to logits.
#[derive(Debug)]
pub struct Network {
    normalization: Option<Normalization>,
    body: Body,
    entries: Vec<Entry>,
    channels_last: bool,
}

#[derive(Debug)]
enum Body {
    SmallCnn(SmallCnn),
    Resnet(Resnet),
    Preactivation(Preactivation),
}

impl Network {
    /// A network for the images and classes of a data set. `seed` determines its initial weights.
    ///
    /// Weights are initialised as in PyTorch: uniform in ±1/√fan_in for convolutions and linear layers (`kaiming_uniform_` with a = √5),
    /// scale 1 and shift 0 for BatchNorm; the convolutions of wide residual networks are normal with variance 2/fan_out.
    /// They do not depend on the device.
    pub fn for_dataset(
        model: &Model,
        dataset: Dataset,
        contents: &Contents,
        seed: u64,
        options: (Kind, Device),
    ) -> Result<Self, ModelError> {
        let mut network = Self::new(model, contents.image_shape, contents.classes, seed, options)?;
        let statistics = model.normalization.statistics(dataset);
        network.normalization =
            statistics.map(|(mean, deviation)| Normalization::new(mean, deviation, options)).transpose()?;
        Ok(network)
    }

    /// A network for images of any shape (channels, height, width), without normalisation.
    pub fn new(
        model: &Model,
        image_shape: [i64; 3],
        classes: i64,
        seed: u64,
        (kind, device): (Kind, Device),
    ) -> Result<Self, ModelError> {
        let registry = &mut Registry::new(seed, kind, device);
        let (activation, channels) = (model.activation, image_shape[0]);
        let resnet = |registry, shape| {
            Resnet::new(registry, shape, model.stem, activation, channels, classes).map(Body::Resnet)
        };
        let body = match model.architecture {
            Architecture::SmallCnn => {
                Body::SmallCnn(SmallCnn::new(registry, activation, image_shape, classes)?)
            }
            Architecture::Resnet18 => resnet(registry, RESNET_18)?,
            Architecture::Resnet34 => resnet(registry, RESNET_34)?,
            Architecture::Resnet50 => resnet(registry, RESNET_50)?,
            Architecture::PreactResnet18 => {
                Body::Preactivation(Preactivation::resnet18(registry, activation, channels, classes)?)
            }
            Architecture::WideResnet { depth, width } => Body::Preactivation(Preactivation::wide_resnet(
                registry, depth, width, activation, channels, classes,
            )?),
        };
        Ok(Self { normalization: None, body, entries: registry.take_entries(), channels_last: false })
    }

    /// Logits `[N, classes]` of images `[N, C, H, W]`.
    ///
    /// A call is a [`pulse`]: all that takes long here calls it again and again.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        pulse::beat();
        let normalised =
            self.normalization.as_ref().map(|normalization| normalization.forward(images)).transpose()?;
        let x = normalised.as_ref().unwrap_or(images);
        match &self.body {
            Body::SmallCnn(body) => body.forward(x),
            Body::Resnet(body) => body.forward(x, mode),
            Body::Preactivation(body) => body.forward(x, mode),
        }
    }

    /// Converts images to the network's memory format. Converting a batch once saves a conversion in each forward pass.
    pub fn prepare_input(&self, images: &Tensor) -> Result<Tensor, C10dError> {
        if self.channels_last {
            datjob_c10d::contiguous_channels_last(images)
        } else {
            Ok(images.shallow_clone())
        }
    }

    /// Converts the convolutions to channels_last in place: about a sixth faster on CPUs, more on tensor cores. Call it before
    /// a Reducer or an optimizer is created.
    pub fn channels_last(&mut self) -> Result<(), C10dError> {
        for entry in &self.entries {
            if entry.tensor.dim() == 4 {
                datjob_c10d::to_channels_last_(&entry.tensor)?;
            }
        }
        self.channels_last = true;
        Ok(())
    }

    /// The parameters with their names, always in the same order; handles to the live tensors.
    pub fn parameters(&self) -> StateDict {
        self.tensors(|role| role == Role::Parameter)
    }

    /// BatchNorm's statistics (`running_mean`, `running_var`, `num_batches_tracked`) with their names, always in the
    /// same order; handles to the live tensors.
    pub fn buffers(&self) -> StateDict {
        self.tensors(|role| role == Role::Buffer)
    }

    /// Parameters and buffers in the order of PyTorch's `state_dict()`; handles to the live tensors.
    pub fn state(&self) -> StateDict {
        self.tensors(|_| true)
    }

    fn tensors(&self, selects: impl Fn(Role) -> bool) -> StateDict {
        let selected = self.entries.iter().filter(|entry| selects(entry.role));
        selected.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect()
    }

    /// Loads a state with exactly the names and shapes of [`Network::state`]. Values are converted to the network's kind and
    /// device. If names or shapes differ, the network does not change.
    pub fn load_state(&self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<(), ModelError> {
        copy_state(&self.state(), state)
    }

    /// [`load_state`](Self::load_state) for weights that were trained on another data set. The last layer keeps its initial
    /// values if the state's has another number of classes or if `new_head` is set. Returns whether it did.
    pub fn load_pretrained(
        &self,
        state: impl IntoIterator<Item = (String, Tensor)>,
        new_head: bool,
    ) -> Result<bool, ModelError> {
        let mut state: StateDict = state.into_iter().collect();
        let head = self.head();
        let fits = |(name, own): &(String, Tensor)| {
            state.iter().any(|(given, tensor)| given == name && tensor.size() == own.size())
        };
        if !new_head && head.iter().all(fits) {
            return self.load_state(state).map(|()| false);
        }
        state.retain(|(name, _)| head.iter().all(|(own, _)| own != name));
        state.extend(head);
        self.load_state(state).map(|()| true)
    }

    /// The last layer's weight and bias, which every architecture registers last.
    fn head(&self) -> StateDict {
        let mut parameters = self.parameters();
        parameters.split_off(parameters.len().saturating_sub(2))
    }

    /// Runs `body` with `requires_grad` off for all parameters, so that an attack computes only gradients of its input.
    /// `requires_grad` is restored when `body` returns or panics.
    pub fn with_frozen_weights<T>(&self, body: impl FnOnce() -> T) -> T {
        let guard = FreezeGuard::new(self.parameters());
        let result = body();
        drop(guard);
        result
    }
}

/// Parameters whose `requires_grad` was switched off; dropping the guard switches it on.
struct FreezeGuard(Vec<Tensor>);

impl FreezeGuard {
    fn new(parameters: StateDict) -> Self {
        let live = parameters.into_iter().map(|(_, tensor)| tensor).filter(Tensor::requires_grad);
        Self(live.inspect(|tensor| drop(tensor.set_requires_grad(false))).collect())
    }
}

impl Drop for FreezeGuard {
    fn drop(&mut self) {
        for tensor in &self.0 {
            let _ = tensor.set_requires_grad(true);
        }
    }
}

/// Copies a state into live tensors of exactly the same names and shapes.
pub(crate) fn copy_state(
    live: &[(String, Tensor)],
    state: impl IntoIterator<Item = (String, Tensor)>,
) -> Result<(), ModelError> {
    let mut given = BTreeMap::new();
    for (name, tensor) in state {
        match given.entry(name) {
            MapEntry::Occupied(entry) => return Err(ModelError::Duplicate(entry.key().clone())),
            MapEntry::Vacant(entry) => entry.insert(tensor),
        };
    }
    let mut pairs = Vec::with_capacity(live.len());
    for (name, tensor) in live {
        let source = given.remove(name).ok_or_else(|| ModelError::Missing(name.clone()))?;
        if source.size() != tensor.size() {
            let (found, expected) = (source.size(), tensor.size());
            return Err(ModelError::Shape { name: name.clone(), found, expected });
        }
        pairs.push((tensor.shallow_clone(), source));
    }
    if let Some((name, _)) = given.pop_first() {
        return Err(ModelError::Unexpected(name));
    }
    no_grad(|| pairs.iter_mut().try_for_each(|(tensor, source)| tensor.f_copy_(source)))?;
    Ok(())
}
