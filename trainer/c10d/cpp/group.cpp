// Process groups, collectives and works.
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "guard.h"
#include "handles.h"

using datjob::guarded;

namespace {

// Held while a collective starts. libtorch's flight recorder is a singleton that records groups in a map without a lock, so
// two groups on two threads would corrupt it.
std::mutex start_mutex;

// Gloo with workarounds for two limitations of libtorch.
class GlooBackend : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;
  using Work = c10::intrusive_ptr<c10d::Work>;
  using Tensors = std::vector<at::Tensor>;

  // c10d's abort() does nothing for Gloo. This one closes the connections, which the peers detect immediately. Gloo does
  // not wake the waiting threads of this process: they fail at the timeout.
  void abort() override {
    for (auto& context : contexts_) context->closeConnections();
  }

  Work broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    std::lock_guard<std::mutex> lock(start_mutex);
    return ProcessGroupGloo::broadcast(tensors, options);
  }

  Work allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    std::lock_guard<std::mutex> lock(start_mutex);
    return ProcessGroupGloo::allreduce(tensors, options);
  }

  Work allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override {
    std::lock_guard<std::mutex> lock(start_mutex);
    return ProcessGroupGloo::allgather(outputs, inputs, options);
  }

  Work alltoall_base(
      at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_sizes, std::vector<int64_t>& input_sizes,
      const c10d::AllToAllOptions& options) override {
    std::lock_guard<std::mutex> lock(start_mutex);
    return ProcessGroupGloo::alltoall_base(output, input, output_sizes, input_sizes, options);
  }

  Work barrier(const c10d::BarrierOptions& options) override {
    std::lock_guard<std::mutex> lock(start_mutex);
    return ProcessGroupGloo::barrier(options);
  }
};

// A handle to the tensor's memory without autograd. Gloo ignores strides and accesses `numel` elements from the tensor's
// address, so a tensor that is not dense would be written out of bounds.
at::Tensor in_place_operand(const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.defined(), "the tensor is undefined");
  TORCH_CHECK_VALUE(
      tensor.is_non_overlapping_and_dense(), "the tensor is not dense or its elements overlap (sizes ",
      tensor.sizes(), ", strides ", tensor.strides(), "); pass a contiguous copy");
  return tensor.detach();
}

std::vector<at::Tensor> detached(const datjob_tensor* const* borrowed, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (const at::Tensor& tensor : datjob::tensors(borrowed, count)) {
    TORCH_CHECK_VALUE(tensor.defined(), "tensor ", all.size(), " is undefined");
    all.push_back(tensor.detach());
  }
  return all;
}

c10d::ReduceOp reduce_op(uint8_t op) { return static_cast<c10d::ReduceOp::RedOpType>(op); }

}  // namespace

extern "C" {

int datjob_group_new(const datjob_store* store, int rank, int world_size, const char* name, datjob_group** out) {
  return guarded([&] {
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store->store, rank, world_size);
    *out = new datjob_group{std::move(group), name};
  });
}

int datjob_group_attach_gloo(
    datjob_group* group, const datjob_store* store, int device_kind, const char* device, int64_t timeout_ms,
    int cuda_tensors_too) {
  return guarded([&] {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->group_name = group->name;
    options->devices.push_back(
        device_kind == DATJOB_GLOO_INTERFACE ? c10d::ProcessGroupGloo::createDeviceForInterface(device)
                                             : c10d::ProcessGroupGloo::createDeviceForHostname(device));
    // Backends of a group share its store, so each needs a separate prefix.
    auto keys = c10::make_intrusive<c10d::PrefixStore>("gloo", store->store);
    auto backend = c10::make_intrusive<GlooBackend>(
        keys, group->group->getRank(), group->group->getSize(), std::move(options));
    backend->setSequenceNumberForGroup();
    group->group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, backend);
    if (cuda_tensors_too) {
      group->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::GLOO, backend);
    }
    group->group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    group->group->setGroupName(group->name);
  });
}

int datjob_group_abort(const datjob_group* group) {
  return guarded([&] { group->group->abort(); });
}

void datjob_group_free(datjob_group* group) { datjob::release(group); }

int datjob_group_all_reduce(const datjob_group* group, const datjob_tensor* tensor, uint8_t op, datjob_work** out) {
  return guarded([&] {
    std::vector<at::Tensor> operands{in_place_operand(datjob::tensor(tensor))};
    c10d::AllreduceOptions options;
    options.reduceOp = reduce_op(op);
    *out = new datjob_work{group->group->allreduce(operands, options)};
  });
}

int datjob_group_broadcast(const datjob_group* group, const datjob_tensor* tensor, int root, datjob_work** out) {
  return guarded([&] {
    std::vector<at::Tensor> operands{in_place_operand(datjob::tensor(tensor))};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = new datjob_work{group->group->broadcast(operands, options)};
  });
}

int datjob_group_all_gather(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_gathered, datjob_work** out) {
  return guarded([&] {
    const at::Tensor& given = datjob::tensor(tensor);
    TORCH_CHECK_VALUE(given.defined(), "the tensor is undefined");
    std::vector<at::Tensor> inputs{given.detach().contiguous()};
    std::vector<int64_t> shape = inputs[0].sizes().vec();
    shape.insert(shape.begin(), group->group->getSize());
    at::Tensor gathered = at::empty(shape, inputs[0].options());
    std::vector<std::vector<at::Tensor>> outputs{gathered.unbind(0)};
    auto work = std::make_unique<datjob_work>(datjob_work{group->group->allgather(outputs, inputs)});
    *out_gathered = datjob::give_to_caller(std::move(gathered));
    *out = work.release();
  });
}

int datjob_group_all_to_all(
    const datjob_group* group, const datjob_tensor* tensor, datjob_tensor** out_received, datjob_work** out) {
  return guarded([&] {
    const at::Tensor& given = datjob::tensor(tensor);
    TORCH_CHECK_VALUE(given.defined(), "the tensor is undefined");
    TORCH_CHECK_VALUE(
        given.dim() > 0 && given.size(0) == group->group->getSize(), "invalid shape ", given.sizes(),
        ": the first dimension must be the world size ", group->group->getSize());
    at::Tensor input = given.detach().contiguous();
    at::Tensor output = at::empty(input.sizes(), input.options());
    // Without split sizes, each rank gets an equal part.
    std::vector<int64_t> equal;
    auto work = std::make_unique<datjob_work>(datjob_work{group->group->alltoall_base(output, input, equal, equal)});
    *out_received = datjob::give_to_caller(std::move(output));
    *out = work.release();
  });
}

int datjob_group_barrier(const datjob_group* group, datjob_work** out) {
  return guarded([&] { *out = new datjob_work{group->group->barrier()}; });
}

int datjob_group_broadcast_coalesced(
    const datjob_group* group, const datjob_tensor* const* tensors, size_t count, size_t buffer_bytes, int root) {
  return guarded([&] {
    if (count > 0) c10d::broadcast_coalesced(group->group, detached(tensors, count), buffer_bytes, root);
  });
}

int datjob_work_wait(const datjob_work* work) {
  return guarded([&] { TORCH_CHECK(work->work->wait(), "the collective was aborted"); });
}

int datjob_work_is_completed(const datjob_work* work, int* out_completed) {
  return guarded([&] { *out_completed = work->work->isCompleted() ? 1 : 0; });
}

void datjob_work_free(datjob_work* work) { datjob::release(work); }
}
