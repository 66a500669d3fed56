//! Averages gradients over processes during the backward pass.

use std::{
    ffi::{CString, c_char, c_int},
    ptr::{self, NonNull},
    time::Duration,
};

use tch::Tensor;

use crate::{
    error::{C10dError, ErrorDetails, Member},
    ffi::{self, c_string, check},
    hook::{self, BucketHook, RegisteredHook},
    model_verification::{describe_parameter, verify_same_on_all_ranks},
    process_group::{ProcessGroup, pointers},
    waiting::Waiting,
};

/// How a [`Reducer`] groups gradients into buckets. Must be the same in all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// The size at which the first bucket is full: small, so that communication starts early.
    pub first_bucket_bytes: usize,
    /// The size at which any other bucket is full.
    pub bucket_cap_bytes: usize,
    /// Whether gradients are views of the buckets. This saves a copy of the gradients in memory and in time. Replacing a
    /// gradient instead of writing to it then costs a copy.
    pub gradient_as_bucket_view: bool,
}

impl Default for ReducerOptions {
    /// 1 MiB, then 25 MiB, as in PyTorch, with gradients as views of the buckets.
    fn default() -> Self {
        Self { first_bucket_bytes: 1 << 20, bucket_cap_bytes: 25 << 20, gradient_as_bucket_view: true }
    }
}

/// Statistics of the steps. Times are measured in each of the first ten steps, then in every tenth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReducerStatistics {
    /// Number of reduced backward passes.
    pub iterations: u64,
    /// Times of the last measured step.
    pub last: StepTimes,
    /// Mean times of all measured steps.
    pub mean: StepTimes,
    /// The size of each bucket in bytes, in the order in which they are reduced.
    pub bucket_bytes: Vec<u64>,
}

/// The times of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// From [`Reducer::prepare_forward`] to [`Reducer::prepare_backward`].
    pub forward_compute: Duration,
    /// From [`Reducer::prepare_backward`] until the last gradient was computed.
    pub backward_compute: Duration,
    /// From the start of the first bucket's all-reduce to the end of the last one's.
    pub backward_communication: Duration,
    /// The part of the communication that overlapped with the computation of gradients.
    pub backward_overlap: Duration,
}

/// Averages the gradients of a model over the processes of a group, bucket by bucket during the backward pass:
/// the engine of PyTorch's `DistributedDataParallel`.
///
/// A step is [`prepare_forward`](Self::prepare_forward), one or more forward passes,
/// [`prepare_backward`](Self::prepare_backward), one backward pass with `f_backward` (tch's `backward` panics if a
/// collective fails). Then every parameter's gradient is the mean over the processes. Convert errors of the backward pass
/// with [`C10dError::from_backward`].
///
/// - Every parameter must get a gradient in every prepared backward pass.
/// - A backward pass without `prepare_backward` adds to the local gradients and communicates nothing; the next one
///   with it averages the sum. Gradients with respect to inputs only (`Tensor::run_backward`) do not concern the
///   reducer, nor does switching `requires_grad` off and on between steps.
/// - The assignment of gradients to buckets depends only on the parameters and is the same in every step. So a process that
///   has just joined sums in the same order as the others.
/// - The reducer does not synchronise the values of parameters or buffers: use [`ProcessGroup::broadcast_coalesced`].
///
/// It holds references to the parameters and to the group, and hooks the parameters until it is dropped. A model can have
/// one reducer at a time.
#[derive(Debug)]
pub struct Reducer {
    handle: NonNull<ffi::Reducer>,
    /// The parameters' names, in order.
    names: Vec<String>,
    /// Lines that must be the same in all processes.
    description: Vec<String>,
    member: Member,
    /// Freed after the handle, which calls it.
    hook: Option<RegisteredHook>,
}

// SAFETY: the reducer is not bound to a thread: it locks its state, which autograd's threads also change.
unsafe impl Send for Reducer {}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again. The destructor takes the hooks off the
        // parameters, which the handle kept alive.
        unsafe { ffi::datjob_reducer_free(self.handle.as_ptr()) }
    }
}

impl Reducer {
    /// Hooks the parameters. Pass them with their names (for messages), in the same order in all processes, which is roughly
    /// the order of the forward pass. They must be leaves that require a gradient.
    ///
    /// This is a collective. It fails with [`ModelMismatch`](C10dError::ModelMismatch) in every process if names, kinds,
    /// shapes, memory formats or options differ between any two.
    pub fn new(
        parameters: &[(String, Tensor)],
        group: &ProcessGroup,
        options: ReducerOptions,
    ) -> Result<Self, C10dError> {
        const OPERATION: &str = "creating the reducer";
        let member = Some(group.member());
        let invalid = |message: String| C10dError::invalid(OPERATION, member, message);

        for (name, parameter) in parameters {
            if !parameter.defined() || !parameter.requires_grad() || !parameter.is_leaf() {
                return Err(invalid(format!("parameter {name:?} is not a leaf that requires a gradient")));
            }
        }
        if parameters.is_empty() {
            return Err(invalid("the model has no parameters".to_owned()));
        }
        let bytes = |name: &str, size: usize| match i64::try_from(size) {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(invalid(format!("{name}: invalid value {size}: must be 1 to {}", i64::MAX))),
        };
        let first_bucket_bytes = bytes("first_bucket_bytes", options.first_bucket_bytes)?;
        let bucket_cap_bytes = bytes("bucket_cap_bytes", options.bucket_cap_bytes)?;
        let names: Vec<CString> =
            parameters.iter().map(|(name, _)| c_string(name)).collect::<Result<_, _>>().map_err(invalid)?;
        let name_pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let tensors: Vec<&Tensor> = parameters.iter().map(|(_, parameter)| parameter).collect();
        let tensor_pointers = pointers(&tensors);

        let mut description = vec![format!("{options:?}")];
        description.extend(parameters.iter().map(|(name, parameter)| describe_parameter(name, parameter)));
        verify_same_on_all_ranks(group, OPERATION, &description)?;

        let mut handle = ptr::null_mut();
        // SAFETY: group, tensors and names live through the call, the two arrays have `tensors.len()` elements, and
        // the last argument is a place for its result.
        let result = check(unsafe {
            ffi::datjob_reducer_new(
                tensor_pointers.as_ptr(),
                name_pointers.as_ptr(),
                tensors.len(),
                group.as_ptr(),
                first_bucket_bytes,
                bucket_cap_bytes,
                c_int::from(options.gradient_as_bucket_view),
                &raw mut handle,
            )
        });
        result.map_err(|message| group.error(OPERATION, &message))?;
        let handle = NonNull::new(handle).expect("the bridge returns a reducer or an error");
        let names = parameters.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self { handle, names, description, member: group.member(), hook: None })
    }

    /// [`new`](Self::new) with a communication hook that averages the buckets. Then each step must call
    /// [`finish`](Self::finish) after the backward pass and before gradients are read or written.
    pub fn with_hook(
        parameters: &[(String, Tensor)],
        group: &ProcessGroup,
        options: ReducerOptions,
        hook: Box<dyn BucketHook>,
    ) -> Result<Self, C10dError> {
        let mut reducer = Self::new(parameters, group, options)?;
        let hook = reducer.hook.insert(RegisteredHook::new(hook));
        let state = hook.state();
        // SAFETY: the reducer is alive. The state outlives it: it is a field of this object, and `drop` of this object
        // frees the reducer first.
        let set = unsafe { ffi::datjob_reducer_set_hook(reducer.as_ptr(), hook::run_hook, state) };
        reducer.check_status("with_hook", set)?;
        Ok(reducer)
    }

    /// Waits until the hook has averaged the gradients of the last backward pass. Without a hook, they are averaged when the
    /// backward pass returns.
    pub fn finish(&self) -> Result<(), C10dError> {
        let _waiting = Waiting::begin("the exchange of gradients");
        self.hook.as_ref().map_or(Ok(()), RegisteredHook::finish)
    }

    /// Call it before a step's first forward pass.
    ///
    /// In the second step this is a collective: libtorch broadcasts the order in which rank 0's gradients became ready.
    pub fn prepare_forward(&mut self) -> Result<(), C10dError> {
        let _waiting = Waiting::begin("the order of gradients");
        // SAFETY: the reducer is alive.
        let prepared = unsafe { ffi::datjob_reducer_prepare_forward(self.as_ptr()) };
        self.check_status("prepare_forward", prepared)
    }

    /// Call it between a step's last forward pass and its backward pass.
    pub fn prepare_backward(&mut self) -> Result<(), C10dError> {
        // SAFETY: the reducer is alive.
        let prepared = unsafe { ffi::datjob_reducer_prepare_backward(self.as_ptr()) };
        self.check_status("prepare_backward", prepared)
    }

    /// Fails if a parameter got no gradient in the backward pass: then gradients were not averaged, which libtorch detects
    /// only in the next step. Call it after the backward pass; it is cheap.
    pub fn check_finished(&self) -> Result<(), C10dError> {
        // SAFETY: the reducer is alive.
        let finished = unsafe { ffi::datjob_reducer_check_finished(self.as_ptr()) };
        self.check_status("check_finished", finished)
    }

    /// Resets the reducer to its initial state after a step that failed in all processes for a reason other than
    /// communication. Gradients may be partly reduced and become undefined.
    pub fn reset(&mut self) -> Result<(), C10dError> {
        // SAFETY: the reducer is alive.
        let reset = unsafe { ffi::datjob_reducer_reset(self.as_ptr()) };
        self.check_status("reset", reset)
    }

    /// Resets the reducer and releases its group after a step whose communication failed. Gradients may be partly reduced
    /// and become undefined. Drop the group first: its connections close with the last reference, and peers may wait for
    /// that.
    pub fn release_process_group(&mut self) -> Result<(), C10dError> {
        // SAFETY: the reducer is alive.
        let released = unsafe { ffi::datjob_reducer_release_group(self.as_ptr()) };
        self.check_status("release_process_group", released)
    }

    /// Resets the reducer and replaces its group. Other members of the new group may have new reducers. Gradients become
    /// undefined. Rejected if a hook averages the buckets, because the hook has a separate group.
    ///
    /// This is a collective of the new group. It fails like [`new`](Self::new) if the models differ.
    pub fn update_process_group(&mut self, group: &ProcessGroup) -> Result<(), C10dError> {
        const OPERATION: &str = "update_process_group";
        if self.hook.is_some() {
            let message = "a hook averages the buckets; create a new reducer";
            return Err(C10dError::invalid(OPERATION, Some(self.member), message));
        }
        self.release_process_group()?;
        self.member = group.member();
        verify_same_on_all_ranks(group, OPERATION, &self.description)?;
        // SAFETY: reducer and group are alive; the reducer takes its own reference to the group.
        let updated = unsafe { ffi::datjob_reducer_set_group(self.as_ptr(), group.as_ptr()) };
        self.check_status(OPERATION, updated)
    }

    /// Statistics at the last [`prepare_forward`](Self::prepare_forward).
    pub fn statistics(&self) -> Result<ReducerStatistics, C10dError> {
        const OPERATION: &str = "statistics";
        let mut statistics = ffi::Statistics::default();
        // SAFETY: the reducer is alive, and the second argument is a place for the result.
        let read = unsafe { ffi::datjob_reducer_get_statistics(self.as_ptr(), &raw mut statistics) };
        self.check_status(OPERATION, read)?;

        // There are no more buckets than parameters.
        let mut sizes = vec![0; self.names.len()];
        let mut count = 0;
        // SAFETY: the reducer is alive, `sizes` has room for the capacity given, and `count` for the result.
        let read = unsafe {
            ffi::datjob_reducer_bucket_sizes(self.as_ptr(), sizes.as_mut_ptr(), sizes.len(), &raw mut count)
        };
        self.check_status(OPERATION, read)?;
        sizes.truncate(count);

        let duration = |nanoseconds| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
        Ok(ReducerStatistics {
            iterations: u64::try_from(statistics.iterations).unwrap_or_default(),
            last: StepTimes {
                forward_compute: duration(statistics.forward_compute_ns),
                backward_compute: duration(statistics.backward_compute_ns),
                backward_communication: duration(statistics.backward_communication_ns),
                backward_overlap: duration(statistics.backward_overlap_ns),
            },
            mean: StepTimes {
                forward_compute: duration(statistics.mean_forward_compute_ns),
                backward_compute: duration(statistics.mean_backward_compute_ns),
                backward_communication: duration(statistics.mean_backward_communication_ns),
                backward_overlap: duration(statistics.mean_backward_overlap_ns),
            },
            bucket_bytes: sizes.into_iter().map(|size| u64::try_from(size).unwrap_or_default()).collect(),
        })
    }

    fn check_status(&self, operation: &str, status: c_int) -> Result<(), C10dError> {
        check(status).map_err(|message| {
            let names: Vec<&str> = parameters_without_gradient(&message)
                .filter_map(|index| self.names.get(index).map(String::as_str))
                .collect();
            if names.is_empty() {
                return C10dError::from_message(operation, Some(self.member), &message);
            }
            C10dError::Other(ErrorDetails {
                operation: operation.to_owned(),
                member: Some(self.member),
                message: format!("the backward pass produced no gradient for {}", names.join(", ")),
            })
        })
    }

    fn as_ptr(&self) -> *const ffi::Reducer {
        self.handle.as_ptr()
    }
}

/// The indices of parameters without gradient in libtorch's message.
fn parameters_without_gradient(message: &str) -> impl Iterator<Item = usize> {
    let (_, after) = message.split_once("Parameter indices which did not receive grad").unwrap_or_default();
    let line = after.lines().next().unwrap_or_default();
    // "for rank 0: 6 7"
    let indices = line.split_once(':').map_or("", |(_, indices)| indices);
    indices.split(|c: char| !c.is_ascii_digit()).filter_map(|index| index.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_parameters_without_gradient_from_the_message() {
        let message = "Expected to have finished reduction in the prior iteration before starting a new one.\n\
                       Parameter indices which did not receive grad for rank 1: 6 17\n In addition, you can set 1";
        assert_eq!(parameters_without_gradient(message).collect::<Vec<_>>(), [6, 17]);
        assert_eq!(parameters_without_gradient("Connection closed by peer [10.0.0.1]:5").count(), 0);
    }
}
