//! CUDA support: loading libtorch_cuda and the plugin (`plugin/`), devices, their memory, events, and copies that overlap
//! with computation. Without a GPU, loading returns an error, and the rest of this crate works.

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
    waiting::Waiting,
};

/// Why this process cannot use a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CudaError {
    /// The driver's library is missing.
    #[error(
        "cannot load the NVIDIA driver ({0}); in a pod, request a GPU in spec.pod.resources and set \
         spec.pod.runtimeClassName to the NVIDIA runtime class, unless it is the node's default"
    )]
    NoDriver(String),
    /// libtorch's CUDA libraries are missing or incomplete.
    #[error("cannot load libtorch's CUDA libraries ({0}); use the CUDA image instead of the CPU image")]
    NoLibraries(String),
    /// The plugin is missing or cannot be loaded.
    #[error(
        "cannot load the CUDA plugin {path} ({message}); use the CUDA image, or set DATJOB_CUDA_PLUGIN to the plugin's path"
    )]
    NoPlugin {
        /// Path of the plugin.
        path: PathBuf,
        /// Message of the dynamic loader.
        message: String,
    },
    /// The plugin is from another release.
    #[error(
        "the CUDA plugin {path} is not from this trainer's release ({message}); use both from the same image"
    )]
    PluginMismatch {
        /// Path of the plugin.
        path: PathBuf,
        /// The difference.
        message: String,
    },
    /// The driver does not support this version of CUDA.
    #[error("the NVIDIA driver of this node is too old for CUDA 13.0 ({0}); install driver 580 or newer")]
    DriverTooOld(String),
    /// The driver reports no device.
    #[error(
        "no usable CUDA device ({0}); check that the container requests a GPU and that the device is healthy"
    )]
    NoDevice(String),
}

/// Proof that libtorch's CUDA libraries are loaded and that there is at least one device. Devices are numbered from 0, as
/// CUDA numbers them in this process (`CUDA_VISIBLE_DEVICES`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuda {
    devices: usize,
}

/// Properties of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDeviceProperties {
    /// For example "NVIDIA H200".
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Its memory in bytes.
    pub total_bytes: u64,
    /// The CUDA version of the driver, for example "13.0".
    pub driver_version: String,
    /// The CUDA version of the runtime, for example "13.0".
    pub runtime_version: String,
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// Allocated by this process's tensors.
    pub allocated: u64,
    /// Peak of `allocated`.
    pub peak_allocated: u64,
    /// Reserved by this process's allocator.
    pub reserved: u64,
    /// Free on the device.
    pub free: u64,
    /// Total memory of the device.
    pub total: u64,
}

impl Cuda {
    /// Loads libtorch_cuda and the plugin; cheap if they are already loaded. Call it before this process uses a CUDA tensor,
    /// because libtorch looks up its CUDA libraries only once.
    pub fn load(plugin: &Path) -> Result<Self, CudaError> {
        let path = plugin.to_owned();
        let Ok(name) = c_string(&plugin.to_string_lossy()) else {
            return Err(CudaError::NoPlugin { path, message: "the path contains a NUL byte".to_owned() });
        };
        let mut devices = 0;
        // SAFETY: the string lives through the call, and the last argument points to space for the result.
        let status = unsafe { ffi::datjob_cuda_load(name.as_ptr(), &raw mut devices) };
        let message = || last_error().lines().next().unwrap_or_default().to_owned();
        match status {
            ffi::CUDA_READY => Ok(Self { devices: usize::try_from(devices).unwrap_or_default() }),
            ffi::CUDA_NO_DRIVER => Err(CudaError::NoDriver(message())),
            ffi::CUDA_NO_LIBRARIES => Err(CudaError::NoLibraries(message())),
            ffi::CUDA_NO_PLUGIN => Err(CudaError::NoPlugin { path, message: message() }),
            ffi::CUDA_PLUGIN_MISMATCH => Err(CudaError::PluginMismatch { path, message: message() }),
            ffi::CUDA_DRIVER_TOO_OLD => Err(CudaError::DriverTooOld(message())),
            _ => Err(CudaError::NoDevice(message())),
        }
    }

    /// Number of devices that are visible to this process; at least 1.
    pub fn devices(self) -> usize {
        self.devices
    }

    /// Properties of a device.
    pub fn device_properties(self, device: usize) -> Result<CudaDeviceProperties, C10dError> {
        const OPERATION: &str = "reading the properties of a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut out = ffi::CudaDeviceProperties::default();
        // SAFETY: the last argument points to space for the result.
        check(unsafe { ffi::datjob_cuda_device_properties(device, &raw mut out) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        // SAFETY: the bridge ends the name with NUL inside the array.
        let name = unsafe { CStr::from_ptr(out.name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(CudaDeviceProperties {
            name,
            capability: (to_u32(out.capability_major), to_u32(out.capability_minor)),
            total_bytes: bytes(out.total_bytes),
            driver_version: version(out.driver_version),
            runtime_version: version(out.runtime_version),
        })
    }

    /// Current memory usage of a device.
    pub fn memory(self, device: usize) -> Result<CudaMemory, C10dError> {
        const OPERATION: &str = "reading the memory usage of a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut out = ffi::CudaMemory::default();
        // SAFETY: the last argument points to space for the result.
        check(unsafe { ffi::datjob_cuda_memory_usage(device, &raw mut out) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        Ok(CudaMemory {
            allocated: bytes(out.allocated),
            peak_allocated: bytes(out.peak_allocated),
            reserved: bytes(out.reserved),
            free: bytes(out.free),
            total: bytes(out.total),
        })
    }

    /// Waits until a device has completed all queued work; returns errors of that work.
    pub fn synchronize(self, device: usize) -> Result<(), C10dError> {
        const OPERATION: &str = "waiting for a CUDA device";
        let device = self.index(OPERATION, device)?;
        let _waiting = Waiting::begin(OPERATION);
        // SAFETY: the call takes a number.
        check(unsafe { ffi::datjob_cuda_synchronize(device) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))
    }

    /// Starts to copy a host tensor to a device. The copy overlaps with computation on the device. Pinned memory is read when
    /// the copy runs, so do not write to it before [`Transfer::take`] and the work after it.
    pub fn upload(self, host: &Tensor, device: usize) -> Result<Transfer, C10dError> {
        const OPERATION: &str = "copying to a CUDA device";
        let device = self.index(OPERATION, device)?;
        if !host.defined() || host.device() != tch::Device::Cpu {
            return Err(C10dError::invalid(OPERATION, None, "the tensor is not in host memory"));
        }
        // SAFETY: the tensor lives through the call, which takes its own reference to its memory.
        Transfer::start(OPERATION, |out| unsafe { ffi::datjob_copy_to_device(host.as_ptr(), device, out) })
    }

    /// Starts to copy a device tensor to host memory, after the work that is queued so far.
    pub fn download(self, tensor: &Tensor) -> Result<Transfer, C10dError> {
        const OPERATION: &str = "copying from a CUDA device";
        if !tensor.defined() || !tensor.device().is_cuda() {
            return Err(C10dError::invalid(OPERATION, None, "the tensor is not on a CUDA device"));
        }
        // SAFETY: the tensor lives through the call, which takes its own reference to its memory.
        Transfer::start(OPERATION, |out| unsafe { ffi::datjob_copy_to_host(tensor.as_ptr(), out) })
    }

    /// Records an event on a device, after the work that is queued so far.
    pub fn record_event(self, device: usize) -> Result<CudaEvent, C10dError> {
        const OPERATION: &str = "recording an event on a CUDA device";
        let device = self.index(OPERATION, device)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the last argument points to space for the result.
        check(unsafe { ffi::datjob_event_record(device, &raw mut handle) })
            .map_err(|message| C10dError::from_message(OPERATION, None, &message))?;
        Ok(CudaEvent(NonNull::new(handle).expect("the bridge returns an event or an error")))
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

/// A running copy between host and device.
#[derive(Debug)]
#[must_use = "the copy is available only after take()"]
pub struct Transfer {
    handle: NonNull<ffi::Copy>,
    operation: &'static str,
}

// SAFETY: a handle holds a tensor, counted atomically, and a CUDA event, which is not bound to a thread.
unsafe impl Send for Transfer {}

impl Transfer {
    fn start(
        operation: &'static str,
        start: impl FnOnce(*mut *mut ffi::Copy) -> c_int,
    ) -> Result<Self, C10dError> {
        let mut handle = ptr::null_mut();
        check(start(&raw mut handle))
            .map_err(|message| C10dError::from_message(operation, None, &message))?;
        let handle = NonNull::new(handle).expect("the bridge returns a copy or an error");
        Ok(Self { handle, operation })
    }

    /// Returns the copy. On the device, later work waits for the copy, and this thread does not. In host memory, this thread
    /// waits.
    pub fn take(self) -> Result<Tensor, C10dError> {
        let _waiting = Waiting::begin(self.operation);
        let mut out = ptr::null_mut();
        // SAFETY: the handle is alive, and the last argument points to space for the result.
        check(unsafe { ffi::datjob_copy_take(self.handle.as_ptr(), &raw mut out) })
            .map_err(|message| C10dError::from_message(self.operation, None, &message))?;
        // SAFETY: the caller owns the tensor that the bridge returns.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // SAFETY: this object owns the handle, which is not used again; libtorch keeps memory that a copy still uses.
        unsafe { ffi::datjob_copy_free(self.handle.as_ptr()) }
    }
}

/// An event in the current stream of a device.
#[derive(Debug)]
pub struct CudaEvent(NonNull<ffi::Event>);

// SAFETY: a CUDA event is not bound to a thread.
unsafe impl Send for CudaEvent {}

impl CudaEvent {
    /// The time that the device took from this event to `later`. Blocks until `later` has completed.
    pub fn elapsed_until(&self, later: &Self) -> Result<Duration, C10dError> {
        let _waiting = Waiting::begin("a CUDA event");
        let mut seconds = 0.0;
        // SAFETY: both handles are alive, and the last argument points to space for the result.
        check(unsafe { ffi::datjob_event_elapsed(self.0.as_ptr(), later.0.as_ptr(), &raw mut seconds) })
            .map_err(|message| C10dError::from_message("measuring time on a CUDA device", None, &message))?;
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        // SAFETY: this object owns the handle, which is not used again.
        unsafe { ffi::datjob_event_free(self.0.as_ptr()) }
    }
}

/// Sets whether matrix products and convolutions of float32 on CUDA devices may use TF32 (10 bits of mantissa), which is
/// faster on tensor cores. Applies to the whole process; libtorch allows it for convolutions by default.
pub fn allow_tf32(allowed: bool) {
    // SAFETY: the call takes a number and writes libtorch's settings.
    unsafe { ffi::datjob_allow_tf32(c_int::from(allowed)) }
}

fn bytes(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

fn to_u32(number: c_int) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

/// CUDA encodes 13.0 as 13000.
fn version(number: c_int) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn formats_cuda_versions() {
        assert_eq!(version(13_000), "13.0");
        assert_eq!(version(12_080), "12.8");
    }

    /// On a machine with a GPU and its libraries, only the plugin is missing; on other machines, more is missing.
    #[test]
    fn names_the_missing_library_and_works_without_cuda() {
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
    fn copies_reject_tensors_on_the_wrong_device() {
        let cuda = Cuda { devices: 1 };
        let host = Tensor::ones([2], (Kind::Float, tch::Device::Cpu));
        let error = cuda.download(&host).unwrap_err();
        assert!(matches!(error, C10dError::InvalidArgument(_)), "{error}");
        let error = cuda.upload(&host, 1).unwrap_err();
        assert!(error.to_string().contains("invalid device 1"), "{error}");
        // The bridge rejects calls that need the plugin before it is loaded.
        let error = cuda.upload(&host, 0).unwrap_err();
        assert!(error.to_string().contains("not loaded"), "{error}");
    }

    #[test]
    fn tf32_can_be_disabled_without_a_gpu() {
        allow_tf32(true);
        allow_tf32(false);
    }
}
