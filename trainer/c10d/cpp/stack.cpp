// The stack of the main thread.
#include "bridge.h"

#include <c10/util/Backtrace.h>

#include <csignal>
#include <cstdio>
#include <string>

#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace {

sem_t printed;

// Allocates memory, which a signal handler may not do: the thread may be in the allocator, and then waits for ever. The process
// is about to end, and the caller does not wait for longer than a few seconds.
void print_stack(int) {
  const std::string stack = c10::get_backtrace(2, 64, false);
  std::fprintf(stderr, "%s\n", stack.c_str());
  sem_post(&printed);
}

}  // namespace

extern "C" int datjob_print_main_stack(int64_t timeout_ms) {
  struct sigaction action {};
  action.sa_handler = print_stack;
  action.sa_flags = SA_RESTART;
  if (sem_init(&printed, 0, 0) != 0 || sigaction(SIGUSR2, &action, nullptr) != 0) return 0;
  const pid_t main_thread = getpid();
  if (syscall(SYS_tgkill, main_thread, main_thread, SIGUSR2) != 0) return 0;
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += timeout_ms / 1000;
  return sem_timedwait(&printed, &until) == 0 ? 1 : 0;
}
