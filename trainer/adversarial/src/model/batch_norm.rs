//! BatchNorm.

use tch::{TchError, Tensor, no_grad};

use super::{Mode, registry::Registry};

/// Weight of the batch's statistics in the update of the running ones: PyTorch's default.
const MOMENTUM: f64 = 0.1;
/// Added to the variance: PyTorch's default.
const EPSILON: f64 = 1e-5;

/// BatchNorm over the channels of `[N, C, H, W]`.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
}

impl BatchNorm {
    /// Registers weight, bias, running_mean, running_var and num_batches_tracked under `name`.
    pub(super) fn new(registry: &mut Registry, name: &str, channels: i64) -> Result<Self, TchError> {
        Ok(Self {
            weight: registry.constant(format!("{name}.weight"), channels, 1.0)?,
            bias: registry.constant(format!("{name}.bias"), channels, 0.0)?,
            running_mean: registry.buffer(format!("{name}.running_mean"), channels, 0.0)?,
            running_var: registry.buffer(format!("{name}.running_var"), channels, 1.0)?,
            batches: registry.counter(format!("{name}.num_batches_tracked"))?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        // Without running statistics, libtorch uses the batch's and updates nothing.
        let running =
            (mode != Mode::TrainFrozenStatistics).then_some((&self.running_mean, &self.running_var));
        if mode == Mode::Train {
            let _ = no_grad(|| self.batches.shallow_clone().f_add_scalar_(1))?;
        }
        x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            running.map(|(mean, _)| mean),
            running.map(|(_, variance)| variance),
            mode != Mode::Eval,
            MOMENTUM,
            EPSILON,
            true,
        )
    }
}
