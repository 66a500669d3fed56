// The last error and the log level.
#include "guard.h"

#include <c10/util/Logging.h>

#include <utility>

namespace {
thread_local std::string last_error;
}

namespace datjob {

void set_last_error(std::string message) { last_error = std::move(message); }

}  // namespace datjob

extern "C" {

const char* datjob_last_error(void) { return last_error.c_str(); }

void datjob_set_log_level(int level) {
  // Other threads read it as a plain int.
  __atomic_store_n(&FLAGS_caffe2_log_level, level, __ATOMIC_RELAXED);
}
}
