// The interface of the CUDA plugin to cpp/cuda.cpp: a table of functions behind one exported symbol.
//
// The rules of cpp/bridge.h apply. Both libraries must be built from the same headers by the same compiler, because they
// exchange pointers to c10 types. Raise `version` with every change of the table's layout or meaning.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <cstdint>

#include "../cpp/bridge.h"

struct datjob_cuda_plugin {
  int version;
  // The message of this thread's last error in the plugin.
  const char* (*last_error)();
  // Returns 0 and the number of devices, or CUDA's error code; then the last error is its name and text.
  int (*device_count)(int* out);
  int (*device_properties)(int device, datjob_cuda_device* out);
  int (*memory)(int device, datjob_cuda_memory* out);
  int (*synchronize)(int device);
  // A backend for CUDA tensors. No other backend may use the store.
  int (*nccl)(
      const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size, std::chrono::milliseconds timeout,
      c10::intrusive_ptr<c10d::Backend>* out);
  // Copies a host tensor to the device on a separate stream; returns the copy and the event of its completion.
  int (*upload)(const at::Tensor& host, int device, at::Tensor* out_copy, void** out_event);
  // Copies a device tensor to pinned host memory on the current stream; returns the copy and the event of its completion.
  int (*download)(const at::Tensor& tensor, at::Tensor* out_copy, void** out_event);
  // Makes later work of the current stream wait for the upload; its memory is not reused before that work completes.
  int (*take_upload)(const at::Tensor& copy, void* event);
  // Blocks this thread until the event completes.
  int (*wait)(void* event);
  // Records a timing event on the current stream; returns the seconds between two events, blocking until both complete.
  int (*record_event)(int device, void** out_event);
  int (*elapsed_seconds)(void* start, void* end, double* out);
  void (*free_event)(void* event);
};

constexpr int DATJOB_CUDA_PLUGIN_VERSION = 1;
constexpr const char* DATJOB_CUDA_PLUGIN_SYMBOL = "datjob_cuda_plugin_table";
