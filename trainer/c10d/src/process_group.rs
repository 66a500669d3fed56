//! Process groups and their collectives.

use std::{
    ffi::c_int,
    ptr::{self, NonNull},
    time::Duration,
};

use tch::{TchError, Tensor, no_grad};
use torch_sys::C_tensor;

use crate::{
    cuda::Cuda,
    error::{C10dError, Member},
    ffi::{self, c_string, check, milliseconds},
    store::Store,
    waiting::Waiting,
    work::Work,
};

/// Size of the buffer of [`ProcessGroup::broadcast_coalesced`].
const COALESCED_BUFFER_BYTES: usize = 64 << 20;

/// A reduction over the values of all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl ReduceOp {
    /// The value in `c10d::ReduceOp::RedOpType`.
    fn code(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Product => 2,
            Self::Min => 3,
            Self::Max => 4,
        }
    }
}

/// Selects the address that Gloo listens on and publishes to its peers. They must be able to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlooDevice {
    /// A host name or address of this machine: the IP address of a pod, or `127.0.0.1` on a workstation.
    Hostname(String),
    /// A network interface, for example `eth0`.
    Interface(String),
}

/// The backend for collectives of CUDA tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaBackend {
    /// NCCL: from device to device; each rank needs a separate device. If a collective fails or times out, libtorch's watchdog
    /// aborts the process: its parent must restart it.
    Nccl,
    /// Gloo: through host memory. Several ranks may share a device.
    Gloo,
}

/// Options of a Gloo group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlooOptions {
    /// The address that this process listens on.
    pub device: GlooDevice,
    /// The group's name in libtorch's messages.
    pub name: String,
}

/// A group of processes, each with a rank.
///
/// Every process must call the same collectives in the same order with tensors of the same shapes, strides and kinds.
/// Otherwise results are wrong, a collective times out, or Gloo aborts the process.
///
/// Collectives take `&Tensor` although they write to it. A tch tensor is a handle to shared memory, so `&mut` would not
/// guarantee exclusive access. Collectives bypass autograd.
///
/// A group can be moved to another thread but not shared: its collectives need one order, which includes those that a
/// [`Reducer`](crate::Reducer) starts in a backward pass.
///
/// If a process fails, only the processes that wait for it directly get an error. The failure propagates as each process
/// releases its group, which closes the connections. So after an error drop the group first, also from reducers
/// ([`Reducer::release_process_group`](crate::Reducer::release_process_group)). Dropping the last reference waits for running
/// collectives.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: Handle,
    member: Member,
}

/// A reference to a group.
#[derive(Debug)]
struct Handle(NonNull<ffi::Group>);

// SAFETY: a handle is a reference, counted atomically, to a group that is not bound to a thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this object owns the handle, which is not used again.
        unsafe { ffi::datjob_group_free(self.0.as_ptr()) }
    }
}

impl ProcessGroup {
    /// Creates a group of `world_size` processes over TCP for CPU tensors. Blocks until all have connected, for at most
    /// `timeout`, which is also the timeout of each collective. `store` must not have been used: give each group a separate
    /// [prefix](Store::prefix).
    pub fn gloo(
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        options: &GlooOptions,
    ) -> Result<Self, C10dError> {
        Self::create(store, rank, world_size, timeout, options, None)
    }

    /// [`gloo`](Self::gloo) with support for CUDA tensors through `backend`. NCCL connects at the first collective.
    pub fn with_cuda(
        _cuda: Cuda,
        backend: CudaBackend,
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        options: &GlooOptions,
    ) -> Result<Self, C10dError> {
        let group = Self::create(store, rank, world_size, timeout, options, Some(backend))?;
        if backend == CudaBackend::Nccl {
            let _waiting = Waiting::begin("creating the NCCL group");
            // SAFETY: group and store live through the call; the group is not shared yet.
            let result = check(unsafe {
                ffi::datjob_group_attach_nccl(group.handle.0.as_ptr(), store.as_ptr(), milliseconds(timeout))
            });
            result.map_err(|message| group.error("creating the NCCL group", &message))?;
        }
        Ok(group)
    }

    fn create(
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        options: &GlooOptions,
        cuda: Option<CudaBackend>,
    ) -> Result<Self, C10dError> {
        const OPERATION: &str = "creating the Gloo group";
        let _waiting = Waiting::begin(OPERATION);
        let group = Self::without_backend(OPERATION, store, rank, world_size, &options.name)?;
        let (kind, device) = match &options.device {
            GlooDevice::Hostname(name) => (ffi::GLOO_HOSTNAME, name),
            GlooDevice::Interface(name) => (ffi::GLOO_INTERFACE, name),
        };
        let member = Some(group.member);
        let device = c_string(device).map_err(|message| C10dError::invalid(OPERATION, member, message))?;
        // SAFETY: group, store and string live through the call; the group is not shared yet.
        let result = check(unsafe {
            ffi::datjob_group_attach_gloo(
                group.handle.0.as_ptr(),
                store.as_ptr(),
                kind,
                device.as_ptr(),
                milliseconds(timeout),
                c_int::from(cuda == Some(CudaBackend::Gloo)),
            )
        });
        result.map_err(|message| C10dError::from_message(OPERATION, member, &message))?;
        Ok(group)
    }

    /// A group without backends. Attach one for each kind of device.
    fn without_backend(
        operation: &'static str,
        store: &Store,
        rank: usize,
        world_size: usize,
        name: &str,
    ) -> Result<Self, C10dError> {
        let member = Member { rank, world_size };
        let invalid = |message: String| C10dError::invalid(operation, Some(member), message);
        if rank >= world_size {
            return Err(invalid(format!(
                "invalid rank {rank}: must be less than the world size {world_size}"
            )));
        }
        let c_rank = c_int::try_from(rank).map_err(|error| invalid(error.to_string()))?;
        let c_world_size = c_int::try_from(world_size).map_err(|error| invalid(error.to_string()))?;
        let name = c_string(name).map_err(invalid)?;
        let mut handle = ptr::null_mut();
        // SAFETY: store and string live through the call, and the last argument points to space for the result.
        let result = check(unsafe {
            ffi::datjob_group_new(store.as_ptr(), c_rank, c_world_size, name.as_ptr(), &raw mut handle)
        });
        result.map_err(|message| C10dError::from_message(operation, Some(member), &message))?;
        let handle = NonNull::new(handle).expect("the bridge returns a group or an error");
        Ok(Self { handle: Handle(handle), member })
    }

    /// The rank of this process, from 0 to the world size minus one.
    pub fn rank(&self) -> usize {
        self.member.rank
    }

    /// The number of processes.
    pub fn world_size(&self) -> usize {
        self.member.world_size
    }

    /// Rank and world size.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Replaces `tensor`, in place, by the elementwise reduction over all processes.
    ///
    /// The tensor must be dense (contiguous in some memory format) and have the same strides in all processes.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<(), C10dError> {
        self.start_all_reduce(tensor, op)?.wait()
    }

    /// [`all_reduce`](Self::all_reduce) in the background.
    pub fn all_reduce_async(&self, tensor: &Tensor, op: ReduceOp) -> Result<Work, C10dError> {
        self.forbid_resize("all_reduce", tensor)?;
        self.start_all_reduce(tensor, op)
    }

    fn start_all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Work, C10dError> {
        // SAFETY: group and tensor live through the call, which takes its own reference to the tensor's memory.
        self.start("all_reduce", |out| unsafe {
            ffi::datjob_group_all_reduce(self.as_ptr(), tensor.as_ptr(), op.code(), out)
        })
    }

    /// Replaces each tensor by its reduction over all processes, in one message. Layouts may differ between processes; all
    /// tensors have the same kind and are on the same device.
    pub fn all_reduce_coalesced(&self, tensors: &[&Tensor], op: ReduceOp) -> Result<(), C10dError> {
        const OPERATION: &str = "all_reduce_coalesced";
        let Some(first) = tensors.first() else { return Ok(()) };
        if let Some(index) = tensors.iter().position(|tensor| !tensor.defined()) {
            let message = format!("tensor {index} is undefined");
            return Err(C10dError::invalid(OPERATION, Some(self.member), message));
        }
        if tensors.iter().any(|tensor| tensor.kind() != first.kind()) {
            return Err(C10dError::invalid(OPERATION, Some(self.member), "the tensors' kinds differ"));
        }
        let failed = |error: TchError| self.error(OPERATION, &error.to_string());
        // Gloo's own allreduce_coalesced does the same, but rejects CUDA tensors.
        let flat = no_grad(|| {
            let parts: Result<Vec<Tensor>, TchError> =
                tensors.iter().map(|tensor| tensor.f_reshape([-1])).collect();
            Tensor::f_cat(&parts?, 0)
        });
        let flat = flat.map_err(failed)?;
        self.all_reduce(&flat, op)?;
        let mut start = 0;
        no_grad(|| {
            tensors.iter().try_for_each(|tensor| {
                let length = tensor.numel() as i64;
                let values = flat.f_narrow(0, start, length)?.f_view_as(tensor)?;
                start += length;
                tensor.shallow_clone().f_copy_(&values)
            })
        })
        .map_err(failed)
    }

    /// Replaces `tensor`, in place, by the tensor of rank `root`.
    ///
    /// The tensor must be dense (contiguous in some memory format) and have the same strides in all processes.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), C10dError> {
        self.start_broadcast(tensor, root)?.wait()
    }

    /// [`broadcast`](Self::broadcast) in the background.
    pub fn broadcast_async(&self, tensor: &Tensor, root: usize) -> Result<Work, C10dError> {
        self.forbid_resize("broadcast", tensor)?;
        self.start_broadcast(tensor, root)
    }

    fn start_broadcast(&self, tensor: &Tensor, root: usize) -> Result<Work, C10dError> {
        let root = self.root("broadcast", root)?;
        // SAFETY: group and tensor live through the call, which takes its own reference to the tensor's memory.
        self.start("broadcast", |out| unsafe {
            ffi::datjob_group_broadcast(self.as_ptr(), tensor.as_ptr(), root, out)
        })
    }

    /// Replaces every tensor by the tensor of rank `root`, in few messages. Use it for a model's state. Layouts may differ
    /// between processes, and kinds may be mixed; shapes and order must be the same.
    pub fn broadcast_coalesced(&self, tensors: &[&Tensor], root: usize) -> Result<(), C10dError> {
        const OPERATION: &str = "broadcast_coalesced";
        let _waiting = Waiting::begin(OPERATION);
        let root = self.root(OPERATION, root)?;
        let pointers = pointers(tensors);
        // SAFETY: group and tensors live through the call, which blocks until the broadcast completes.
        let result = check(unsafe {
            ffi::datjob_group_broadcast_coalesced(
                self.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                COALESCED_BUFFER_BYTES,
                root,
            )
        });
        result.map_err(|message| self.error(OPERATION, &message))
    }

    /// The tensors of all processes, stacked by rank: `[d0, d1, ..]` becomes `[world size, d0, d1, ..]`. Any layout.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        self.all_gather_async(tensor)?.wait()
    }

    /// [`all_gather`](Self::all_gather) in the background.
    pub fn all_gather_async(&self, tensor: &Tensor) -> Result<Work<Tensor>, C10dError> {
        const OPERATION: &str = "all_gather";
        self.forbid_resize(OPERATION, tensor)?;
        let mut gathered = ptr::null_mut();
        // SAFETY: group and tensor live through the call, which takes its own reference to the tensor's memory; the
        // other arguments point to space for the results.
        let work = self.start(OPERATION, |out| unsafe {
            ffi::datjob_group_all_gather(self.as_ptr(), tensor.as_ptr(), &raw mut gathered, out)
        })?;
        // SAFETY: the caller owns the tensor that the bridge returns.
        Ok(work.with_output(unsafe { Tensor::from_ptr(gathered) }))
    }

    /// Sends row r of the tensor to rank r; row r of the result is from rank r. The first dimension is the world size.
    pub fn all_to_all(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        const OPERATION: &str = "all_to_all";
        let mut received = ptr::null_mut();
        // SAFETY: group and tensor live through the call, which takes its own reference to the tensor's memory; the
        // other arguments point to space for the results.
        let work = self.start(OPERATION, |out| unsafe {
            ffi::datjob_group_all_to_all(self.as_ptr(), tensor.as_ptr(), &raw mut received, out)
        })?;
        // SAFETY: the caller owns the tensor that the bridge returns.
        work.with_output(unsafe { Tensor::from_ptr(received) }).wait()
    }

    /// Blocks until all processes have called it.
    pub fn barrier(&self) -> Result<(), C10dError> {
        // SAFETY: the group lives through the call, and `out` points to space for one pointer.
        self.start("barrier", |out| unsafe { ffi::datjob_group_barrier(self.as_ptr(), out) })?.wait()
    }

    /// Closes the connections to all peers, so that peers that wait for this process fail immediately instead of at the
    /// timeout. Later collectives fail; running collectives of this process fail at the timeout at the latest. Does nothing
    /// if the world size is 1.
    pub fn abort(&self) -> Result<(), C10dError> {
        // SAFETY: the group lives through the call, which may be made at any time.
        let result = check(unsafe { ffi::datjob_group_abort(self.as_ptr()) });
        result.map_err(|message| self.error("abort", &message))
    }

    /// Calls a function of the bridge that starts a collective.
    fn start(
        &self,
        operation: &'static str,
        start: impl FnOnce(*mut *mut ffi::Work) -> c_int,
    ) -> Result<Work, C10dError> {
        let mut work = ptr::null_mut();
        check(start(&raw mut work)).map_err(|message| self.error(operation, &message))?;
        let work = NonNull::new(work).expect("the bridge returns a work or an error");
        Ok(Work::new(work, operation, self.member))
    }

    /// Forbids resizing a tensor that a background thread uses: tch's `resize_` and similar functions would free its memory.
    /// Resizing stays forbidden afterwards, which does not affect ordinary use.
    fn forbid_resize(&self, operation: &'static str, tensor: &Tensor) -> Result<(), C10dError> {
        if !tensor.defined() {
            return Err(C10dError::invalid(operation, Some(self.member), "the tensor is undefined"));
        }
        // SAFETY: the tensor lives through the call and has a storage, as it is defined.
        let result = check(unsafe { ffi::datjob_tensor_forbid_resize(tensor.as_ptr()) });
        result.map_err(|message| self.error(operation, &message))
    }

    fn root(&self, operation: &'static str, root: usize) -> Result<c_int, C10dError> {
        if root >= self.member.world_size {
            let size = self.member.world_size;
            let message = format!("invalid root {root}: must be less than the world size {size}");
            return Err(C10dError::invalid(operation, Some(self.member), message));
        }
        Ok(c_int::try_from(root).expect("the world size fits, so its ranks do"))
    }

    pub(crate) fn error(&self, operation: &str, message: &str) -> C10dError {
        C10dError::from_message(operation, Some(self.member), message)
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Group {
        self.handle.0.as_ptr()
    }
}

/// Pointers to tensors for the bridge. Valid while the tensors are alive.
pub(crate) fn pointers(tensors: &[&Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}
