// NCCL, device memory, events and copies that overlap with computation: the functions that need libtorch_cuda. Compiled
// without a GPU; loaded by cpp/cuda.cpp if libtorch_cuda is available.
#include "plugin.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstring>
#include <memory>
#include <string>

#include "../cpp/guard.h"

using datjob::guarded;

namespace {

using Event = at::cuda::CUDAEvent;

Event* event(void* handle) { return static_cast<Event*>(handle); }

int device_count(int* out) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) {
    // Clears the error, so that the next call does not return it.
    (void)cudaGetLastError();
    datjob::set_last_error(std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code));
    return code;
  }
  *out = count;
  return 0;
}

int device_properties(int device, datjob_cuda_device* out) {
  return guarded([&] {
    const cudaDeviceProp* properties = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device));
    std::strncpy(out->name, properties->name, sizeof out->name - 1);
    out->name[sizeof out->name - 1] = '\0';
    out->capability_major = properties->major;
    out->capability_minor = properties->minor;
    out->total_bytes = static_cast<int64_t>(properties->totalGlobalMem);
    C10_CUDA_CHECK(cudaDriverGetVersion(&out->driver_version));
    C10_CUDA_CHECK(cudaRuntimeGetVersion(&out->runtime_version));
  });
}

int memory(int device, datjob_cuda_memory* out) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    c10::cuda::CUDAGuard guard(index);
    size_t free = 0;
    size_t total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    const auto statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(index);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *out = {
        statistics.allocated_bytes[all].current, statistics.allocated_bytes[all].peak,
        statistics.reserved_bytes[all].current, static_cast<int64_t>(free), static_cast<int64_t>(total)};
  });
}

int synchronize(int device) {
  return guarded([&] {
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    C10_CUDA_CHECK(cudaDeviceSynchronize());
  });
}

int nccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size, std::chrono::milliseconds timeout,
    c10::intrusive_ptr<c10d::Backend>* out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = timeout;
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world_size, std::move(options));
    backend->setSequenceNumberForGroup();
    *out = std::move(backend);
  });
}

// The stream of this thread's uploads. The pool never frees it.
c10::cuda::CUDAStream upload_stream(c10::DeviceIndex device) {
  static thread_local auto stream = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device);
  return stream.device_index() == device ? stream : (stream = c10::cuda::getStreamFromPool(false, device));
}

int upload(const at::Tensor& host, int device, at::Tensor* out_copy, void** out_event) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    c10::cuda::CUDAGuard guard(index);
    c10::cuda::CUDAStreamGuard on_stream(upload_stream(index));
    const at::Tensor pinned = host.is_pinned() ? host : host.pin_memory();
    // The allocator of pinned memory records that this stream reads it.
    *out_copy = pinned.to(at::Device(at::kCUDA, index), pinned.scalar_type(), /*non_blocking=*/true, /*copy=*/true);
    auto done = std::make_unique<Event>();
    done->record();
    *out_event = done.release();
  });
}

int download(const at::Tensor& tensor, at::Tensor* out_copy, void** out_event) {
  return guarded([&] {
    c10::cuda::CUDAGuard guard(tensor.device().index());
    const at::Tensor source = tensor.detach();
    *out_copy = at::empty(source.sizes(), source.options().device(at::kCPU).pinned_memory(true));
    out_copy->copy_(source, /*non_blocking=*/true);
    auto done = std::make_unique<Event>();
    done->record();
    *out_event = done.release();
  });
}

int take_upload(const at::Tensor& copy, void* handle) {
  return guarded([&] {
    const auto stream = c10::cuda::getCurrentCUDAStream(copy.device().index());
    event(handle)->block(stream);
    copy.record_stream(stream.unwrap());
  });
}

int wait(void* handle) {
  return guarded([&] { event(handle)->synchronize(); });
}

int record_event(int device, void** out_event) {
  return guarded([&] {
    c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    auto recorded = std::make_unique<Event>(cudaEventDefault);
    recorded->record();
    *out_event = recorded.release();
  });
}

int elapsed_seconds(void* start, void* end, double* out) {
  return guarded([&] {
    event(end)->synchronize();
    *out = event(start)->elapsed_time(*event(end)) / 1e3;
  });
}

void free_event(void* handle) {
  guarded([&] { delete event(handle); });
}

const datjob_cuda_plugin table = {
    DATJOB_CUDA_PLUGIN_VERSION, datjob_last_error, device_count, device_properties, memory, synchronize, nccl,
    upload,  download, take_upload, wait, record_event, elapsed_seconds, free_event,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const datjob_cuda_plugin* datjob_cuda_plugin_table() {
  return &table;
}
