//! Averaging of gradients by somebody else than the reducer.

use std::{
    ffi::{CString, c_char, c_void},
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::C10dError;

/// What averages gradients in the place of a [`Reducer`](crate::Reducer)'s own all-reduce, while the backward pass and
/// whatever comes after it go on.
pub trait BucketHook: Send {
    /// Begins to average a bucket: `gradient` is flat, holds this rank's gradients (not yet divided by the world size),
    /// and is to hold the mean over ranks when [`finish`](Self::finish) returns. Buckets come in the same order in all
    /// processes. Called on the thread of the backward pass, which it should not keep waiting.
    fn begin(&mut self, bucket: usize, gradient: Tensor) -> Result<(), C10dError>;

    /// Waits until all buckets hold means.
    fn finish(&mut self) -> Result<(), C10dError>;
}

/// A hook where the bridge can reach it.
pub(crate) struct Hook(Box<State>);

struct State {
    hook: Mutex<Box<dyn BucketHook>>,
    /// The message that the bridge was given last.
    problem: Mutex<CString>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    pub(crate) fn new(hook: Box<dyn BucketHook>) -> Self {
        Self(Box::new(State { hook: Mutex::new(hook), problem: Mutex::default() }))
    }

    pub(crate) fn finish(&self) -> Result<(), C10dError> {
        lock(&self.0.hook).finish()
    }

    /// What [`call`] takes: valid as long as this object lives, wherever it is moved.
    pub(crate) fn state(&self) -> *mut c_void {
        ptr::from_ref::<State>(&self.0).cast_mut().cast()
    }
}

/// A hook that panicked has said so already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bridge's `datjob_bucket_hook`.
///
/// # Safety
/// `state` comes from [`Hook::state`] of a hook that is alive; `gradient` is a tensor that the callee owns.
pub(crate) unsafe extern "C" fn call(
    state: *mut c_void,
    bucket: usize,
    gradient: *mut C_tensor,
) -> *const c_char {
    // SAFETY: the caller's promise. The state is only ever shared.
    let state = unsafe { &*state.cast::<State>() };
    // SAFETY: the caller's promise: nobody else frees it.
    let gradient = unsafe { Tensor::from_ptr(gradient) };
    let begun = panic::catch_unwind(AssertUnwindSafe(|| lock(&state.hook).begin(bucket, gradient)));
    let message = match begun {
        Ok(Ok(())) => return ptr::null(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the hook panicked".to_owned(),
    };
    let mut problem = lock(&state.problem);
    *problem = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // Its memory stays where it is until the next call replaces it.
    problem.as_ptr()
}
