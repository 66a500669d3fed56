//! The boundary between two steps: there all ranks agree on what follows.

use datjob_c10d::{ProcessGroup, ReduceOp, Work};
use tch::Tensor;

use super::TrainError;

/// What follows a step. All ranks do it if one of them wishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// A checkpoint is written.
    pub checkpoint: bool,
    /// The world ends after a checkpoint.
    pub leave: bool,
}

/// The wish of a rank on its way to the other ranks. It travels while the step is computed.
pub(super) struct Boundary {
    /// `None` in a world of one rank.
    pending: Option<Work>,
    /// 1 for what a rank wishes, otherwise 0.
    flags: Tensor,
}

impl Boundary {
    /// Begins a step at whose end this rank has this wish. All ranks call it.
    pub(super) fn begin(wish: Agreement, group: &ProcessGroup) -> Result<Self, TrainError> {
        let flags = Tensor::from_slice(&[wish.checkpoint, wish.leave].map(i64::from));
        let pending = match group.world_size() {
            1 => None,
            _ => Some(group.all_reduce_async(&flags, ReduceOp::Max)?),
        };
        Ok(Self { pending, flags })
    }

    /// What all ranks do now.
    pub(super) fn wait(self) -> Result<Agreement, TrainError> {
        if let Some(pending) = self.pending {
            pending.wait()?;
        }
        let flag = |index: i64| Ok::<_, TrainError>(self.flags.f_int64_value(&[index])? != 0);
        Ok(Agreement { checkpoint: flag(0)?, leave: flag(1)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::world::ranks, *};

    #[test]
    fn the_wish_of_one_rank_is_that_of_all() {
        let agreed = |wishes: [Agreement; 3]| {
            ranks::run_ranks(3, |group| {
                Boundary::begin(wishes[group.rank()], &group).unwrap().wait().unwrap()
            })
        };
        let nothing = Agreement::default();
        let checkpoint = Agreement { checkpoint: true, ..nothing };
        let leave = Agreement { leave: true, ..nothing };
        assert_eq!(agreed([nothing; 3]), [nothing; 3]);
        assert_eq!(agreed([nothing, checkpoint, nothing]), [checkpoint; 3]);
        assert_eq!(agreed([checkpoint, nothing, leave]), [Agreement { checkpoint: true, leave: true }; 3]);
    }
}
