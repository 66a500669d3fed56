// The C interface between src/ffi.rs and libtorch's c10d. ffi.rs repeats these declarations: change both together.
//
// Rules that hold for every function:
// - No C++ exception leaves. A function that can fail returns 0 for success and -1 for failure; after a failure
//   `datjob_last_error` has the message. Results come through the last arguments, written only on success.
// - A handle is owned by the caller and given back with its `_free` function, which accepts NULL.
// - A tensor is an `at::Tensor*` made by torch-sys (its `C_tensor`). It is borrowed for the call, unless an output
//   argument says that the caller owns it, who then frees it with torch-sys's `at_free`.
// - Strings are UTF-8 and end with NUL. Times are milliseconds, at least 1 (c10d reads 0 as "for ever").
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct datjob_tensor datjob_tensor;    // an at::Tensor
typedef struct datjob_store datjob_store;      // a reference to a c10d::Store
typedef struct datjob_group datjob_group;      // a reference to a c10d::ProcessGroup
typedef struct datjob_work datjob_work;        // a reference to a c10d::Work: one collective under way
typedef struct datjob_reducer datjob_reducer;  // a c10d::Reducer and its c10d::Logger

// ---- guard.cpp ----

// The message of this thread's last failure. Valid until this thread's next call of the bridge.
const char* datjob_last_error(void);
// The least severe messages that libtorch writes to standard error: 0 info, 1 warning, 2 error, 3 fatal.
void datjob_set_log_level(int level);

// ---- store.cpp ----

// Starts a store's server on a listening socket and connects to it at `host`:`port`, the socket's own address.
// The server takes `listen_fd` over (after a failure it may or may not be closed) and waits for no workers.
int datjob_store_host(int listen_fd, const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out);
// Connects to a store's server, trying again until the timeout. The timeout is then that of `datjob_store_get`.
int datjob_store_connect(const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out);
// A view of the store whose keys all begin with `prefix` and a slash. Keeps the store alive.
int datjob_store_prefix(const datjob_store* store, const char* prefix, datjob_store** out);
int datjob_store_set(const datjob_store* store, const char* key, const uint8_t* value, size_t length);
// Waits for the key; the bytes are the caller's, to be given back with `datjob_bytes_free`.
int datjob_store_get(const datjob_store* store, const char* key, uint8_t** out_value, size_t* out_length);
int datjob_store_add(const datjob_store* store, const char* key, int64_t amount, int64_t* out_sum);
int datjob_store_wait(const datjob_store* store, const char* key, int64_t timeout_ms);
void datjob_bytes_free(uint8_t* bytes);
void datjob_store_free(datjob_store* store);

// ---- group.cpp ----

// How a Gloo backend finds the address that it listens on and tells its peers.
enum datjob_gloo_device { DATJOB_GLOO_HOSTNAME = 0, DATJOB_GLOO_INTERFACE = 1 };

// A group without a backend: at least one must be attached before the first collective.
int datjob_group_new(const datjob_store* store, int rank, int world_size, const char* name, datjob_group** out);
// Attaches Gloo for CPU tensors, and for CUDA tensors where asked: connects to every peer, which must all do the same.
int datjob_group_attach_gloo(
    datjob_group* group, const datjob_store* store, int device_kind, const char* device, int64_t timeout_ms,
    int cuda_tensors_too);
// Closes the connections without waiting for the collectives under way.
int datjob_group_abort(const datjob_group* group);
// Waits for the collectives under way when this is the last reference.
void datjob_group_free(datjob_group* group);

// Collectives. In-place ones refuse tensors whose elements do not fill one block of memory exactly once; they keep
// a reference to the tensors until the work has ended. `op` is a c10d::ReduceOp::RedOpType.
int datjob_group_all_reduce(const datjob_group* group, const datjob_tensor* tensor, uint8_t op, datjob_work** out);
int datjob_group_all_reduce_coalesced(
    const datjob_group* group, const datjob_tensor* const* tensors, size_t count, uint8_t op, datjob_work** out);
int datjob_group_broadcast(const datjob_group* group, const datjob_tensor* tensor, int root, datjob_work** out);
// `out_gathered` is a new tensor [world size, shape of `tensor`...], the caller's, complete when the work has ended.
int datjob_group_all_gather(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_gathered, datjob_work** out);
// The first dimension of `tensor` is the world size; row r goes to rank r. `out_exchanged` is a new tensor of the same
// shape, whose row r came from rank r: the caller's, complete when the work has ended.
int datjob_group_all_to_all(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_exchanged, datjob_work** out);
int datjob_group_barrier(const datjob_group* group, datjob_work** out);
// Blocks. Any layout and mix of kinds; buffers of `buffer_bytes` at most, or of one tensor where it is larger.
int datjob_group_broadcast_coalesced(
    const datjob_group* group, const datjob_tensor* const* tensors, size_t count, size_t buffer_bytes, int root);

// Blocks until the work has ended; fails when it failed.
int datjob_work_wait(const datjob_work* work);
int datjob_work_is_completed(const datjob_work* work, int* out_completed);
// Does not wait: the backend keeps what an unfinished work needs.
void datjob_work_free(datjob_work* work);

// ---- reducer.cpp ----

typedef struct datjob_reducer_statistics {
  int64_t iterations;
  int64_t forward_compute_ns;
  int64_t backward_compute_ns;
  int64_t backward_communication_ns;
  int64_t backward_overlap_ns;
  int64_t mean_forward_compute_ns;
  int64_t mean_backward_compute_ns;
  int64_t mean_backward_communication_ns;
  int64_t mean_backward_overlap_ns;
} datjob_reducer_statistics;

// Hooks the parameters (leaves that require a gradient), which it keeps alive, as it does the group.
int datjob_reducer_new(
    const datjob_tensor* const* parameters, const char* const* names, size_t count, const datjob_group* group,
    int64_t first_bucket_bytes, int64_t bucket_cap_bytes, int gradient_as_bucket_view, datjob_reducer** out);
// From now on the reducer calls `hook` with each bucket whose gradients are complete, on the thread of the backward pass,
// and takes the bucket for averaged when it returns: whoever set the hook averages `gradient` (flat, the hook's to free)
// in place, and keeps hands off all gradients until that is done. Returns NULL or a message, valid until the next call.
// Once in a reducer's life. `state` must outlive the reducer.
typedef const char* (*datjob_bucket_hook)(void* state, size_t bucket, datjob_tensor* gradient);
int datjob_reducer_set_hook(const datjob_reducer* reducer, datjob_bucket_hook hook, void* state);
// Before a step's first forward. In the second step this is a collective: rank 0's bucket order goes to all.
int datjob_reducer_prepare_forward(const datjob_reducer* reducer);
// Between a step's last forward and its backward.
int datjob_reducer_prepare_backward(const datjob_reducer* reducer);
// Fails when the last prepared backward has not reduced every parameter.
int datjob_reducer_check_finished(const datjob_reducer* reducer);
// Back to the state after construction. Drops all gradients.
int datjob_reducer_reset(const datjob_reducer* reducer);
// Gives up the reducer's reference to its group, then the same as `datjob_reducer_reset`.
int datjob_reducer_release_group(const datjob_reducer* reducer);
// Replaces the group. The reducer must be as after construction.
int datjob_reducer_set_group(const datjob_reducer* reducer, const datjob_group* group);
// As of the last `datjob_reducer_prepare_forward`.
int datjob_reducer_get_statistics(const datjob_reducer* reducer, datjob_reducer_statistics* out);
// Writes the sizes in bytes of the first `capacity` buckets, and how many buckets there are.
int datjob_reducer_bucket_sizes(const datjob_reducer* reducer, int64_t* sizes, size_t capacity, size_t* out_count);
void datjob_reducer_free(datjob_reducer* reducer);

// ---- tensor.cpp ----

// The tensor in channels_last memory format; the caller's.
int datjob_tensor_contiguous_channels_last(const datjob_tensor* tensor, datjob_tensor** out);
// Changes the tensor's memory to channels_last; other views of the old memory are left behind.
int datjob_tensor_set_channels_last(const datjob_tensor* tensor);
// From now on an operation that would move the tensor's memory by growing it fails.
int datjob_tensor_forbid_resize(const datjob_tensor* tensor);

// ---- cuda.cpp: what needs a GPU; all of it fails until the plugin is loaded ----

typedef struct datjob_cuda_device {
  char name[256];
  int capability_major;
  int capability_minor;
  int64_t total_bytes;
  int driver_version;   // as CUDA counts: 13000 is 13.0
  int runtime_version;
} datjob_cuda_device;

// Bytes. The first three are libtorch's allocator's in this process, the last two the whole device's.
typedef struct datjob_cuda_memory {
  int64_t allocated;
  int64_t peak_allocated;
  int64_t reserved;
  int64_t free;
  int64_t total;
} datjob_cuda_memory;

// Why the plugin cannot be used.
enum datjob_cuda_status {
  DATJOB_CUDA_READY = 0,
  DATJOB_CUDA_NO_DRIVER = 1,
  DATJOB_CUDA_NO_LIBRARIES = 2,
  DATJOB_CUDA_NO_PLUGIN = 3,
  DATJOB_CUDA_OTHER_PLUGIN = 4,
  DATJOB_CUDA_DRIVER_TOO_OLD = 5,
  DATJOB_CUDA_NO_DEVICE = 6,
};

// Loads the driver, libtorch_cuda from libtorch_cpu's own folder, and the plugin at `path`; writes the number of devices.
// Returns a datjob_cuda_status, and where it is not READY the last error has the loader's or CUDA's own words. What was
// loaded stays; a second call is cheap. Before the first use of a CUDA tensor in this process.
int datjob_cuda_load(const char* path, int* out_devices);
int datjob_cuda_describe(int device, datjob_cuda_device* out);
int datjob_cuda_memory_of(int device, datjob_cuda_memory* out);
int datjob_cuda_synchronize(int device);
// Attaches NCCL for CUDA tensors. Connects at the first collective.
int datjob_group_attach_nccl(datjob_group* group, const datjob_store* store, int64_t timeout_ms);

typedef struct datjob_copy datjob_copy;  // a copy between host and device under way
// The copies read `tensor` when they run: it must not be written to before that.
int datjob_copy_to_device(const datjob_tensor* tensor, int device, datjob_copy** out);
int datjob_copy_to_host(const datjob_tensor* tensor, datjob_copy** out);
// The copied tensor, the caller's. On the device: later work of the current stream waits for it, this thread does not.
// In host memory: this thread waits.
int datjob_copy_take(const datjob_copy* copy, datjob_tensor** out);
void datjob_copy_free(datjob_copy* copy);

typedef struct datjob_mark datjob_mark;  // a point in the work of a device
// Where the device's current stream stands now.
int datjob_mark_new(int device, datjob_mark** out);
// The seconds that the device took from one mark to a later one; this thread waits until it is there.
int datjob_mark_seconds_until(const datjob_mark* begin, const datjob_mark* end, double* out);
void datjob_mark_free(datjob_mark* mark);

// Whether matrix products and convolutions of float32 may use TF32 on the device.
void datjob_allow_tf32(int allowed);

#ifdef __cplusplus
}
#endif
