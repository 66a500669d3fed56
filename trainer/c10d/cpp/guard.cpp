#include "guard.h"

#include <utility>

namespace {
thread_local std::string last_error;
}

namespace datjob {

void set_last_error(std::string message) { last_error = std::move(message); }

}  // namespace datjob

extern "C" const char* datjob_last_error(void) { return last_error.c_str(); }
