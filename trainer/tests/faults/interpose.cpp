// Preloaded into the processes of a test, makes calls of the C library fail as a faulty volume would:
// FAULT_CALL (open or write) on paths that contain FAULT_PATH fails with the error number FAULT_ERRNO while the file
// FAULT_WHILE exists; with the number 0 it waits until that file is gone, and goes on. Each such call appends a byte to the file
// FAULT_STRUCK, the proof that the fault was met.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// By system calls, so that nothing here comes back to the functions below.
bool exists(const char *path) { return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0; }

bool fails(const char *call, const char *path) {
  const char *on = getenv("FAULT_CALL"), *part = getenv("FAULT_PATH"), *marker = getenv("FAULT_WHILE");
  const char *number = getenv("FAULT_ERRNO"), *struck = getenv("FAULT_STRUCK");
  if (!on || !part || !marker || !number || !struck || strcmp(on, call) != 0 || !strstr(path, part) || !exists(marker)) {
    return false;
  }
  long file = syscall(SYS_openat, AT_FDCWD, struck, O_WRONLY | O_CREAT | O_APPEND, 0644);
  syscall(SYS_write, file, "x", 1);
  syscall(SYS_close, file);
  const int error = atoi(number);
  if (error == 0) {
    while (exists(marker)) usleep(10000);
    return false;
  }
  errno = error;
  return true;
}

template <typename Function>
Function next(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define OPEN(name)                                                     \
  extern "C" int name(const char *path, int flags, ...) {              \
    static const auto real = next<int (*)(const char *, int, ...)>(#name); \
    va_list list;                                                      \
    va_start(list, flags);                                             \
    const mode_t mode = va_arg(list, mode_t);                          \
    va_end(list);                                                      \
    return fails("open", path) ? -1 : real(path, flags, mode);         \
  }

OPEN(open)
OPEN(open64)

extern "C" ssize_t write(int file, const void *bytes, size_t count) {
  static const auto real = next<ssize_t (*)(int, const void *, size_t)>("write");
  if (getenv("FAULT_CALL")) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length > 0) {
      path[length] = 0;
      if (fails("write", path)) return -1;
    }
  }
  return real(file, bytes, count);
}
