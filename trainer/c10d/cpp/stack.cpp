// Runs a function on the main thread, wherever that is.
#include "bridge.h"

#include <csignal>

#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace {

sem_t returned;
void (*function)(void);

void run(int) {
  function();
  sem_post(&returned);
}

}  // namespace

extern "C" int datjob_interrupt_main_thread(void (*interruption)(void), int64_t timeout_ms) {
  function = interruption;
  struct sigaction action {};
  action.sa_handler = run;
  action.sa_flags = SA_RESTART;
  if (sem_init(&returned, 0, 0) != 0 || sigaction(SIGUSR2, &action, nullptr) != 0) return 0;
  const pid_t main_thread = getpid();
  if (syscall(SYS_tgkill, main_thread, main_thread, SIGUSR2) != 0) return 0;
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += timeout_ms / 1000;
  return sem_timedwait(&returned, &until) == 0 ? 1 : 0;
}
