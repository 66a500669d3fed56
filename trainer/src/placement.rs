//! Where a rank computes: in host memory, or on a CUDA device. There, copies run beside the computation, and what the
//! host wants to know is read when it is there, so that neither waits for the other within a step.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use datjob_c10d::{C10dError, Cuda, CudaError, CudaEvent, Transfer};
use tch::{Device, TchError, Tensor};

/// The plugin's file name.
const PLUGIN: &str = "libdatjob_cuda.so";
/// Names another plugin, by its path.
const PLUGIN_VARIABLE: &str = "DATJOB_CUDA_PLUGIN";

/// Where a rank computes. A worker sees one device, so its number is 0.
#[derive(Clone, Copy, Debug)]
pub enum Placement {
    /// In host memory.
    Cpu,
    /// On the CUDA device of this process.
    Cuda(Cuda),
}

impl Placement {
    /// The CUDA device of this process, in float32 without TF32: what is computed stays comparable with the CPU's. Before
    /// the first use of a CUDA tensor.
    pub fn cuda() -> Result<Self, CudaError> {
        let cuda = Cuda::load(&plugin())?;
        datjob_c10d::allow_tf32(false);
        Ok(Self::Cuda(cuda))
    }

    /// The device of tensors.
    pub fn device(self) -> Device {
        match self {
            Self::Cpu => Device::Cpu,
            Self::Cuda(_) => Device::Cuda(0),
        }
    }

    /// What it is, for people: "NVIDIA H200", or the processor's name where the system tells it.
    pub fn name(self) -> String {
        match self {
            Self::Cpu => processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            Self::Cuda(cuda) => match cuda.device_properties(0) {
                Ok(device) => device.name,
                Err(error) => format!("unknown CUDA device ({error})"),
            },
        }
    }

    /// Begins to bring a host tensor here. It must not be written to afterwards.
    pub fn send(self, host: Tensor) -> Result<Sent, C10dError> {
        match self {
            Self::Cpu => Ok(Sent(Way::Here(host))),
            Self::Cuda(cuda) => Ok(Sent(Way::Under(cuda.upload(&host, 0)?))),
        }
    }

    /// Begins to read a scalar, as the work asked for so far leaves it.
    pub fn read(self, scalar: &Tensor) -> Result<Reading, C10dError> {
        match self {
            Self::Cpu => Ok(Reading(Sent(Way::Here(scalar.detach())))),
            Self::Cuda(cuda) => Ok(Reading(Sent(Way::Under(cuda.download(scalar)?)))),
        }
    }

    /// The most memory of the device that this process's tensors have held, in bytes; nothing in host memory.
    pub fn peak_memory(self) -> Result<Option<u64>, C10dError> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(cuda) => Ok(Some(cuda.memory(0)?.peak_allocated)),
        }
    }

    /// Where the work asked for so far ends.
    pub fn moment(self) -> Result<Moment, C10dError> {
        match self {
            Self::Cpu => Ok(Moment::Host(Instant::now())),
            Self::Cuda(cuda) => Ok(Moment::Device(cuda.record_event(0)?)),
        }
    }
}

/// A tensor on its way.
#[derive(Debug)]
pub struct Sent(Way);

#[derive(Debug)]
enum Way {
    Here(Tensor),
    Under(Transfer),
}

impl Sent {
    /// The tensor where it was sent to. Later work there waits for it; this thread does not.
    pub fn take(self) -> Result<Tensor, C10dError> {
        match self.0 {
            Way::Here(tensor) => Ok(tensor),
            Way::Under(transfer) => transfer.take(),
        }
    }
}

/// A scalar that is being read.
#[derive(Debug)]
pub struct Reading(Sent);

/// Why a scalar could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    /// The copy, or the work before it, failed.
    #[error(transparent)]
    Copy(#[from] C10dError),
    /// It is no scalar.
    #[error(transparent)]
    Tensor(#[from] TchError),
}

impl Reading {
    /// Its value; waits for it.
    pub fn value(self) -> Result<f64, ReadingError> {
        Ok(self.0.take()?.f_double_value(&[])?)
    }
}

/// A point in the work.
#[derive(Debug)]
pub enum Moment {
    /// By the host's clock: work is done when the call returns.
    Host(Instant),
    /// In the device's queue.
    Device(CudaEvent),
}

impl Moment {
    /// How long the work took from this moment to `later`; waits for it.
    pub fn until(&self, later: &Self) -> Result<Duration, C10dError> {
        match (self, later) {
            (Self::Host(begin), Self::Host(end)) => Ok(end.saturating_duration_since(*begin)),
            (Self::Device(begin), Self::Device(end)) => begin.elapsed_until(end),
            // A rank does not change its placement.
            _ => Ok(Duration::ZERO),
        }
    }
}

/// The processor's name in the text of `/proc/cpuinfo`, else the architecture.
fn processor(cpuinfo: &str) -> String {
    let name = |line: &str| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(name).unwrap_or_else(|| env::consts::ARCH.to_owned())
}

/// Beside libtorch, where the image has it; the variable names another for those who build it themselves.
fn plugin() -> PathBuf {
    if let Some(path) = env::var_os(PLUGIN_VARIABLE) {
        return path.into();
    }
    let program = env::current_exe().ok();
    let folder = program.as_deref().and_then(|program| program.parent()?.parent());
    folder.map_or_else(|| PLUGIN.into(), |folder| folder.join("lib").join(PLUGIN))
}

/// The device that the worker of a local rank sees, as `CUDA_VISIBLE_DEVICES` names it: an entry of the pod's own list
/// where there is one. CUDA opens a MIG device by its UUID alone, which the NVIDIA runtime tells in
/// `NVIDIA_VISIBLE_DEVICES`; otherwise numbers do.
pub fn visible_device(gpu: u32, cuda_visible: Option<&str>, nvidia_visible: Option<&str>) -> String {
    let entry = |list: &str| list.split(',').map(str::trim).nth(gpu as usize).map(str::to_owned);
    let uuids = nvidia_visible.filter(|list| {
        list.split(',').all(|one| one.trim().starts_with("MIG-") || one.trim().starts_with("GPU-"))
    });
    cuda_visible
        .filter(|list| !list.is_empty())
        .and_then(entry)
        .or_else(|| uuids.and_then(entry))
        .unwrap_or_else(|| gpu.to_string())
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
        assert_eq!(visible_device(1, None, Some("GPU-a,GPU-b")), "GPU-b");
        assert_eq!(visible_device(0, None, Some("MIG-c")), "MIG-c");
        // Fewer than were asked for: CUDA says so when the worker opens it.
        assert_eq!(visible_device(2, None, Some("GPU-a,GPU-b")), "2");
        assert_eq!(visible_device(0, None, Some("void")), "0");
    }

    #[test]
    fn a_processor_has_the_name_that_the_system_gives() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: A CPU @ 2.0GHz\nflags : x\n"), "A CPU @ 2.0GHz");
        assert_eq!(processor(""), env::consts::ARCH);
    }

    #[test]
    fn in_host_memory_nothing_is_copied() {
        let host = Tensor::from_slice(&[1.0_f32, 2.0]);
        let sent = Placement::Cpu.send(host.shallow_clone()).unwrap().take().unwrap();
        assert_eq!(sent.data_ptr(), host.data_ptr());
        let loss = host.sum(Kind::Float);
        assert_eq!(Placement::Cpu.read(&loss).unwrap().value().unwrap().to_string(), "3");
    }

    #[test]
    fn moments_are_in_order() {
        let begin = Placement::Cpu.moment().unwrap();
        let end = Placement::Cpu.moment().unwrap();
        assert!(begin.until(&end).unwrap() < Duration::from_mins(1));
        assert_eq!(end.until(&begin).unwrap(), Duration::ZERO);
    }
}
