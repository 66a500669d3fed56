//! Collectives under way.

use std::ptr::NonNull;

use crate::{
    error::{C10dError, Member},
    ffi::{self, check},
};

/// A collective under way, which gives a `T` when it has ended.
///
/// The tensors that it works on must be neither read nor written until [`wait`](Self::wait) has returned: their
/// values are in between. Dropping a work does not stop it: it goes on in the background, its outcome is lost, and
/// other processes still expect this one's part in it. libtorch keeps the tensors' memory until then.
#[must_use = "results are there, and errors are seen, only after wait()"]
#[derive(Debug)]
pub struct Work<T = ()> {
    handle: Handle,
    output: T,
    operation: &'static str,
    member: Member,
}

/// One reference to a work of libtorch.
#[derive(Debug)]
struct Handle(NonNull<ffi::Work>);

// SAFETY: a handle is a reference, counted atomically, to a work that belongs to no thread and locks its own state.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again. An unfinished work is also held by the
        // backend, and holds the tensors that it reads and writes: no memory is freed under the backend's threads.
        // (Nor is it moved by growing: `forbid_resize` sees to that.)
        unsafe { ffi::datjob_work_free(self.0.as_ptr()) }
    }
}

impl Work {
    /// Takes over what a function of the bridge made.
    pub(crate) fn new(handle: NonNull<ffi::Work>, operation: &'static str, member: Member) -> Self {
        Self { handle: Handle(handle), output: (), operation, member }
    }

    /// The same work, giving `output` when it has ended.
    pub(crate) fn with_output<T>(self, output: T) -> Work<T> {
        Work { handle: self.handle, output, operation: self.operation, member: self.member }
    }
}

impl<T> Work<T> {
    /// Blocks until the collective has ended in this process, for at most the group's timeout.
    ///
    /// Success here says nothing about the others: one that lost a connection a moment later may see an error.
    pub fn wait(self) -> Result<T, C10dError> {
        // SAFETY: the handle is alive.
        let ended = check(unsafe { ffi::datjob_work_wait(self.handle.0.as_ptr()) });
        ended.map_err(|message| self.error(&message))?;
        Ok(self.output)
    }

    /// Whether the collective has ended, well or not, so that [`wait`](Self::wait) returns at once.
    pub fn is_completed(&self) -> Result<bool, C10dError> {
        let mut completed = 0;
        // SAFETY: the handle is alive, and the second argument is a place for the result.
        let known =
            check(unsafe { ffi::datjob_work_is_completed(self.handle.0.as_ptr(), &raw mut completed) });
        known.map_err(|message| self.error(&message))?;
        Ok(completed != 0)
    }

    fn error(&self, message: &str) -> C10dError {
        C10dError::from_message(self.operation, Some(self.member), message)
    }
}
