// Loads the CUDA plugin and forwards calls to it.
#include <ATen/Context.h>
#include <dlfcn.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "../plugin/plugin.h"
#include "guard.h"
#include "handles.h"

using datjob::guarded;

namespace {

std::atomic<const datjob_cuda_plugin*> loaded{nullptr};

const datjob_cuda_plugin& plugin() {
  const datjob_cuda_plugin* table = loaded.load();
  TORCH_CHECK(table != nullptr, "the CUDA plugin is not loaded");
  return *table;
}

// For the plugin's functions that return 0 or -1.
void check(int status) { TORCH_CHECK(status == 0, plugin().last_error()); }

int refuse(int status) {
  const char* message = dlerror();
  datjob::set_last_error(message == nullptr ? "the dynamic loader reported no reason" : message);
  return status;
}

// The folder of libtorch_cpu, which also holds libtorch_cuda.
std::string libtorch_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&at::globalContext), &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

int load(const char* path) {
  // The NVIDIA runtime provides the driver. Without it, do not load libraries of half a gigabyte.
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL) == nullptr) return refuse(DATJOB_CUDA_NO_DRIVER);
  // RTLD_GLOBAL: the plugin's symbols are resolved in it.
  const std::string libraries = libtorch_folder() + "libtorch_cuda.so";
  if (dlopen(libraries.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) return refuse(DATJOB_CUDA_NO_LIBRARIES);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return refuse(DATJOB_CUDA_NO_PLUGIN);
  void* symbol = dlsym(library, DATJOB_CUDA_PLUGIN_SYMBOL);
  if (symbol == nullptr) return refuse(DATJOB_CUDA_PLUGIN_MISMATCH);
  const auto* table = reinterpret_cast<const datjob_cuda_plugin* (*)()>(symbol)();
  if (table->version != DATJOB_CUDA_PLUGIN_VERSION) {
    datjob::set_last_error(
        "expected version " + std::to_string(DATJOB_CUDA_PLUGIN_VERSION) + ", got " + std::to_string(table->version));
    return DATJOB_CUDA_PLUGIN_MISMATCH;
  }
  loaded = table;
  return DATJOB_CUDA_READY;
}

// cudaErrorInsufficientDriver, a stable error code.
constexpr int cuda_insufficient_driver = 35;

}  // namespace

struct datjob_copy {
  at::Tensor tensor;
  void* event = nullptr;

  datjob_copy() = default;
  datjob_copy(const datjob_copy&) = delete;
  ~datjob_copy() {
    if (event != nullptr) plugin().free_event(event);
  }
};

struct datjob_event {
  void* event = nullptr;

  datjob_event() = default;
  datjob_event(const datjob_event&) = delete;
  ~datjob_event() {
    if (event != nullptr) plugin().free_event(event);
  }
};

extern "C" {

int datjob_cuda_load(const char* path, int* out_devices) {
  if (loaded.load() == nullptr) {
    const int status = load(path);
    if (status != DATJOB_CUDA_READY) return status;
  }
  int devices = 0;
  const int code = plugin().device_count(&devices);
  if (code != 0) {
    datjob::set_last_error(plugin().last_error());
    return code == cuda_insufficient_driver ? DATJOB_CUDA_DRIVER_TOO_OLD : DATJOB_CUDA_NO_DEVICE;
  }
  if (devices == 0) {
    datjob::set_last_error("CUDA reports 0 devices");
    return DATJOB_CUDA_NO_DEVICE;
  }
  *out_devices = devices;
  return DATJOB_CUDA_READY;
}

int datjob_cuda_device_properties(int device, datjob_cuda_device* out) {
  return guarded([&] { check(plugin().device_properties(device, out)); });
}

int datjob_cuda_memory_usage(int device, datjob_cuda_memory* out) {
  return guarded([&] { check(plugin().memory(device, out)); });
}

int datjob_cuda_synchronize(int device) {
  return guarded([&] { check(plugin().synchronize(device)); });
}

int datjob_group_attach_nccl(datjob_group* group, const datjob_store* store, int64_t timeout_ms) {
  return guarded([&] {
    c10::intrusive_ptr<c10d::Store> keys = c10::make_intrusive<c10d::PrefixStore>("nccl", store->store);
    c10::intrusive_ptr<c10d::Backend> backend;
    const std::chrono::milliseconds timeout(timeout_ms);
    check(plugin().nccl(keys, group->group->getRank(), group->group->getSize(), timeout, &backend));
    group->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
    group->group->setGroupName(group->name);
  });
}

int datjob_copy_to_device(const datjob_tensor* tensor, int device, datjob_copy** out) {
  return guarded([&] {
    auto copy = std::make_unique<datjob_copy>();
    check(plugin().upload(datjob::tensor(tensor), device, &copy->tensor, &copy->event));
    *out = copy.release();
  });
}

int datjob_copy_to_host(const datjob_tensor* tensor, datjob_copy** out) {
  return guarded([&] {
    auto copy = std::make_unique<datjob_copy>();
    check(plugin().download(datjob::tensor(tensor), &copy->tensor, &copy->event));
    *out = copy.release();
  });
}

int datjob_copy_take(const datjob_copy* copy, datjob_tensor** out) {
  return guarded([&] {
    const bool on_device = copy->tensor.is_cuda();
    check(on_device ? plugin().take_upload(copy->tensor, copy->event) : plugin().wait(copy->event));
    *out = datjob::give_to_caller(copy->tensor);
  });
}

void datjob_copy_free(datjob_copy* copy) { datjob::release(copy); }

int datjob_event_record(int device, datjob_event** out) {
  return guarded([&] {
    auto event = std::make_unique<datjob_event>();
    check(plugin().record_event(device, &event->event));
    *out = event.release();
  });
}

int datjob_event_elapsed(const datjob_event* start, const datjob_event* end, double* out) {
  return guarded([&] { check(plugin().elapsed_seconds(start->event, end->event, out)); });
}

void datjob_event_free(datjob_event* event) { datjob::release(event); }

void datjob_allow_tf32(int allowed) {
  at::globalContext().setAllowTF32CuBLAS(allowed != 0);
  at::globalContext().setAllowTF32CuDNN(allowed != 0);
}
}
