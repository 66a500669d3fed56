//! Declarations of `cpp/bridge.h`, which documents the functions and ownership. Change both together.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    time::Duration,
};

use torch_sys::C_tensor;

/// Declares opaque types, which Rust uses only through pointers.
macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque!(Store, Group, Work, Reducer, Copy, Event);

pub(crate) const GLOO_HOSTNAME: c_int = 0;
pub(crate) const GLOO_INTERFACE: c_int = 1;

// `datjob_cuda_status`.
pub(crate) const CUDA_READY: c_int = 0;
pub(crate) const CUDA_NO_DRIVER: c_int = 1;
pub(crate) const CUDA_NO_LIBRARIES: c_int = 2;
pub(crate) const CUDA_NO_PLUGIN: c_int = 3;
pub(crate) const CUDA_PLUGIN_MISMATCH: c_int = 4;
pub(crate) const CUDA_DRIVER_TOO_OLD: c_int = 5;

/// `datjob_cuda_device`.
#[repr(C)]
pub(crate) struct CudaDeviceProperties {
    pub(crate) name: [c_char; 256],
    pub(crate) capability_major: c_int,
    pub(crate) capability_minor: c_int,
    pub(crate) total_bytes: i64,
    pub(crate) driver_version: c_int,
    pub(crate) runtime_version: c_int,
}

impl Default for CudaDeviceProperties {
    fn default() -> Self {
        Self {
            name: [0; 256],
            capability_major: 0,
            capability_minor: 0,
            total_bytes: 0,
            driver_version: 0,
            runtime_version: 0,
        }
    }
}

/// `datjob_cuda_memory`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CudaMemory {
    pub(crate) allocated: i64,
    pub(crate) peak_allocated: i64,
    pub(crate) reserved: i64,
    pub(crate) free: i64,
    pub(crate) total: i64,
}

/// `datjob_reducer_statistics`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Statistics {
    pub(crate) iterations: i64,
    pub(crate) forward_compute_ns: i64,
    pub(crate) backward_compute_ns: i64,
    pub(crate) backward_communication_ns: i64,
    pub(crate) backward_overlap_ns: i64,
    pub(crate) mean_forward_compute_ns: i64,
    pub(crate) mean_backward_compute_ns: i64,
    pub(crate) mean_backward_communication_ns: i64,
    pub(crate) mean_backward_overlap_ns: i64,
}

/// `datjob_bucket_hook`.
pub(crate) type BucketHook =
    unsafe extern "C" fn(state: *mut c_void, bucket: usize, gradient: *mut C_tensor) -> *const c_char;

unsafe extern "C" {
    // guard.cpp
    fn datjob_last_error() -> *const c_char;
    pub(crate) fn datjob_set_log_level(level: c_int);

    pub(crate) fn datjob_interrupt_main_thread(interruption: extern "C" fn(), timeout_ms: i64) -> c_int;

    // store.cpp
    pub(crate) fn datjob_store_host(
        listen_fd: c_int,
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut Store,
    ) -> c_int;
    pub(crate) fn datjob_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut Store,
    ) -> c_int;
    pub(crate) fn datjob_store_prefix(
        store: *const Store,
        prefix: *const c_char,
        out: *mut *mut Store,
    ) -> c_int;
    pub(crate) fn datjob_store_set(
        store: *const Store,
        key: *const c_char,
        value: *const u8,
        length: usize,
    ) -> c_int;
    pub(crate) fn datjob_store_get(
        store: *const Store,
        key: *const c_char,
        out_value: *mut *mut u8,
        out_length: *mut usize,
    ) -> c_int;
    pub(crate) fn datjob_store_add(
        store: *const Store,
        key: *const c_char,
        amount: i64,
        out_sum: *mut i64,
    ) -> c_int;
    pub(crate) fn datjob_store_wait(store: *const Store, key: *const c_char, timeout_ms: i64) -> c_int;
    pub(crate) fn datjob_bytes_free(bytes: *mut u8);
    pub(crate) fn datjob_store_free(store: *mut Store);

    // group.cpp
    pub(crate) fn datjob_group_new(
        store: *const Store,
        rank: c_int,
        world_size: c_int,
        name: *const c_char,
        out: *mut *mut Group,
    ) -> c_int;
    pub(crate) fn datjob_group_attach_gloo(
        group: *mut Group,
        store: *const Store,
        device_kind: c_int,
        device: *const c_char,
        timeout_ms: i64,
        cuda_tensors_too: c_int,
    ) -> c_int;
    pub(crate) fn datjob_group_abort(group: *const Group) -> c_int;
    pub(crate) fn datjob_group_free(group: *mut Group);
    pub(crate) fn datjob_group_all_reduce(
        group: *const Group,
        tensor: *const C_tensor,
        op: u8,
        out: *mut *mut Work,
    ) -> c_int;
    pub(crate) fn datjob_group_broadcast(
        group: *const Group,
        tensor: *const C_tensor,
        root: c_int,
        out: *mut *mut Work,
    ) -> c_int;
    pub(crate) fn datjob_group_all_gather(
        group: *const Group,
        tensor: *const C_tensor,
        out_gathered: *mut *mut C_tensor,
        out: *mut *mut Work,
    ) -> c_int;
    pub(crate) fn datjob_group_all_to_all(
        group: *const Group,
        tensor: *const C_tensor,
        out_received: *mut *mut C_tensor,
        out: *mut *mut Work,
    ) -> c_int;
    pub(crate) fn datjob_group_barrier(group: *const Group, out: *mut *mut Work) -> c_int;
    pub(crate) fn datjob_group_broadcast_coalesced(
        group: *const Group,
        tensors: *const *const C_tensor,
        count: usize,
        buffer_bytes: usize,
        root: c_int,
    ) -> c_int;
    pub(crate) fn datjob_work_wait(work: *const Work) -> c_int;
    pub(crate) fn datjob_work_is_completed(work: *const Work, out_completed: *mut c_int) -> c_int;
    pub(crate) fn datjob_work_free(work: *mut Work);

    // reducer.cpp
    pub(crate) fn datjob_reducer_new(
        parameters: *const *const C_tensor,
        names: *const *const c_char,
        count: usize,
        group: *const Group,
        first_bucket_bytes: i64,
        bucket_cap_bytes: i64,
        gradient_as_bucket_view: c_int,
        out: *mut *mut Reducer,
    ) -> c_int;
    pub(crate) fn datjob_reducer_set_hook(
        reducer: *const Reducer,
        hook: BucketHook,
        state: *mut c_void,
    ) -> c_int;
    pub(crate) fn datjob_reducer_prepare_forward(reducer: *const Reducer) -> c_int;
    pub(crate) fn datjob_reducer_prepare_backward(reducer: *const Reducer) -> c_int;
    pub(crate) fn datjob_reducer_check_finished(reducer: *const Reducer) -> c_int;
    pub(crate) fn datjob_reducer_reset(reducer: *const Reducer) -> c_int;
    pub(crate) fn datjob_reducer_release_group(reducer: *const Reducer) -> c_int;
    pub(crate) fn datjob_reducer_set_group(reducer: *const Reducer, group: *const Group) -> c_int;
    pub(crate) fn datjob_reducer_get_statistics(reducer: *const Reducer, out: *mut Statistics) -> c_int;
    pub(crate) fn datjob_reducer_bucket_sizes(
        reducer: *const Reducer,
        sizes: *mut i64,
        capacity: usize,
        out_count: *mut usize,
    ) -> c_int;
    pub(crate) fn datjob_reducer_free(reducer: *mut Reducer);

    // tensor.cpp
    pub(crate) fn datjob_tensor_contiguous_channels_last(
        tensor: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn datjob_tensor_set_channels_last(tensor: *const C_tensor) -> c_int;
    pub(crate) fn datjob_tensor_forbid_resize(tensor: *const C_tensor) -> c_int;

    // cuda.cpp
    pub(crate) fn datjob_cuda_load(path: *const c_char, out_devices: *mut c_int) -> c_int;
    pub(crate) fn datjob_cuda_device_properties(device: c_int, out: *mut CudaDeviceProperties) -> c_int;
    pub(crate) fn datjob_cuda_memory_usage(device: c_int, out: *mut CudaMemory) -> c_int;
    pub(crate) fn datjob_cuda_synchronize(device: c_int) -> c_int;
    pub(crate) fn datjob_group_attach_nccl(group: *mut Group, store: *const Store, timeout_ms: i64) -> c_int;
    pub(crate) fn datjob_copy_to_device(tensor: *const C_tensor, device: c_int, out: *mut *mut Copy)
    -> c_int;
    pub(crate) fn datjob_copy_to_host(tensor: *const C_tensor, out: *mut *mut Copy) -> c_int;
    pub(crate) fn datjob_copy_take(copy: *const Copy, out: *mut *mut C_tensor) -> c_int;
    pub(crate) fn datjob_copy_free(copy: *mut Copy);
    pub(crate) fn datjob_event_record(device: c_int, out: *mut *mut Event) -> c_int;
    pub(crate) fn datjob_event_elapsed(start: *const Event, end: *const Event, out: *mut f64) -> c_int;
    pub(crate) fn datjob_event_free(event: *mut Event);
    pub(crate) fn datjob_allow_tf32(allowed: c_int);
}

/// Converts the status of a bridge function to a result with this thread's last error message.
pub(crate) fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(last_error())
}

/// This thread's last error message.
pub(crate) fn last_error() -> String {
    // SAFETY: the bridge returns a NUL-terminated string that is valid until this thread's next call; it is copied.
    unsafe { CStr::from_ptr(datjob_last_error()) }.to_string_lossy().into_owned()
}

/// Converts a string for the bridge.
pub(crate) fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a NUL byte"))
}

/// Converts a timeout for the bridge. c10d treats 0 as infinite and adds timeouts to nanosecond clocks, so it is clamped.
pub(crate) fn milliseconds(timeout: Duration) -> i64 {
    const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let milliseconds = timeout.clamp(Duration::from_millis(1), MAX).as_millis();
    i64::try_from(milliseconds).expect("a hundred years fit")
}
