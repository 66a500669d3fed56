// Converts C++ exceptions to status codes.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

#include "bridge.h"

namespace datjob {

void set_last_error(std::string message);

// Runs `body` and stores an exception as this thread's last error. Returns 0 for success, -1 for failure.
template <class Body>
int guarded(Body&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    set_last_error(error.what_without_backtrace());
  } catch (const std::exception& error) {
    set_last_error(error.what());
  } catch (...) {
    set_last_error("a C++ exception of unknown type");
  }
  return -1;
}

// Frees a handle. A destructor that throws must not abort the process; its message is ignored.
template <class Handle>
void release(Handle* handle) noexcept {
  guarded([&] { delete handle; });
}

}  // namespace datjob
