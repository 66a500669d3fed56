//! The reducer's own all-reduce, waited for after the backward pass instead of within it.

use datjob_c10d::{BucketHook, C10dError, ErrorDetails, ProcessGroup, ReduceOp, Work, libtorch_message};
use tch::Tensor;

/// Averages buckets while what comes after the backward pass goes on.
pub(super) struct Beyond {
    group: ProcessGroup,
    under_way: Vec<Work>,
}

impl Beyond {
    /// The group is for nothing else.
    pub(super) fn new(group: ProcessGroup) -> Self {
        Self { group, under_way: Vec::new() }
    }
}

impl BucketHook for Beyond {
    fn start(&mut self, _: usize, mut gradient: Tensor) -> Result<(), C10dError> {
        let ranks = self.group.world_size() as f64;
        let _ = gradient.f_div_scalar_(ranks).map_err(|error| {
            C10dError::Other(ErrorDetails {
                operation: "averaging gradients".to_owned(),
                member: Some(self.group.member()),
                message: libtorch_message(&error),
            })
        })?;
        self.under_way.push(self.group.all_reduce_async(&gradient, ReduceOp::Sum)?);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), C10dError> {
        self.under_way.drain(..).try_for_each(Work::wait)
    }
}
