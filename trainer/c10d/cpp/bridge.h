// The C interface between src/ffi.rs and libtorch's c10d. ffi.rs repeats these declarations: change both together.
//
// Rules for every function:
// - No C++ exception escapes. A function that can fail returns 0 for success and -1 for failure; after a failure
//   `datjob_last_error` returns the message. Results are written to the last arguments, only on success.
// - The caller owns a handle and frees it with its `_free` function, which accepts NULL.
// - A tensor is an `at::Tensor*` from torch-sys (its `C_tensor`). It is borrowed for the call. If the comment of an output
//   argument says that the caller owns it, the caller frees it with torch-sys's `at_free`.
// - Strings are UTF-8 and NUL-terminated. Times are milliseconds, at least 1 (c10d treats 0 as infinite).
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct datjob_tensor datjob_tensor;    // an at::Tensor
typedef struct datjob_store datjob_store;      // a reference to a c10d::Store
typedef struct datjob_group datjob_group;      // a reference to a c10d::ProcessGroup
typedef struct datjob_work datjob_work;        // a reference to a c10d::Work: a running collective
typedef struct datjob_reducer datjob_reducer;  // a c10d::Reducer and its c10d::Logger

// ---- guard.cpp ----

// The message of this thread's last failure. Valid until this thread's next call of the bridge.
const char* datjob_last_error(void);
// Sets the minimum severity of libtorch's messages on standard error: 0 info, 1 warning, 2 error, 3 fatal.
void datjob_set_log_level(int level);

// ---- stack.cpp ----

// Runs a function on the main thread in a handler of SIGUSR2. Returns whether it returned within the timeout, in whole seconds.
// The process must end soon after: the function may do what a handler must not, and then the main thread never continues.
int datjob_interrupt_main_thread(void (*interruption)(void), int64_t timeout_ms);

// ---- store.cpp ----

// Starts a store's server on a listening socket and connects to it at `host`:`port`, the socket's own address.
// The server takes ownership of `listen_fd` (after a failure it may or may not be closed) and does not wait for workers.
int datjob_store_host(int listen_fd, const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out);
// Connects to a store's server; retries until the timeout. The timeout also applies to `datjob_store_get`.
int datjob_store_connect(const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out);
// A view of the store whose keys all start with `prefix` and a slash. Keeps the store alive.
int datjob_store_prefix(const datjob_store* store, const char* prefix, datjob_store** out);
int datjob_store_set(const datjob_store* store, const char* key, const uint8_t* value, size_t length);
// Waits for the key. The caller owns the bytes and frees them with `datjob_bytes_free`.
int datjob_store_get(const datjob_store* store, const char* key, uint8_t** out_value, size_t* out_length);
int datjob_store_add(const datjob_store* store, const char* key, int64_t amount, int64_t* out_sum);
int datjob_store_wait(const datjob_store* store, const char* key, int64_t timeout_ms);
void datjob_bytes_free(uint8_t* bytes);
void datjob_store_free(datjob_store* store);

// ---- group.cpp ----

// Selects the address that a Gloo backend listens on and publishes to its peers.
enum datjob_gloo_device { DATJOB_GLOO_HOSTNAME = 0, DATJOB_GLOO_INTERFACE = 1 };

// A group without a backend. Attach at least one before the first collective.
int datjob_group_new(const datjob_store* store, int rank, int world_size, const char* name, datjob_group** out);
// Attaches Gloo for CPU tensors, and for CUDA tensors if `cuda_tensors_too`. Connects to all peers, which must do the same.
int datjob_group_attach_gloo(
    datjob_group* group, const datjob_store* store, int device_kind, const char* device, int64_t timeout_ms,
    int cuda_tensors_too);
// Closes the connections without waiting for running collectives.
int datjob_group_abort(const datjob_group* group);
// Waits for running collectives if this is the last reference.
void datjob_group_free(datjob_group* group);

// Collectives. In-place ones reject tensors that are not dense; they keep a reference to the tensors until the work
// completes. `op` is a c10d::ReduceOp::RedOpType.
int datjob_group_all_reduce(const datjob_group* group, const datjob_tensor* tensor, uint8_t op, datjob_work** out);
int datjob_group_broadcast(const datjob_group* group, const datjob_tensor* tensor, int root, datjob_work** out);
// `out_gathered` is a new tensor [world size, shape of `tensor`...], which the caller owns; valid when the work completes.
int datjob_group_all_gather(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_gathered, datjob_work** out);
// The first dimension of `tensor` is the world size; row r is sent to rank r. `out_received` is a new tensor of the same
// shape, whose row r is from rank r. The caller owns it; valid when the work completes.
int datjob_group_all_to_all(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_received, datjob_work** out);
int datjob_group_barrier(const datjob_group* group, datjob_work** out);
// Blocks. Any layout and mix of kinds. A buffer has at most `buffer_bytes`, or one tensor if that is larger.
int datjob_group_broadcast_coalesced(
    const datjob_group* group, const datjob_tensor* const* tensors, size_t count, size_t buffer_bytes, int root);

// Blocks until the work completes; fails if it failed.
int datjob_work_wait(const datjob_work* work);
int datjob_work_is_completed(const datjob_work* work, int* out_completed);
// Does not wait: the backend keeps the resources of a running work.
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

// Hooks the parameters (leaves that require a gradient). Keeps the parameters and the group alive.
int datjob_reducer_new(
    const datjob_tensor* const* parameters, const char* const* names, size_t count, const datjob_group* group,
    int64_t first_bucket_bytes, int64_t bucket_cap_bytes, int gradient_as_bucket_view, datjob_reducer** out);
// Sets a communication hook, once per reducer. The reducer calls `hook` with each bucket whose gradients are complete, on
// the thread of the backward pass, and treats the bucket as averaged when the hook returns. The caller averages `gradient`
// (flat; the hook frees it) in place and does not use any gradient until that is done. The hook returns NULL or a message,
// which is valid until the next call. `state` must outlive the reducer.
typedef const char* (*datjob_bucket_hook)(void* state, size_t bucket, datjob_tensor* gradient);
int datjob_reducer_set_hook(const datjob_reducer* reducer, datjob_bucket_hook hook, void* state);
// Before a step's first forward. In the second step this is a collective: libtorch broadcasts rank 0's bucket order.
int datjob_reducer_prepare_forward(const datjob_reducer* reducer);
// Between a step's last forward and its backward.
int datjob_reducer_prepare_backward(const datjob_reducer* reducer);
// Fails if the last prepared backward did not reduce every parameter.
int datjob_reducer_check_finished(const datjob_reducer* reducer);
// Resets to the state after construction. Drops all gradients.
int datjob_reducer_reset(const datjob_reducer* reducer);
// Releases the reducer's reference to its group, then calls `datjob_reducer_reset`.
int datjob_reducer_release_group(const datjob_reducer* reducer);
// Replaces the group. The reducer must be in the state after construction.
int datjob_reducer_set_group(const datjob_reducer* reducer, const datjob_group* group);
// Statistics at the last `datjob_reducer_prepare_forward`.
int datjob_reducer_get_statistics(const datjob_reducer* reducer, datjob_reducer_statistics* out);
// Writes the sizes in bytes of the first `capacity` buckets, and the number of buckets.
int datjob_reducer_bucket_sizes(const datjob_reducer* reducer, int64_t* sizes, size_t capacity, size_t* out_count);
void datjob_reducer_free(datjob_reducer* reducer);

// ---- tensor.cpp ----

// The tensor in channels_last memory format; the caller owns it.
int datjob_tensor_contiguous_channels_last(const datjob_tensor* tensor, datjob_tensor** out);
// Converts the tensor's memory to channels_last; views of the old memory keep it.
int datjob_tensor_set_channels_last(const datjob_tensor* tensor);
// Makes operations fail that would reallocate the tensor's memory.
int datjob_tensor_forbid_resize(const datjob_tensor* tensor);

// ---- cuda.cpp: CUDA support; all functions but datjob_cuda_load and datjob_allow_tf32 fail until the plugin is loaded ----

typedef struct datjob_cuda_device {
  char name[256];
  int capability_major;
  int capability_minor;
  int64_t total_bytes;
  int driver_version;   // CUDA's encoding: 13000 is 13.0
  int runtime_version;
} datjob_cuda_device;

// Bytes. The first three are of libtorch's allocator in this process, the last two of the device.
typedef struct datjob_cuda_memory {
  int64_t allocated;
  int64_t peak_allocated;
  int64_t reserved;
  int64_t free;
  int64_t total;
} datjob_cuda_memory;

// The status of loading CUDA.
enum datjob_cuda_status {
  DATJOB_CUDA_READY = 0,
  DATJOB_CUDA_NO_DRIVER = 1,
  DATJOB_CUDA_NO_LIBRARIES = 2,
  DATJOB_CUDA_NO_PLUGIN = 3,
  DATJOB_CUDA_PLUGIN_MISMATCH = 4,
  DATJOB_CUDA_DRIVER_TOO_OLD = 5,
  DATJOB_CUDA_NO_DEVICE = 6,
};

// Loads the driver, libtorch_cuda from libtorch_cpu's own folder, and the plugin at `path`; writes the number of devices.
// Returns a datjob_cuda_status. If it is not READY, the last error is the message of the loader or of CUDA. Libraries stay
// loaded, so a second call is cheap. Call it before the first use of a CUDA tensor in this process.
int datjob_cuda_load(const char* path, int* out_devices);
int datjob_cuda_device_properties(int device, datjob_cuda_device* out);
int datjob_cuda_memory_usage(int device, datjob_cuda_memory* out);
int datjob_cuda_synchronize(int device);
// Attaches NCCL for CUDA tensors. Connects at the first collective.
int datjob_group_attach_nccl(datjob_group* group, const datjob_store* store, int64_t timeout_ms);

typedef struct datjob_copy datjob_copy;  // a running copy between host and device
// The copies read `tensor` when they run: do not write to it before that.
int datjob_copy_to_device(const datjob_tensor* tensor, int device, datjob_copy** out);
int datjob_copy_to_host(const datjob_tensor* tensor, datjob_copy** out);
// The copied tensor; the caller owns it. On the device, later work of the current stream waits for it, and this thread does
// not. In host memory, this thread waits.
int datjob_copy_take(const datjob_copy* copy, datjob_tensor** out);
void datjob_copy_free(datjob_copy* copy);

typedef struct datjob_event datjob_event;  // a CUDA event
// Records an event on the device's current stream.
int datjob_event_record(int device, datjob_event** out);
// Seconds from one event to a later one; waits until the later one has completed.
int datjob_event_elapsed(const datjob_event* start, const datjob_event* end, double* out);
void datjob_event_free(datjob_event* event);

// Sets whether matrix products and convolutions of float32 may use TF32 on the device.
void datjob_allow_tf32(int allowed);

#ifdef __cplusplus
}
#endif
