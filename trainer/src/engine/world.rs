//! Joining the world of a generation.

use std::time::Duration;

use datjob_c10d::{
    C10dError, CudaBackend, CudaError, GlooDevice, GlooOptions, ProcessGroup, Store, TcpStore,
};

use super::exchange;
use crate::{
    placement::Placement,
    worker::assignment::{Accelerator, Assignment},
};

/// How long forming a group may take: the pods are there, and their workers start at the same time.
const FORMING: Duration = Duration::from_mins(2);

/// How long a collective may wait for a rank. A rank that is gone is noticed at once, by its connection or by the
/// rendezvous; this is for one that hangs.
const COLLECTIVE: Duration = Duration::from_mins(30);

/// The same after an evaluation: ranks differ by up to one batch with all its attacks, which for AutoAttack on a large
/// network without a GPU is hours.
const EVALUATION: Duration = Duration::from_hours(48);

/// Where this rank computes.
pub(super) fn placement(assignment: &Assignment) -> Result<Placement, CudaError> {
    match assignment.accelerator {
        Accelerator::None => Ok(Placement::Cpu),
        Accelerator::Cuda { .. } => Placement::cuda(),
    }
}

/// The groups of a generation.
pub(super) struct World {
    /// For training.
    pub group: ProcessGroup,
    /// For the counts of evaluations, on the CPU.
    pub evaluation: ProcessGroup,
    /// For gradients, where a hook averages them.
    pub gradients: Option<ProcessGroup>,
}

/// Forms the process groups of the assignment's generation.
pub(super) fn join(assignment: &Assignment, placement: Placement) -> Result<World, C10dError> {
    let Assignment { generation, rank, world_size, store_host, store_port, address, .. } = assignment;
    let store = TcpStore::connect(store_host, *store_port, FORMING)?;
    let member = (*rank as usize, *world_size as usize);
    let options =
        |name: &str| GlooOptions { device: GlooDevice::Hostname(address.clone()), name: name.to_owned() };
    let world = store.prefix(&format!("generation-{generation}"))?;
    let form = |store: &Store, name: &str| match (assignment.accelerator, placement) {
        (Accelerator::Cuda { nccl }, Placement::Cuda(cuda)) => {
            let backend = if nccl { CudaBackend::Nccl } else { CudaBackend::Gloo };
            ProcessGroup::with_cuda(cuda, backend, store, member, COLLECTIVE, &options(name))
        }
        _ => ProcessGroup::gloo(store, member.0, member.1, COLLECTIVE, &options(name)),
    };
    let group = form(&world, "world")?;
    let counts = store.prefix(&format!("evaluation-{generation}"))?;
    let evaluation = ProcessGroup::gloo(&counts, member.0, member.1, EVALUATION, &options("evaluation"))?;
    let gradients = if exchange::is_hooked(&assignment.training) {
        Some(form(&store.prefix(&format!("gradients-{generation}"))?, "gradients")?)
    } else {
        None
    };
    Ok(World { group, evaluation, gradients })
}
