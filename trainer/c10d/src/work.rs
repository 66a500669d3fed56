//! Running collectives.

use std::ptr::NonNull;

use crate::{
    error::{C10dError, Member},
    ffi::{self, check},
    waiting::Waiting,
};

/// A running collective, which returns a `T` when it completes.
///
/// Do not read or write its tensors before [`wait`](Self::wait) returns: their values are undefined. Dropping a work does
/// not cancel the collective. It continues in the background, and its result is lost. libtorch keeps the tensors' memory
/// until it completes.
#[must_use = "results and errors are available only after wait()"]
#[derive(Debug)]
pub struct Work<T = ()> {
    handle: Handle,
    output: T,
    operation: &'static str,
    member: Member,
}

/// A reference to a work of libtorch.
#[derive(Debug)]
struct Handle(NonNull<ffi::Work>);

// SAFETY: a handle is a reference, counted atomically, to a work that is not bound to a thread and locks its state.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this object owns the handle, which is not used again. The backend also holds a running
        // work, which holds the tensors that it reads and writes: no memory is freed that the backend's threads use.
        // (`forbid_resize` ensures that it is not moved either.)
        unsafe { ffi::datjob_work_free(self.0.as_ptr()) }
    }
}

impl Work {
    /// Takes ownership of a handle from the bridge.
    pub(crate) fn new(handle: NonNull<ffi::Work>, operation: &'static str, member: Member) -> Self {
        Self { handle: Handle(handle), output: (), operation, member }
    }

    /// The same work, which returns `output` when it completes.
    pub(crate) fn with_output<T>(self, output: T) -> Work<T> {
        Work { handle: self.handle, output, operation: self.operation, member: self.member }
    }
}

impl<T> Work<T> {
    /// Blocks until the collective completes in this process, for at most the group's timeout.
    ///
    /// Success here does not imply success in other processes: a peer may lose a connection later and get an error.
    pub fn wait(self) -> Result<T, C10dError> {
        let _waiting = Waiting::begin(self.operation);
        // SAFETY: the handle is alive.
        let result = check(unsafe { ffi::datjob_work_wait(self.handle.0.as_ptr()) });
        result.map_err(|message| self.error(&message))?;
        Ok(self.output)
    }

    /// Whether the collective has succeeded or failed, so that [`wait`](Self::wait) returns immediately.
    pub fn is_completed(&self) -> Result<bool, C10dError> {
        let mut completed = 0;
        // SAFETY: the handle is alive, and the second argument points to space for the result.
        let result =
            check(unsafe { ffi::datjob_work_is_completed(self.handle.0.as_ptr(), &raw mut completed) });
        result.map_err(|message| self.error(&message))?;
        Ok(completed != 0)
    }

    fn error(&self, message: &str) -> C10dError {
        C10dError::from_message(self.operation, Some(self.member), message)
    }
}
