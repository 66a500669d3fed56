// Memory formats and storage of tensors.
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include "guard.h"
#include "handles.h"

using datjob::guarded;

extern "C" {

int datjob_tensor_contiguous_channels_last(const datjob_tensor* tensor, datjob_tensor** out) {
  return guarded([&] {
    *out = datjob::give_to_caller(datjob::tensor(tensor).contiguous(at::MemoryFormat::ChannelsLast));
  });
}

int datjob_tensor_set_channels_last(const datjob_tensor* tensor) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const at::Tensor& target = datjob::tensor(tensor);
    target.set_data(target.detach().contiguous(at::MemoryFormat::ChannelsLast));
  });
}

int datjob_tensor_forbid_resize(const datjob_tensor* tensor) {
  return guarded([&] {
    datjob::tensor(tensor).unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()->set_resizable(false);
  });
}
}
