//! All-reduce in fewer bits, for networks that are slower than the computation.
//!
//! Every rank averages a share of the numbers ("chunk"): all send it theirs in few bits, it decodes and averages them in
//! 32 bits, and sends the average to all, in few bits again (two-sided) or in 32 (one-sided). The owner of a chunk uses
//! what it sent like everybody else, so that all ranks hold the same bits. Quantization is that of QSGD (Alistarh et al.,
//! arXiv 1610.02132) with the maximum of a block in the place of the norm; the paper's Q (arXiv 2206.06257, section 3.2).
//!
//! The numbers go through host memory: where the network is slow, that way is the smaller part.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use datjob_c10d::{C10dError, ProcessGroup, libtorch_message};
use tch::{Device, Kind, TchError, Tensor, no_grad};

mod format;
mod residuals;
mod rounding;

pub use format::Format;
pub use residuals::{Residual, Residuals};
pub use rounding::Rounding;

/// Numbers that could not be averaged.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// A collective.
    #[error(transparent)]
    Collective(#[from] C10dError),
    /// libtorch.
    #[error("{}", libtorch_message(.0))]
    Tensor(#[from] TchError),
}

/// How numbers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    /// To the rank that averages them.
    pub contribution: Format,
    /// From there to all.
    pub average: Format,
}

/// Averages tensors over the ranks of a group. All ranks must call it with tensors of the same sizes in the same order.
#[derive(Debug)]
pub struct CompressedAllReduce {
    group: ProcessGroup,
    formats: Formats,
    /// Rounding errors, with error feedback.
    residuals: Option<Residuals>,
    sent: Arc<AtomicU64>,
}

impl CompressedAllReduce {
    /// With `error_feedback`, what rounding takes away is added to the next tensor of the same name.
    pub fn new(group: ProcessGroup, formats: Formats, error_feedback: bool) -> Self {
        let residuals = error_feedback.then(Residuals::default);
        Self { group, formats, residuals, sent: Arc::default() }
    }

    /// The rounding errors of this rank, shared with this object; `None` without error feedback.
    pub fn residuals(&self) -> Option<Residuals> {
        self.residuals.clone()
    }

    /// Bytes that this rank has sent so far, without what the transport adds.
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Replaces the numbers of a flat tensor by their mean over ranks. `name` says which tensor it is, for the error
    /// feedback. `rounding` must draw other numbers in each rank: the errors of ranks that draw the same add up instead of
    /// cancelling.
    pub fn mean(
        &mut self,
        name: usize,
        tensor: &Tensor,
        mut rounding: Rounding,
    ) -> Result<(), CompressError> {
        let ranks = self.group.world_size();
        if ranks == 1 {
            return Ok(());
        }
        let host = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        let mut values = Vec::<f32>::try_from(&host)?;
        let count = values.len();
        let chunk = self.chunk(count);
        values.resize(chunk * ranks, 0.0);
        let mut residual = self.residuals.as_ref().map(|all| all.take(name));

        let own = encoded(
            self.formats.contribution,
            &mut values,
            &mut rounding,
            residual.as_mut().map(|residual| &mut residual.contribution),
        );
        let contributions = self.exchange(&own)?;
        let mut average = average(self.formats.contribution, &contributions, chunk);
        let own = encoded(
            self.formats.average,
            &mut average,
            &mut rounding,
            residual.as_mut().map(|residual| &mut residual.average),
        );
        let averages = self.gather(&own)?;
        self.formats.average.decode(&averages, &mut values);
        if let (Some(all), Some(residual)) = (&self.residuals, residual) {
            all.insert(name, residual);
        }
        values.truncate(count);
        no_grad(|| tensor.shallow_clone().f_copy_(&Tensor::f_from_slice(&values)?))?;
        Ok(())
    }

    /// Numbers that a rank averages of so many: whole blocks, the same for every rank.
    fn chunk(&self, count: usize) -> usize {
        let block = self.formats.contribution.block().max(self.formats.average.block());
        count.div_ceil(self.group.world_size()).next_multiple_of(block)
    }

    /// Sends to each rank its chunk, in the order of ranks; returns this rank's, in the order of ranks.
    fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
        let ranks = self.group.world_size();
        let message = Tensor::f_from_slice(bytes)?.f_view([ranks as i64, -1])?;
        let received = self.group.all_to_all(&message)?;
        self.count(bytes.len() / ranks);
        Ok(Vec::try_from(received.f_view([-1])?)?)
    }

    /// Sends a chunk to all ranks; returns theirs, in their order.
    fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>, CompressError> {
        let received = self.group.all_gather(&Tensor::f_from_slice(bytes)?)?;
        self.count(bytes.len());
        Ok(Vec::try_from(received.f_view([-1])?)?)
    }

    fn count(&self, bytes_to_each: usize) {
        let others = self.group.world_size() - 1;
        self.sent.fetch_add((bytes_to_each * others) as u64, Ordering::Relaxed);
    }
}

/// The values in a format. With a residual, the error of the last rounding is added first, and replaced by that of this one.
fn encoded(
    format: Format,
    values: &mut [f32],
    rounding: &mut Rounding,
    residual: Option<&mut Vec<f32>>,
) -> Vec<u8> {
    let Some(residual) = residual else { return format.encode(values, rounding) };
    // It is empty before the first step.
    if residual.len() == values.len() {
        values.iter_mut().zip(&*residual).for_each(|(value, error)| *value += error);
    }
    let bytes = format.encode(values, rounding);
    let mut decoded = vec![0.0; values.len()];
    format.decode(&bytes, &mut decoded);
    *residual = values.iter().zip(&decoded).map(|(value, decoded)| finite(value - decoded)).collect();
    bytes
}

/// A gradient that is not finite must not stay in the residual for ever.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

/// The mean of what ranks sent of a chunk of `count` numbers.
fn average(format: Format, contributions: &[u8], count: usize) -> Vec<f32> {
    let bytes = format.bytes(count);
    let ranks = contributions.len() / bytes.max(1);
    let mut sum = vec![0.0; count];
    let mut one = vec![0.0; count];
    for contribution in contributions.chunks_exact(bytes) {
        format.decode(contribution, &mut one);
        sum.iter_mut().zip(&one).for_each(|(sum, value)| *sum += value);
    }
    let share = 1.0 / ranks.max(1) as f32;
    for sum in &mut sum {
        *sum *= share;
    }
    sum
}
