//! How ranks stay one model: gradients that are averaged in every step, or weights that are after several.
//!
//! Gradients are averaged in one of three ways: by the reducer itself, within the backward pass; by the same all-reduce
//! beyond its end, while the next adversarial examples are made (`attack.overlap`); or in fewer bits, on a thread of
//! their own (`communication.compression`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use datjob_api::{Training, training::Compression};
use datjob_c10d::{
    BucketHook, C10dError, ProcessGroup, ReduceOp, Reducer, ReducerOptions, ReducerStatistics,
};
use tch::{Tensor, no_grad};

use super::{TrainError, state::State};
use crate::{
    engine::compress::{CompressedAllReduce, Format, Formats, Residuals, Rounding},
    placement::{DeviceEvent, Placement},
};
use datjob_adversarial::state_dict::StateDict;
use datjob_data::random::Stream;

mod background;
mod beyond;

use background::{Background, BucketRounding};
use beyond::Beyond;

/// How this rank's model is kept that of all ranks.
pub(super) struct Exchange {
    way: Way,
    world_size: usize,
    placement: Placement,
    /// The begin and the end of each wait in which the device computed nothing, where waits are measured here.
    waits: Vec<(DeviceEvent, DeviceEvent)>,
    /// Steps since [`Exchange::traffic`].
    steps: u64,
    /// Rounding errors of this rank, with error feedback.
    residuals: Option<Residuals>,
}

enum Way {
    /// By the reducer itself, which measures its own times in some of the steps.
    Gradients { reducer: Reducer, samples: Samples },
    /// By a hook, which counts the bytes that it sends.
    Hooked { reducer: Reducer, sent: Counter },
    /// Local steps.
    Weights { every: u64, sent: u64 },
}

/// The mean is over every tenth step.
const SAMPLE_EVERY: u64 = 10;

/// Communication that nothing hid, in the steps that a reducer has measured.
#[derive(Default)]
struct Samples {
    /// The number of the last measured step.
    step: u64,
    last: Duration,
    sum: Duration,
    count: u32,
}

impl Samples {
    /// Adds the last measured step, if it is new.
    fn add(&mut self, statistics: &ReducerStatistics) {
        let ReducerStatistics { iterations, last, .. } = statistics;
        if *iterations == self.step {
            return;
        }
        self.step = *iterations;
        self.last = last.backward_communication.saturating_sub(last.backward_overlap);
        // The reducer also measures each of a process's first steps, in which ranks wait for each other longest.
        if iterations.is_multiple_of(SAMPLE_EVERY) {
            self.sum += self.last;
            self.count += 1;
        }
    }

    /// The mean since the last call; the newest time if no step was measured since.
    fn take_mean(&mut self) -> Duration {
        let mean = self.sum.checked_div(self.count).unwrap_or(self.last);
        (self.sum, self.count) = (Duration::ZERO, 0);
        mean
    }
}

/// Who counts the bytes that a hook sends.
enum Counter {
    /// The hook.
    Counted { total: Arc<AtomicU64>, before: u64 },
    /// Nobody: they follow from the gradients' size.
    AllReduce,
}

/// What the exchange took in some steps.
pub(super) struct Traffic {
    /// Time of communication that nothing hid.
    pub exposed: Duration,
    /// Bytes that this rank sent, as a ring all-reduce counts them.
    pub bytes: u64,
    /// Number of these steps.
    pub steps: u64,
}

/// Whether the spec asks for a hook, which needs a group of its own.
pub(super) fn is_hooked(training: &Training) -> bool {
    training.attack.overlap || training.communication.compression.is_some()
}

/// Whether each rank keeps its rounding errors.
pub(super) fn has_error_feedback(training: &Training) -> bool {
    matches!(&training.communication.compression, Some(Compression::Int8(int8)) if int8.error_feedback)
}

impl Exchange {
    /// `gradients` is a group for a hook, where [`is_hooked`].
    pub(super) fn new(
        training: &Training,
        state: &State,
        group: &ProcessGroup,
        gradients: Option<ProcessGroup>,
        placement: Placement,
    ) -> Result<Self, C10dError> {
        let parameters = state.network.parameters();
        let options = ReducerOptions::default();
        let every = u64::from(training.schedule.local_steps());
        let mut residuals = None;
        let way = match (gradients, &training.communication.compression) {
            _ if every > 1 => Way::Weights { every, sent: 0 },
            (None, _) => {
                let reducer = Reducer::new(&parameters, group, options)?;
                Way::Gradients { reducer, samples: Samples::default() }
            }
            (Some(gradients), None) => {
                let hook = Box::new(Beyond::new(gradients));
                let reducer = Reducer::with_hook(&parameters, group, options, hook)?;
                Way::Hooked { reducer, sent: Counter::AllReduce }
            }
            (Some(gradients), Some(compression)) => {
                let all_reduce = compressed(gradients, compression);
                let sent = Counter::Counted { total: all_reduce.sent(), before: 0 };
                residuals = all_reduce.residuals();
                let rounding = rounding(compression, training.seed, group.rank() as u64);
                let background = Background::new(all_reduce, group.member(), state.step, rounding)?;
                let hook: Box<dyn BucketHook> = Box::new(background);
                Way::Hooked { reducer: Reducer::with_hook(&parameters, group, options, hook)?, sent }
            }
        };
        let (world_size, waits) = (group.world_size(), Vec::new());
        Ok(Self { way, world_size, placement, waits, steps: 0, residuals })
    }

    /// The rounding errors of this rank, with error feedback. Valid between [`finish`](Self::finish) and the next backward pass.
    pub(super) fn residuals(&self) -> Option<&Residuals> {
        self.residuals.as_ref()
    }

    fn reducer(&mut self) -> Option<&mut Reducer> {
        match &mut self.way {
            Way::Gradients { reducer, .. } | Way::Hooked { reducer, .. } => Some(reducer),
            Way::Weights { .. } => None,
        }
    }

    /// Before a step's first forward pass.
    pub(super) fn prepare_forward(&mut self) -> Result<(), C10dError> {
        self.reducer().map_or(Ok(()), Reducer::prepare_forward)?;
        if let Way::Gradients { reducer, samples } = &mut self.way {
            samples.add(&reducer.statistics()?);
        }
        Ok(())
    }

    /// Between a step's last forward pass and its backward pass.
    pub(super) fn prepare_backward(&mut self) -> Result<(), C10dError> {
        self.reducer().map_or(Ok(()), Reducer::prepare_backward)
    }

    /// After the backward pass: waits until gradients are those that the optimizer is to follow.
    pub(super) fn finish(&mut self) -> Result<(), C10dError> {
        if let Way::Hooked { reducer, .. } = &self.way {
            let begin = self.placement.record_event()?;
            reducer.finish()?;
            self.waits.push((begin, self.placement.record_event()?));
        }
        self.steps += 1;
        Ok(())
    }

    /// After the optimizer's step `number`, counted from 1 in the epoch: averages weights where that is due.
    pub(super) fn stepped(
        &mut self,
        number: u64,
        state: &State,
        group: &ProcessGroup,
    ) -> Result<(), TrainError> {
        match self.way {
            Way::Weights { every, .. } if number.is_multiple_of(every) => {
                self.average(&state.network.parameters(), group)
            }
            _ => Ok(()),
        }
    }

    /// Whether the backward pass waits for other ranks.
    pub(super) fn waits_in_backward(&self) -> bool {
        self.world_size > 1 && matches!(self.way, Way::Gradients { .. })
    }

    /// Whether all ranks have the same weights after step `number`, counted from 1 in the epoch.
    pub(super) fn is_synchronized(&self, number: u64) -> bool {
        match self.way {
            Way::Weights { every, .. } => number.is_multiple_of(every),
            Way::Gradients { .. } | Way::Hooked { .. } => true,
        }
    }

    /// After an epoch: makes all ranks' weights and optimizers the same, where they are not.
    pub(super) fn end_of_epoch(&mut self, state: &State, group: &ProcessGroup) -> Result<(), TrainError> {
        if matches!(self.way, Way::Weights { .. }) {
            let mut all = state.network.parameters();
            all.extend(state.optimizer.state());
            all.extend(state.average.iter().flat_map(|average| average.network.parameters()));
            self.average(&all, group)?;
        }
        Ok(())
    }

    fn average(&mut self, tensors: &StateDict, group: &ProcessGroup) -> Result<(), TrainError> {
        let begin = self.placement.record_event()?;
        let tensors: Vec<&Tensor> = tensors.iter().map(|(_, tensor)| tensor).collect();
        group.all_reduce_coalesced(&tensors, ReduceOp::Sum)?;
        let ranks = self.world_size as f64;
        no_grad(|| {
            tensors.iter().try_for_each(|tensor| tensor.shallow_clone().f_div_scalar_(ranks).map(drop))
        })?;
        self.waits.push((begin, self.placement.record_event()?));
        let bytes = tensors.iter().map(|tensor| bytes_of(tensor)).sum();
        if let Way::Weights { sent, .. } = &mut self.way {
            *sent += ring_bytes(bytes, self.world_size);
        }
        Ok(())
    }

    /// What the steps since the last call took.
    pub(super) fn traffic(&mut self) -> Result<Traffic, C10dError> {
        let steps = std::mem::take(&mut self.steps);
        let waits = std::mem::take(&mut self.waits).into_iter();
        let waited =
            waits.map(|(begin, end)| begin.elapsed_time(&end)).sum::<Result<Duration, C10dError>>()?;
        let gradient_bytes = |reducer: &Reducer| -> Result<u64, C10dError> {
            Ok(steps * ring_bytes(reducer.statistics()?.bucket_bytes.iter().sum(), self.world_size))
        };
        Ok(match &mut self.way {
            Way::Gradients { reducer, samples } => {
                let exposed = samples.take_mean().saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
                Traffic { exposed, bytes: gradient_bytes(reducer)?, steps }
            }
            Way::Hooked { reducer, sent: Counter::AllReduce } => {
                Traffic { exposed: waited, bytes: gradient_bytes(reducer)?, steps }
            }
            Way::Hooked { sent: Counter::Counted { total, before }, .. } => {
                let now = total.load(Ordering::Relaxed);
                let bytes = now - std::mem::replace(before, now);
                Traffic { exposed: waited, bytes, steps }
            }
            Way::Weights { sent, .. } => Traffic { exposed: waited, bytes: std::mem::take(sent), steps },
        })
    }
}

/// The all-reduce of a spec.
fn compressed(group: ProcessGroup, compression: &Compression) -> CompressedAllReduce {
    let both = |format| Formats { contribution: format, average: format };
    let (formats, feedback) = match compression {
        Compression::Fp16(_) => (both(Format::Fp16), false),
        Compression::Bf16(_) => (both(Format::Bf16), false),
        Compression::Int8(int8) => {
            let format = Format::Int8 { block: int8.bucket as usize };
            let average = if int8.sides == 1 { Format::Fp32 } else { format };
            (Formats { contribution: format, average }, int8.error_feedback)
        }
    };
    CompressedAllReduce::new(group, formats, feedback)
}

/// How a rank rounds a bucket in a step. Each has random numbers of its own, so that a training that goes on from a
/// checkpoint draws what it would have drawn.
fn rounding(compression: &Compression, seed: u64, rank: u64) -> BucketRounding {
    match compression {
        Compression::Int8(int8) if !int8.error_feedback => Box::new(move |step, bucket| {
            Rounding::stochastic(Stream::compression(seed, rank, step, bucket as u64).seed().cast_unsigned())
        }),
        _ => Box::new(|_, _| Rounding::Nearest),
    }
}

/// Bytes that a rank sends in an all-reduce by a ring.
fn ring_bytes(bytes: u64, world_size: usize) -> u64 {
    let ranks = world_size as u64;
    2 * bytes * (ranks - 1) / ranks
}

fn bytes_of(tensor: &Tensor) -> u64 {
    tensor.numel() as u64 * tensor.kind().elt_size_in_bytes() as u64
}

#[cfg(test)]
mod tests {
    use datjob_c10d::StepTimes;

    use super::*;

    #[test]
    fn the_mean_is_that_of_the_steps_since_the_last_call() {
        let measured = |iterations, communication, overlap| {
            let (communication, overlap) =
                (Duration::from_millis(communication), Duration::from_millis(overlap));
            let last = StepTimes {
                backward_communication: communication,
                backward_overlap: overlap,
                ..StepTimes::default()
            };
            ReducerStatistics { iterations, last, ..ReducerStatistics::default() }
        };
        let mut samples = Samples::default();
        samples.add(&measured(9, 900, 0));
        assert_eq!(samples.take_mean(), Duration::from_millis(900), "the newest");
        for (iteration, communication) in [(10, 300), (10, 300), (20, 500)] {
            samples.add(&measured(iteration, communication, 100));
        }
        assert_eq!(samples.take_mean(), Duration::from_millis(300));
        samples.add(&measured(30, 2, 0));
        assert_eq!(samples.take_mean(), Duration::from_millis(2));
    }

    #[test]
    fn a_ring_sends_every_byte_twice_but_for_the_own_share() {
        assert_eq!([1, 2, 4].map(|ranks| ring_bytes(1000, ranks)), [0, 1000, 1500]);
    }
}
