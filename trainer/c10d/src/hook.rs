//! Communication hooks: averaging of gradients by the caller instead of the reducer.

use std::{
    ffi::{CString, c_char, c_void},
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::C10dError;

/// A communication hook, which averages gradients instead of a [`Reducer`](crate::Reducer)'s all-reduce. It may continue
/// after the backward pass.
pub trait BucketHook: Send {
    /// Starts to average a bucket. `gradient` is flat and holds this rank's gradients, not divided by the world size. It must
    /// hold the mean over ranks when [`finish`](Self::finish) returns. Buckets have the same order in all processes. Called
    /// on the thread of the backward pass, which it should not block.
    fn start(&mut self, bucket: usize, gradient: Tensor) -> Result<(), C10dError>;

    /// Waits until all buckets are averaged.
    fn finish(&mut self) -> Result<(), C10dError>;
}

/// A hook at a stable address, for the bridge.
pub(crate) struct RegisteredHook(Box<HookState>);

struct HookState {
    hook: Mutex<Box<dyn BucketHook>>,
    /// The last message that was returned to the bridge.
    last_error: Mutex<CString>,
}

impl std::fmt::Debug for RegisteredHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegisteredHook")
    }
}

impl RegisteredHook {
    pub(crate) fn new(hook: Box<dyn BucketHook>) -> Self {
        Self(Box::new(HookState { hook: Mutex::new(hook), last_error: Mutex::default() }))
    }

    pub(crate) fn finish(&self) -> Result<(), C10dError> {
        lock(&self.0.hook).finish()
    }

    /// The argument of [`run_hook`]. Valid while this object is alive, even if it is moved.
    pub(crate) fn state(&self) -> *mut c_void {
        ptr::from_ref::<HookState>(&self.0).cast_mut().cast()
    }
}

/// Ignores poisoning: a panic of the hook has already been reported.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bridge's `datjob_bucket_hook`.
///
/// # Safety
/// `state` comes from [`RegisteredHook::state`] of a hook that is alive; `gradient` is a tensor that the callee owns.
pub(crate) unsafe extern "C" fn run_hook(
    state: *mut c_void,
    bucket: usize,
    gradient: *mut C_tensor,
) -> *const c_char {
    // SAFETY: the caller's contract. The state is only shared.
    let state = unsafe { &*state.cast::<HookState>() };
    // SAFETY: the caller's contract: nobody else frees it.
    let gradient = unsafe { Tensor::from_ptr(gradient) };
    let result = panic::catch_unwind(AssertUnwindSafe(|| lock(&state.hook).start(bucket, gradient)));
    let message = match result {
        Ok(Ok(())) => return ptr::null(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the hook panicked".to_owned(),
    };
    let mut last_error = lock(&state.last_error);
    *last_error = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // The string is not moved or freed before the next call.
    last_error.as_ptr()
}
