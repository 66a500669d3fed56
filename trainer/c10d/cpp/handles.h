// Definitions of the opaque types of bridge.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <string>
#include <utility>
#include <vector>

#include "bridge.h"

struct datjob_store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct datjob_group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  // c10d stores a group's name in its backends, so it is set after a backend is attached.
  std::string name;
};

struct datjob_work {
  c10::intrusive_ptr<c10d::Work> work;
};

namespace datjob {

inline const at::Tensor& tensor(const datjob_tensor* borrowed) {
  return *reinterpret_cast<const at::Tensor*>(borrowed);
}

inline std::vector<at::Tensor> tensors(const datjob_tensor* const* borrowed, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; i++) all.push_back(tensor(borrowed[i]));
  return all;
}

inline datjob_tensor* give_to_caller(at::Tensor tensor) {
  return reinterpret_cast<datjob_tensor*>(new at::Tensor(std::move(tensor)));
}

}  // namespace datjob
