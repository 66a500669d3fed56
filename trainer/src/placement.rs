//! The device that a rank computes on: the CPU or a CUDA device. On a CUDA device, copies are
//! asynchronous, so that host and device do not wait for each other within a step.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use datjob_c10d::{C10dError, Cuda, CudaError, CudaEvent, Transfer, libtorch_message};
use tch::{Device, TchError, Tensor};

/// The plugin's file name.
const PLUGIN: &str = "libdatjob_cuda.so";
/// Environment variable with the path of another plugin.
const PLUGIN_VARIABLE: &str = "DATJOB_CUDA_PLUGIN";

/// The device of a rank. A worker sees one CUDA device, so its index is 0.
#[derive(Clone, Copy, Debug)]
pub enum Placement {
    /// The CPU.
    Cpu,
    /// The CUDA device of this process.
    Cuda(Cuda),
}

impl Placement {
    /// Loads the CUDA plugin and disables TF32, so that results stay comparable with those of a CPU. Call it before the
    /// first use of a CUDA tensor.
    pub fn cuda() -> Result<Self, CudaError> {
        let cuda = Cuda::load(&plugin_path())?;
        datjob_c10d::allow_tf32(false);
        Ok(Self::Cuda(cuda))
    }

    /// The libtorch device for tensors.
    pub fn device(self) -> Device {
        match self {
            Self::Cpu => Device::Cpu,
            Self::Cuda(_) => Device::Cuda(0),
        }
    }

    /// The name of the device, for example "NVIDIA H200", or the CPU's model name if the system reports it.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => cpu_model_name(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            Self::Cuda(cuda) => match cuda.device_properties(0) {
                Ok(device) => device.name,
                Err(error) => format!("unknown CUDA device ({error})"),
            },
        }
    }

    /// Starts to copy a host tensor to the device. Do not modify the host tensor afterwards.
    pub fn upload(self, host: Tensor) -> Result<PendingTensor, C10dError> {
        match self {
            Self::Cpu => Ok(PendingTensor(TransferState::Complete(host))),
            Self::Cuda(cuda) => Ok(PendingTensor(TransferState::InFlight(cuda.upload(&host, 0)?))),
        }
    }

    /// Starts to copy a scalar to the host. The copy follows the work queued so far.
    pub fn download_scalar(self, scalar: &Tensor) -> Result<PendingScalar, C10dError> {
        let state = match self {
            Self::Cpu => TransferState::Complete(scalar.detach()),
            Self::Cuda(cuda) => TransferState::InFlight(cuda.download(scalar)?),
        };
        Ok(PendingScalar(PendingTensor(state)))
    }

    /// Peak device memory of this process's tensors, in bytes; `None` on a CPU.
    pub fn peak_memory(self) -> Result<Option<u64>, C10dError> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(cuda) => Ok(Some(cuda.memory(0)?.peak_allocated)),
        }
    }

    /// Records an event after the work queued so far.
    pub fn record_event(self) -> Result<DeviceEvent, C10dError> {
        match self {
            Self::Cpu => Ok(DeviceEvent::Host(Instant::now())),
            Self::Cuda(cuda) => Ok(DeviceEvent::Cuda(cuda.record_event(0)?)),
        }
    }
}

/// A tensor that is being copied.
#[derive(Debug)]
pub struct PendingTensor(TransferState);

#[derive(Debug)]
enum TransferState {
    Complete(Tensor),
    InFlight(Transfer),
}

impl PendingTensor {
    /// The copy. Later work on the device waits for it; this thread does not.
    pub fn into_tensor(self) -> Result<Tensor, C10dError> {
        match self.0 {
            TransferState::Complete(tensor) => Ok(tensor),
            TransferState::InFlight(transfer) => transfer.take(),
        }
    }
}

/// A scalar that is being copied to the host.
#[derive(Debug)]
pub struct PendingScalar(PendingTensor);

/// Why a scalar could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadScalarError {
    /// The copy failed, or the work before it.
    #[error(transparent)]
    Copy(#[from] C10dError),
    /// The tensor is not a scalar.
    #[error("{}", libtorch_message(.0))]
    Tensor(#[from] TchError),
}

impl PendingScalar {
    /// Waits for the copy and returns the value.
    pub fn wait(self) -> Result<f64, ReadScalarError> {
        Ok(self.0.into_tensor()?.f_double_value(&[])?)
    }
}

/// A point between queued operations, for time measurements. On a CUDA device like `torch.cuda.Event`.
#[derive(Debug)]
pub enum DeviceEvent {
    /// Time of the host: on a CPU, an operation is complete when its call returns.
    Host(Instant),
    /// An event in the queue of the CUDA device.
    Cuda(CudaEvent),
}

impl DeviceEvent {
    /// Waits for `end` and returns the time between this event and `end`.
    pub fn elapsed_time(&self, end: &Self) -> Result<Duration, C10dError> {
        match (self, end) {
            (Self::Host(start), Self::Host(end)) => Ok(end.saturating_duration_since(*start)),
            (Self::Cuda(start), Self::Cuda(end)) => start.elapsed_until(end),
            // The device of a rank does not change.
            _ => Ok(Duration::ZERO),
        }
    }
}

/// The model name in the text of `/proc/cpuinfo`; the architecture if the text has no model name.
fn cpu_model_name(cpuinfo: &str) -> String {
    let name = |line: &str| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(name).unwrap_or_else(|| env::consts::ARCH.to_owned())
}

/// Path of the CUDA plugin. The image has it next to libtorch; the environment variable selects a plugin built from source.
fn plugin_path() -> PathBuf {
    if let Some(path) = env::var_os(PLUGIN_VARIABLE) {
        return path.into();
    }
    let program = env::current_exe().ok();
    let prefix = program.as_deref().and_then(|program| program.parent()?.parent());
    prefix.map_or_else(|| PLUGIN.into(), |prefix| prefix.join("lib").join(PLUGIN))
}

/// The value of `CUDA_VISIBLE_DEVICES` for the worker that uses the pod's GPU number `gpu`. It is an entry of the pod's own
/// list, if set; no device if that list is too short. CUDA opens a MIG device only by its UUID, which the NVIDIA runtime lists in `NVIDIA_VISIBLE_DEVICES`.
/// Otherwise it is the number.
pub fn visible_device(gpu: u32, cuda_visible: Option<&str>, nvidia_visible: Option<&str>) -> String {
    let entry = |list: &str| list.split(',').map(str::trim).nth(gpu as usize).map(str::to_owned);
    let uuids = nvidia_visible.filter(|list| {
        list.split(',').all(|uuid| uuid.trim().starts_with("MIG-") || uuid.trim().starts_with("GPU-"))
    });
    match cuda_visible.filter(|list| !list.is_empty()) {
        // A GPU that the list leaves out may belong to somebody else.
        Some(list) => entry(list).unwrap_or_default(),
        None => uuids.and_then(entry).unwrap_or_else(|| gpu.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn each_worker_sees_the_device_of_its_local_rank() {
        assert_eq!(visible_device(1, None, None), "1");
        assert_eq!(visible_device(1, Some("4,5,6"), Some("all")), "5");
        assert_eq!(visible_device(0, Some(""), Some("all")), "0");
        assert_eq!(visible_device(1, Some("3"), Some("all")), "", "GPU 1 is not in the list");
        assert_eq!(visible_device(1, None, Some("GPU-a,GPU-b")), "GPU-b");
        assert_eq!(visible_device(0, None, Some("MIG-c")), "MIG-c");
        // Fewer GPUs than requested: CUDA reports it when the worker opens the device.
        assert_eq!(visible_device(2, None, Some("GPU-a,GPU-b")), "2");
        assert_eq!(visible_device(0, None, Some("void")), "0");
    }

    #[test]
    fn reads_the_cpu_model_name_from_cpuinfo() {
        assert_eq!(
            cpu_model_name("processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\nflags : x\n"),
            "A CPU @ 2.0GHz"
        );
        assert_eq!(cpu_model_name(""), env::consts::ARCH);
    }

    #[test]
    fn does_not_copy_tensors_on_a_cpu() {
        let host = Tensor::from_slice(&[1.0_f32, 2.0]);
        let uploaded = Placement::Cpu.upload(host.shallow_clone()).unwrap().into_tensor().unwrap();
        assert_eq!(uploaded.data_ptr(), host.data_ptr());
        let loss = host.sum(Kind::Float);
        assert_eq!(Placement::Cpu.download_scalar(&loss).unwrap().wait().unwrap().to_string(), "3");
    }

    #[test]
    fn elapsed_time_is_never_negative() {
        let start = Placement::Cpu.record_event().unwrap();
        let end = Placement::Cpu.record_event().unwrap();
        assert!(start.elapsed_time(&end).unwrap() < Duration::from_mins(1));
        assert_eq!(end.elapsed_time(&start).unwrap(), Duration::ZERO);
    }
}
