//! The assignment of a worker: its rank, its share of the cores and its GPU.

use std::path::PathBuf;

use datjob_api::Training;

use super::Config;
use crate::{
    placement::visible_device,
    rendezvous::World,
    worker_protocol::{Accelerator, Assignment},
};

/// The assignment of a worker of this pod in `world`.
pub(super) fn assignment(config: &Config, training: &Training, world: &World, local_rank: u32) -> Assignment {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    Assignment {
        job_uid: config.job_uid.clone(),
        attempt: config.attempt,
        training: training.clone(),
        data: config.data_directory(training),
        files: config.files(training),
        checkpoints: config.job_directory(),
        checkpoints_below_volume: PathBuf::from(&config.job_uid),
        generation: world.generation,
        rank: config.pod_index * config.workers + local_rank,
        world_size: config.replicas * config.workers,
        store_host: config.rendezvous_host.clone(),
        store_port: world.store_port,
        address: config.address.clone(),
        threads: threads(std::env::var("OMP_NUM_THREADS").ok().as_deref(), cores, config.workers),
        accelerator: match config.gpus {
            0 => Accelerator::None,
            // Asking for NCCL where it cannot be was refused before.
            gpus => Accelerator::Cuda {
                nccl: training.communication.backend.uses_nccl(config.workers, gpus).unwrap_or(false),
            },
        },
    }
}

/// Number of threads of a worker: the customary variable, or a share of the cores.
fn threads(omp_num_threads: Option<&str>, cores: u32, workers: u32) -> u32 {
    let chosen = omp_num_threads.and_then(|number| number.trim().parse().ok()).filter(|number| *number > 0);
    chosen.unwrap_or_else(|| (cores / workers).max(1))
}

/// The environment variable that shows a worker its GPU and hides the others.
pub(super) fn device_variable(config: &Config, local_rank: u32) -> Option<(&'static str, String)> {
    let gpu = local_rank.checked_rem(config.gpus)?;
    let list = |name| std::env::var(name).ok();
    let (cuda, nvidia) = (list("CUDA_VISIBLE_DEVICES"), list("NVIDIA_VISIBLE_DEVICES"));
    Some(("CUDA_VISIBLE_DEVICES", visible_device(gpu, cuda.as_deref(), nvidia.as_deref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_sets_the_threads_of_a_worker() {
        assert_eq!([threads(None, 16, 4), threads(None, 2, 4)], [4, 1]);
        assert_eq!([threads(Some("3"), 16, 4), threads(Some(" 8 "), 2, 4)], [3, 8]);
        for invalid in ["", "0", "-1", "many"] {
            assert_eq!(threads(Some(invalid), 16, 4), 4, "{invalid}");
        }
    }
}
