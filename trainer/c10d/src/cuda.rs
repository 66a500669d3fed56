//! What needs a GPU: loading libtorch_cuda and the plugin (`plugin/`), devices, their memory, and copies that run beside
//! the computation. Without a GPU all of it is one clear error, and everything else of this crate works.

use std::{
    ffi::{CStr, c_int},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    time::Duration,
};

use tch::Tensor;
use thiserror::Error;

use crate::{
    error::C10dError,
    ffi::{self, c_string, check, last_error},
};

/// Why this process cannot use a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CudaError {
    /// The driver's library is not there.
    #[error(
        "cannot load the NVIDIA driver ({0}); in a pod, request a GPU in spec.pod.resources and set \
         spec.pod.runtimeClassName to the NVIDIA runtime class, unless it is the node's default"
    )]
    NoDriver(String),
    /// libtorch's CUDA part is not there, or lacks something.
    #[error("cannot load libtorch's CUDA libraries ({0}); use the CUDA image instead of the CPU image")]
    NoLibraries(String),
    /// The plugin is not there, or lacks something.
    #[error(
        "cannot load the CUDA plugin {path} ({message}); use the CUDA image, or set DATJOB_CUDA_PLUGIN to the plugin's path"
    )]
    NoPlugin {
        /// Where it was looked for.
        path: PathBuf,
        /// The loader's words.
        message: String,
    },
    /// The plugin is of another build.
    #[error(
        "the CUDA plugin {path} is not from this trainer's release ({message}); use both from the same image"
    )]
    OtherPlugin {
        /// Where it was found.
        path: PathBuf,
        /// What is different.
        message: String,
    },
    /// The driver cannot run this CUDA.
    #[error("the NVIDIA driver of this node is too old for CUDA 13.0 ({0}); install driver 580 or newer")]
    DriverTooOld(String),
    /// The driver gives no device.
    #[error(
        "no usable CUDA device ({0}); check that the container requests a GPU and that the device is healthy"
    )]
    NoDevice(String),
}

/// The CUDA part of libtorch, loaded, with at least one device. Devices are numbered from 0 as CUDA does in this process
/// (`CUDA_VISIBLE_DEVICES`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuda {
    devices: usize,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// As in "NVIDIA H200".
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Its memory in bytes.
    pub total_bytes: u64,
    /// The CUDA version that the driver knows, as in "13.0".
    pub driver_version: String,
    /// The CUDA version that runs, as in "13.0".
    pub runtime_version: String,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// Held by this process's tensors.
    pub allocated: u64,
    /// The most that this process's tensors have held.
    pub peak_allocated: u64,
    /// Taken from the device by this process's allocator.
    pub reserved: u64,
    /// Free on the device.
    pub free: u64,
    /// The device's.
    pub total: u64,
}

impl Cuda {
    /// Loads libtorch_cuda and the plugin; cheap when they are. Call it before this process uses a CUDA tensor: libtorch
    /// looks for its CUDA part once.
    pub fn load(plugin: &Path) -> Result<Self, CudaError> {
        let path = plugin.to_owned();
        let Ok(name) = c_string(&plugin.to_string_lossy()) else {
            return Err(CudaError::NoPlugin { path, message: "the path contains a NUL byte".to_owned() });
        };
        let mut devices = 0;
        // SAFETY: the string lives through the call, and the last argument is a place for the result.
        let status = unsafe { ffi::datjob_cuda_load(name.as_ptr(), &raw mut devices) };
        let message = || last_error().lines().next().unwrap_or_default().to_owned();
        match status {
            ffi::CUDA_READY => Ok(Self { devices: usize::try_from(devices).unwrap_or_default() }),
            ffi::CUDA_NO_DRIVER => Err(CudaError::NoDriver(message())),
            ffi::CUDA_NO_LIBRARIES => Err(CudaError::NoLibraries(message())),
            ffi::CUDA_NO_PLUGIN => Err(CudaError::NoPlugin { path, message: message() }),
            ffi::CUDA_OTHER_PLUGIN => Err(CudaError::OtherPlugin { path, message: message() }),
            ffi::CUDA_DRIVER_TOO_OLD => Err(CudaError::DriverTooOld(message())),
            _ => Err(CudaError::NoDevice(message())),
        }
    }

    /// How many devices this process sees; at least 1.
    pub fn devices(self) -> usize {
        self.devices
    }

    /// What a device is.
    pub fn describe(self, device: usize) -> Result<CudaDevice, C10dError> {
        const OPERATION: &str = "reading the properties of a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut out = ffi::CudaDevice::default();
        // SAFETY: the last argument is a place for the result.
        check(unsafe { ffi::datjob_cuda_describe(device, &raw mut out) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        // SAFETY: the bridge ends the name with NUL inside the array.
        let name = unsafe { CStr::from_ptr(out.name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(CudaDevice {
            name,
            capability: (unsigned(out.capability_major), unsigned(out.capability_minor)),
            total_bytes: bytes(out.total_bytes),
            driver_version: version(out.driver_version),
            runtime_version: version(out.runtime_version),
        })
    }

    /// A device's memory as it stands now.
    pub fn memory(self, device: usize) -> Result<CudaMemory, C10dError> {
        const OPERATION: &str = "reading the memory usage of a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut out = ffi::CudaMemory::default();
        // SAFETY: the last argument is a place for the result.
        check(unsafe { ffi::datjob_cuda_memory_of(device, &raw mut out) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        Ok(CudaMemory {
            allocated: bytes(out.allocated),
            peak_allocated: bytes(out.peak_allocated),
            reserved: bytes(out.reserved),
            free: bytes(out.free),
            total: bytes(out.total),
        })
    }

    /// Waits until a device has done all that it was asked for; errors of that work come out here.
    pub fn synchronize(self, device: usize) -> Result<(), C10dError> {
        const OPERATION: &str = "waiting for a CUDA device";
        let device = self.index(OPERATION, device)?;
        // SAFETY: the call takes a number.
        check(unsafe { ffi::datjob_cuda_synchronize(device) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))
    }

    /// Begins to copy a host tensor to a device, beside the computation that runs there. Pinned memory is read when the
    /// copy runs, so it must not be written to before [`Transfer::take`] and the work after it.
    pub fn upload(self, host: &Tensor, device: usize) -> Result<Transfer, C10dError> {
        const OPERATION: &str = "copying to a CUDA device";
        let device = self.index(OPERATION, device)?;
        if !host.defined() || host.device() != tch::Device::Cpu {
            return Err(C10dError::invalid(OPERATION, None, "the tensor is not in host memory"));
        }
        // SAFETY: the tensor lives through the call, which takes its own reference to its memory.
        Transfer::start(OPERATION, |out| unsafe { ffi::datjob_copy_to_device(host.as_ptr(), device, out) })
    }

    /// Begins to copy a device tensor, as the work asked for so far leaves it, to host memory.
    pub fn download(self, tensor: &Tensor) -> Result<Transfer, C10dError> {
        const OPERATION: &str = "copying from a CUDA device";
        if !tensor.defined() || !tensor.device().is_cuda() {
            return Err(C10dError::invalid(OPERATION, None, "the tensor is not on a CUDA device"));
        }
        // SAFETY: the tensor lives through the call, which takes its own reference to its memory.
        Transfer::start(OPERATION, |out| unsafe { ffi::datjob_copy_to_host(tensor.as_ptr(), out) })
    }

    /// Where the work of a device stands now: what was asked for so far comes before it.
    pub fn mark(self, device: usize) -> Result<Mark, C10dError> {
        const OPERATION: &str = "recording an event on a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the last argument is a place for the result.
        check(unsafe { ffi::datjob_mark_new(device, &raw mut handle) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        Ok(Mark(NonNull::new(handle).expect("the bridge makes a mark or fails")))
    }

    fn index(self, operation: &str, device: usize) -> Result<c_int, C10dError> {
        if device >= self.devices {
            let message = format!(
                "invalid device {device}: must be less than the number of devices ({})",
                self.devices
            );
            return Err(C10dError::invalid(operation, None, message));
        }
        Ok(c_int::try_from(device).expect("the number of devices came as one"))
    }
}

/// A copy between host and device under way.
#[derive(Debug)]
#[must_use = "the copy is there only after take()"]
pub struct Transfer {
    handle: NonNull<ffi::Copy>,
    operation: &'static str,
}

// SAFETY: a handle holds a tensor, counted atomically, and a CUDA event, which belongs to no thread.
unsafe impl Send for Transfer {}

impl Transfer {
    fn start(
        operation: &'static str,
        start: impl FnOnce(*mut *mut ffi::Copy) -> c_int,
    ) -> Result<Self, C10dError> {
        let mut handle = ptr::null_mut();
        check(start(&raw mut handle))
            .map_err(|message| C10dError::from_message(operation, None, &message))?;
        let handle = NonNull::new(handle).expect("the bridge starts a copy or fails");
        Ok(Self { handle, operation })
    }

    /// The copy. On the device this thread goes on at once, and later work there waits for it; in host memory this thread
    /// waits.
    pub fn take(self) -> Result<Tensor, C10dError> {
        let mut out = ptr::null_mut();
        // SAFETY: the handle is alive, and the last argument is a place for the result.
        check(unsafe { ffi::datjob_copy_take(self.handle.as_ptr(), &raw mut out) })
            .map_err(|message| C10dError::from_message(self.operation, None, &message))?;
        // SAFETY: the bridge made this handle to the copy for its caller.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again; libtorch keeps memory that a copy still uses.
        unsafe { ffi::datjob_copy_free(self.handle.as_ptr()) }
    }
}

/// A point in the work of a device.
#[derive(Debug)]
pub struct Mark(NonNull<ffi::Mark>);

// SAFETY: a CUDA event belongs to no thread.
unsafe impl Send for Mark {}

impl Mark {
    /// How long the device took from this mark to `later`; this thread waits until it is there.
    pub fn until(&self, later: &Self) -> Result<Duration, C10dError> {
        let mut seconds = 0.0;
        // SAFETY: both handles are alive, and the last argument is a place for the result.
        check(unsafe { ffi::datjob_mark_seconds_until(self.0.as_ptr(), later.0.as_ptr(), &raw mut seconds) })
            .map_err(|message| C10dError::from_message("measuring time on a CUDA device", None, &message))?;
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again.
        unsafe { ffi::datjob_mark_free(self.0.as_ptr()) }
    }
}

/// Whether matrix products and convolutions of float32 on a CUDA device may round their factors to TF32 (10 bits of
/// mantissa), which tensor cores multiply faster. For the whole process; libtorch allows it for convolutions by default.
pub fn allow_tf32(allowed: bool) {
    // SAFETY: the call takes a number and writes libtorch's settings.
    unsafe { ffi::datjob_allow_tf32(c_int::from(allowed)) }
}

fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

fn unsigned(number: c_int) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// CUDA counts 13.0 as 13000.
fn version(number: c_int) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version(13_000), "13.0");
        assert_eq!(version(12_080), "12.8");
    }

    /// On a machine with a GPU and its libraries the plugin at this path is what is missing; on any other, more is.
    #[test]
    fn what_is_missing_is_said_in_a_sentence_and_gloo_goes_on() {
        let error = Cuda::load(Path::new("/nowhere/libdatjob_cuda.so")).unwrap_err();
        let sentence = error.to_string();
        match error {
            CudaError::NoDriver(message) => assert!(message.contains("libcuda"), "{sentence}"),
            CudaError::NoLibraries(message) => assert!(message.contains("libtorch_cuda"), "{sentence}"),
            CudaError::NoPlugin { .. } => {
                assert!(sentence.contains("/nowhere/libdatjob_cuda.so"), "{sentence}")
            }
            other => panic!("{other}"),
        }
        let sum = Tensor::ones([2], (Kind::Float, tch::Device::Cpu)).sum(Kind::Float);
        assert_eq!(sum.double_value(&[]).to_string(), "2");
    }

    #[test]
    fn copies_refuse_tensors_of_the_wrong_side() {
        let cuda = Cuda { devices: 1 };
        let host = Tensor::ones([2], (Kind::Float, tch::Device::Cpu));
        let error = cuda.download(&host).unwrap_err();
        assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        let error = cuda.upload(&host, 1).unwrap_err();
        assert!(error.to_string().contains("invalid device 1"), "{error}");
        // The bridge itself refuses what needs a plugin that is not loaded.
        let error = cuda.upload(&host, 0).unwrap_err();
        assert!(error.to_string().contains("not loaded"), "{error}");
    }

    #[test]
    fn tf32_can_be_forbidden_without_a_gpu() {
        allow_tf32(true);
        allow_tf32(false);
    }
}
