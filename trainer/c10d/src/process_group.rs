//! A set of processes and the collective operations among them.

use std::{
    ffi::c_int,
    ptr::{self, NonNull},
    time::Duration,
};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{
    cuda::Cuda,
    error::{C10dError, Member},
    ffi::{self, c_string, check, milliseconds},
    store::Store,
    work::Work,
};

/// The buffer through which [`ProcessGroup::broadcast_coalesced`] sends tensors together.
const COALESCED_BUFFER_BYTES: usize = 64 << 20;

/// How the values of all processes become one.
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
    /// Its number in `c10d::ReduceOp::RedOpType`.
    fn code(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Product => 2,
            Self::Min => 3,
            Self::Max => 4,
        }
    }
}

/// How Gloo finds the address that it listens on and tells its peers: it must be one that they can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlooDevice {
    /// A host name or address of this machine: in a pod its IP, on a workstation `127.0.0.1`.
    Hostname(String),
    /// A network interface, as in `eth0`.
    Interface(String),
}

/// What carries the collectives of CUDA tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaBackend {
    /// NCCL: from device to device, each rank on a device of its own. A collective that fails there, or outlasts the
    /// timeout, ends the process (libtorch's watchdog does): whoever started it has to start it again.
    Nccl,
    /// Gloo: through host memory. Several ranks may share a device.
    Gloo,
}

/// What a Gloo group needs besides its place in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlooOptions {
    /// Where this process listens.
    pub device: GlooDevice,
    /// The group's name in libtorch's messages.
    pub name: String,
}

/// A set of processes that work together, each with a rank.
///
/// Every process must call the same collectives in the same order with tensors of the same shapes, strides and
/// kinds. Where they differ, results are wrong, the timeout strikes, or Gloo ends the process.
///
/// Collectives take `&Tensor` although they write to it: a tch tensor is a handle to shared memory, other handles to
/// it may exist, and `&mut` would promise an exclusiveness that tch cannot give. They bypass autograd.
///
/// A group may be moved to another thread but not shared: collectives must have one order, and those that a
/// [`Reducer`](crate::Reducer) starts in a backward pass belong to it too.
///
/// When one process has failed, only those that wait for it directly notice. The news reaches the rest as each lets
/// go of its group, which closes the connections: drop it before anything else, and take it from reducers
/// ([`Reducer::release_process_group`](crate::Reducer::release_process_group)). Dropping the last reference waits for
/// collectives under way.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: Handle,
    member: Member,
}

/// One reference to a group.
#[derive(Debug)]
struct Handle(NonNull<ffi::Group>);

// SAFETY: a handle is a reference, counted atomically, to a group that belongs to no thread.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again.
        unsafe { ffi::datjob_group_free(self.0.as_ptr()) }
    }
}

impl ProcessGroup {
    /// Forms a group of `world_size` processes over TCP for CPU tensors. Blocks until all have connected, for at most
    /// `timeout`, which is then also that of each collective. `store` must be fresh: give each group its own
    /// [prefix](Store::prefix).
    pub fn gloo(
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        options: &GlooOptions,
    ) -> Result<Self, C10dError> {
        Self::form(store, rank, world_size, timeout, options, None)
    }

    /// [`gloo`](Self::gloo), and CUDA tensors too: through `backend`. With NCCL those connect at the first collective.
    pub fn with_cuda(
        _loaded: Cuda,
        backend: CudaBackend,
        store: &Store,
        (rank, world_size): (usize, usize),
        timeout: Duration,
        options: &GlooOptions,
    ) -> Result<Self, C10dError> {
        let group = Self::form(store, rank, world_size, timeout, options, Some(backend))?;
        if backend == CudaBackend::Nccl {
            // SAFETY: group and store live through the call; nobody else has the group yet.
            let attached = check(unsafe {
                ffi::datjob_group_attach_nccl(group.handle.0.as_ptr(), store.as_ptr(), milliseconds(timeout))
            });
            attached.map_err(|message| group.error("creating the NCCL group", &message))?;
        }
        Ok(group)
    }

    fn form(
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        options: &GlooOptions,
        cuda: Option<CudaBackend>,
    ) -> Result<Self, C10dError> {
        const OPERATION: &str = "creating the Gloo group";
        let group = Self::without_backend(OPERATION, store, rank, world_size, &options.name)?;
        let (kind, device) = match &options.device {
            GlooDevice::Hostname(name) => (ffi::GLOO_HOSTNAME, name),
            GlooDevice::Interface(name) => (ffi::GLOO_INTERFACE, name),
        };
        let member = Some(group.member);
        let device = c_string(device).map_err(|message| C10dError::invalid(OPERATION, member, message))?;
        // SAFETY: group, store and string live through the call; nobody else has the group yet.
        let attached = check(unsafe {
            ffi::datjob_group_attach_gloo(
                group.handle.0.as_ptr(),
                store.as_ptr(),
                kind,
                device.as_ptr(),
                milliseconds(timeout),
                c_int::from(cuda == Some(CudaBackend::Gloo)),
            )
        });
        attached.map_err(|message| C10dError::from_message(OPERATION, member, &message))?;
        Ok(group)
    }

    /// A group to which backends are yet to be attached, one for each kind of device.
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
        // SAFETY: store and string live through the call, and the last argument is a place for its result.
        let made = check(unsafe {
            ffi::datjob_group_new(store.as_ptr(), c_rank, c_world_size, name.as_ptr(), &raw mut handle)
        });
        made.map_err(|message| C10dError::from_message(operation, Some(member), &message))?;
        let handle = NonNull::new(handle).expect("the bridge makes a group or fails");
        Ok(Self { handle: Handle(handle), member })
    }

    /// This process's number, from 0 to the world size less one.
    pub fn rank(&self) -> usize {
        self.member.rank
    }

    /// The number of processes.
    pub fn world_size(&self) -> usize {
        self.member.world_size
    }

    /// Rank and world size together.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Replaces `tensor`, in place, by the elementwise reduction over all processes.
    ///
    /// Its elements must fill one block of memory (contiguous in some memory format), with the same strides
    /// everywhere.
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

    /// Replaces each tensor by its reduction over all processes, in one message. Any layout, but all of one kind.
    pub fn all_reduce_coalesced(&self, tensors: &[&Tensor], op: ReduceOp) -> Result<(), C10dError> {
        if tensors.is_empty() {
            return Ok(());
        }
        let pointers = pointers(tensors);
        // SAFETY: group and tensors live through the call, which takes its own references to the tensors.
        let work = self.start("all_reduce_coalesced", |out| unsafe {
            ffi::datjob_group_all_reduce_coalesced(
                self.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                op.code(),
                out,
            )
        })?;
        work.wait()
    }

    /// Replaces `tensor`, in place, by that of rank `root`.
    ///
    /// Its elements must fill one block of memory (contiguous in some memory format), with the same strides
    /// everywhere.
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

    /// Replaces every tensor by that of rank `root`, many to a message: the way to hand over a model's state. Any
    /// layout (also different ones in different processes) and any mix of kinds; shapes and order must agree.
    pub fn broadcast_coalesced(&self, tensors: &[&Tensor], root: usize) -> Result<(), C10dError> {
        const OPERATION: &str = "broadcast_coalesced";
        let root = self.root(OPERATION, root)?;
        let pointers = pointers(tensors);
        // SAFETY: group and tensors live through the call, which blocks until all is done.
        let done = check(unsafe {
            ffi::datjob_group_broadcast_coalesced(
                self.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                COALESCED_BUFFER_BYTES,
                root,
            )
        });
        done.map_err(|message| self.error(OPERATION, &message))
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
        // other arguments are places for its results.
        let work = self.start(OPERATION, |out| unsafe {
            ffi::datjob_group_all_gather(self.as_ptr(), tensor.as_ptr(), &raw mut gathered, out)
        })?;
        // SAFETY: the bridge made this tensor for its caller, who has no other handle to it.
        Ok(work.with_output(unsafe { Tensor::from_ptr(gathered) }))
    }

    /// Row r of the tensor, whose first dimension is the world size, goes to rank r; row r of the result came from there.
    pub fn all_to_all(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        const OPERATION: &str = "all_to_all";
        let mut exchanged = ptr::null_mut();
        // SAFETY: group and tensor live through the call, which takes its own reference to the tensor's memory; the
        // other arguments are places for its results.
        let work = self.start(OPERATION, |out| unsafe {
            ffi::datjob_group_all_to_all(self.as_ptr(), tensor.as_ptr(), &raw mut exchanged, out)
        })?;
        // SAFETY: the bridge made this tensor for its caller, who has no other handle to it.
        work.with_output(unsafe { Tensor::from_ptr(exchanged) }).wait()
    }

    /// Returns when all processes have called it.
    pub fn barrier(&self) -> Result<(), C10dError> {
        // SAFETY: the group lives through the call, and `out` is a place for one pointer.
        self.start("barrier", |out| unsafe { ffi::datjob_group_barrier(self.as_ptr(), out) })?.wait()
    }

    /// Closes the connections to all peers, so that those who wait for this process fail at once rather than at the
    /// timeout. All further collectives fail; those under way here fail at the timeout at the latest. Does nothing in
    /// a world of one.
    pub fn abort(&self) -> Result<(), C10dError> {
        // SAFETY: the group lives through the call, which may be made at any time.
        let aborted = check(unsafe { ffi::datjob_group_abort(self.as_ptr()) });
        aborted.map_err(|message| self.error("abort", &message))
    }

    /// Calls a function of the bridge that starts a collective.
    fn start(
        &self,
        operation: &'static str,
        start: impl FnOnce(*mut *mut ffi::Work) -> c_int,
    ) -> Result<Work, C10dError> {
        let mut work = ptr::null_mut();
        check(start(&raw mut work)).map_err(|message| self.error(operation, &message))?;
        let work = NonNull::new(work).expect("the bridge starts a work or fails");
        Ok(Work::new(work, operation, self.member))
    }

    /// Sees to it that the memory of a tensor in use by a background thread stays where it is: tch's `resize_` and
    /// its like would free it. It stays forbidden afterwards, which no ordinary tensor notices.
    fn forbid_resize(&self, operation: &'static str, tensor: &Tensor) -> Result<(), C10dError> {
        if !tensor.defined() {
            return Err(C10dError::invalid(operation, Some(self.member), "the tensor is undefined"));
        }
        // SAFETY: the tensor lives through the call and has a storage, as it is defined.
        let forbidden = check(unsafe { ffi::datjob_tensor_forbid_resize(tensor.as_ptr()) });
        forbidden.map_err(|message| self.error(operation, &message))
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

/// The bridge's view of tensors. Valid as long as they are.
pub(crate) fn pointers(tensors: &[&Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr()).collect()
}
