// The DDP reducer.
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "guard.h"
#include "handles.h"

using datjob::guarded;

namespace {

// A communication hook that passes buckets to a callback, which may average them after the backward pass.
class DeferredHook : public c10d::CommHookInterface {
 public:
  DeferredHook(datjob_bucket_hook hook, void* state) : hook_(hook), state_(state) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    const at::Tensor& gradient = bucket.getBuffer();
    const char* error = hook_(state_, bucket.getIndex(), datjob::give_to_caller(gradient));
    TORCH_CHECK(error == nullptr, error);
    std::vector<c10::Device> devices;
    if (!gradient.is_cpu()) devices.push_back(gradient.device());
    // The future is complete: the gradients are views of the bucket, which the callback averages in place.
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::TensorType::get(), std::move(devices));
    future->markCompleted(c10::IValue(gradient));
    return future;
  }

  at::Tensor parseHookResult(const c10::IValue& result) override { return result.toTensor(); }

 private:
  datjob_bucket_hook hook_;
  void* state_;
};

}  // namespace

struct datjob_reducer {
  std::vector<at::Tensor> parameters;
  // The same in every process and every step, because the order of sums and the rounding of a hook depend on them.
  std::vector<std::vector<size_t>> buckets;
  std::shared_ptr<c10d::Reducer> reducer;
  std::shared_ptr<c10d::Logger> logger;

  void reset() const {
    reducer->reset_state();
    // A failed step leaves gradients partly reduced and possibly in the memory of the old buckets.
    for (const at::Tensor& parameter : parameters) parameter.mutable_grad().reset();
    reducer->initialize_buckets(buckets);
  }
};

extern "C" {

int datjob_reducer_new(
    const datjob_tensor* const* parameters, const char* const* names, size_t count, const datjob_group* group,
    int64_t first_bucket_bytes, int64_t bucket_cap_bytes, int gradient_as_bucket_view, datjob_reducer** out) {
  return guarded([&] {
    auto handle = std::make_unique<datjob_reducer>();
    handle->parameters = datjob::tensors(parameters, count);
    std::unordered_map<size_t, std::string> names_by_index;
    for (size_t i = 0; i < count; i++) names_by_index[i] = names[i];

    const std::vector<bool> sparse(count, false);
    // Gradients become ready roughly from the last parameter to the first, and buckets are reduced in order.
    const std::vector<at::Tensor> backwards(handle->parameters.rbegin(), handle->parameters.rend());
    handle->buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        backwards, {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_cap_bytes)}, sparse));
    for (std::vector<size_t>& bucket : handle->buckets) {
      for (size_t& index : bucket) index = count - 1 - index;
    }

    handle->reducer = std::make_shared<c10d::Reducer>(
        handle->parameters, handle->buckets, group->group, sparse, bucket_cap_bytes,
        /*find_unused_parameters=*/false, gradient_as_bucket_view != 0, std::move(names_by_index),
        first_bucket_bytes, /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>{});
    handle->logger = std::make_shared<c10d::Logger>(handle->reducer);
    handle->reducer->set_logger(handle->logger);
    // Without a profiler, times are measured in the first ten steps, then in every tenth.
    handle->reducer->set_ddp_runtime_logging_sample_rate(10);
    handle->logger->set_construction_data_and_log(
        "datjob", /*device_ids=*/{}, /*output_device=*/-1, /*broadcast_buffers=*/false, /*has_sync_bn=*/false,
        /*static_graph=*/false);
    *out = handle.release();
  });
}

int datjob_reducer_set_hook(const datjob_reducer* reducer, datjob_bucket_hook hook, void* state) {
  return guarded([&] { reducer->reducer->register_comm_hook(std::make_unique<DeferredHook>(hook, state)); });
}

int datjob_reducer_prepare_forward(const datjob_reducer* reducer) {
  return guarded([&] {
    reducer->logger->set_runtime_stats_and_log();
    reducer->reducer->prepare_for_forward();
    // libtorch rebuilds the buckets once after a process's first step, in the order in which gradients became ready. A
    // process that has just joined would do so later than the others, and a resumed training would round differently from
    // an uninterrupted one. So the original buckets are restored.
    if (reducer->reducer->rebuild_buckets()) reducer->reducer->initialize_buckets(reducer->buckets);
  });
}

int datjob_reducer_prepare_backward(const datjob_reducer* reducer) {
  return guarded([&] { reducer->reducer->prepare_for_backward({}); });
}

int datjob_reducer_check_finished(const datjob_reducer* reducer) {
  return guarded([&] { reducer->reducer->check_finalized(); });
}

int datjob_reducer_reset(const datjob_reducer* reducer) {
  return guarded([&] { reducer->reset(); });
}

int datjob_reducer_release_group(const datjob_reducer* reducer) {
  return guarded([&] {
    // Replace the group by one without a backend. If this releases the last reference, it waits for running collectives,
    // so that none of them writes to the buckets afterwards.
    reducer->reducer->update_process_group(c10::make_intrusive<c10d::ProcessGroup>(/*rank=*/0, /*size=*/1));
    reducer->reset();
  });
}

int datjob_reducer_set_group(const datjob_reducer* reducer, const datjob_group* group) {
  return guarded([&] { reducer->reducer->update_process_group(group->group); });
}

int datjob_reducer_get_statistics(const datjob_reducer* reducer, datjob_reducer_statistics* out) {
  return guarded([&] {
    const auto numbers = reducer->logger->get_ddp_logging_data().ints_map;
    const auto number = [&](const char* name) {
      const auto entry = numbers.find(name);
      return entry == numbers.end() ? int64_t{0} : entry->second;
    };
    out->iterations = number("iteration");
    out->forward_compute_ns = number("forward_compute_time");
    out->backward_compute_ns = number("backward_compute_time");
    out->backward_communication_ns = number("backward_comm_time");
    out->backward_overlap_ns = number("backward_compute_comm_overlap_time");
    out->mean_forward_compute_ns = number("avg_forward_compute_time");
    out->mean_backward_compute_ns = number("avg_backward_compute_time");
    out->mean_backward_communication_ns = number("avg_backward_comm_time");
    out->mean_backward_overlap_ns = number("avg_backward_compute_comm_overlap_time");
  });
}

int datjob_reducer_bucket_sizes(const datjob_reducer* reducer, int64_t* sizes, size_t capacity, size_t* out_count) {
  return guarded([&] {
    const std::vector<int64_t> all = reducer->logger->get_bucket_sizes();
    std::copy_n(all.begin(), std::min(capacity, all.size()), sizes);
    *out_count = all.size();
  });
}

void datjob_reducer_free(datjob_reducer* reducer) { datjob::release(reducer); }
}
