// What the CUDA plugin offers to cpp/cuda.cpp: one table of functions, behind one exported symbol.
//
// The rules of cpp/bridge.h hold. Pointers to c10 types pass between two libraries that are built from the same headers
// by the same compiler; `version` is raised with every change of this file.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <cstdint>

#include "../cpp/bridge.h"

struct datjob_cuda_plugin {
  int version;
  // The message of this thread's last failure in the plugin.
  const char* (*last_error)();
  // 0 and the number of devices, or CUDA's error code, whose name and text are then the last error.
  int (*device_count)(int* out);
  int (*describe)(int device, datjob_cuda_device* out);
  int (*memory)(int device, datjob_cuda_memory* out);
  int (*synchronize)(int device);
  // A backend for CUDA tensors. The store must be this backend's own.
  int (*nccl)(
      const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size, std::chrono::milliseconds timeout,
      c10::intrusive_ptr<c10d::Backend>* out);
  // A copy of a pinned host tensor on the device, made by a stream of its own, and the event of its end.
  int (*upload)(const at::Tensor& host, int device, at::Tensor* out_copy, void** out_event);
  // A copy in pinned host memory of a device tensor as the current stream leaves it, and the event of its end.
  int (*download)(const at::Tensor& tensor, at::Tensor* out_copy, void** out_event);
  // Later work of the current stream waits for the upload; its memory is not given to others before that work is done.
  int (*take_upload)(const at::Tensor& copy, void* event);
  // This thread waits for the event.
  int (*wait)(void* event);
  // An event, with its time, where the current stream stands now; and the seconds between two, for which this thread waits.
  int (*mark)(int device, void** out_event);
  int (*seconds_between)(void* begin, void* end, double* out);
  void (*free_event)(void* event);
};

constexpr int DATJOB_CUDA_PLUGIN_VERSION = 1;
constexpr const char* DATJOB_CUDA_PLUGIN_SYMBOL = "datjob_cuda_plugin_table";
