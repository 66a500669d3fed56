// The key-value store.
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "guard.h"
#include "handles.h"

using datjob::guarded;

extern "C" {

int datjob_store_host(int listen_fd, const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = true;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    options.masterListenFd = listen_fd;
    *out = new datjob_store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

int datjob_store_connect(const char* host, uint16_t port, int64_t timeout_ms, datjob_store** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new datjob_store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

int datjob_store_prefix(const datjob_store* store, const char* prefix, datjob_store** out) {
  return guarded([&] { *out = new datjob_store{c10::make_intrusive<c10d::PrefixStore>(prefix, store->store)}; });
}

int datjob_store_set(const datjob_store* store, const char* key, const uint8_t* value, size_t length) {
  return guarded([&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

int datjob_store_get(const datjob_store* store, const char* key, uint8_t** out_value, size_t* out_length) {
  return guarded([&] {
    const std::vector<uint8_t> value = store->store->get(key);
    auto* bytes = static_cast<uint8_t*>(std::malloc(value.empty() ? 1 : value.size()));
    if (bytes == nullptr) throw std::bad_alloc();
    if (!value.empty()) std::memcpy(bytes, value.data(), value.size());
    *out_value = bytes;
    *out_length = value.size();
  });
}

int datjob_store_add(const datjob_store* store, const char* key, int64_t amount, int64_t* out_sum) {
  return guarded([&] { *out_sum = store->store->add(key, amount); });
}

int datjob_store_wait(const datjob_store* store, const char* key, int64_t timeout_ms) {
  return guarded([&] { store->store->wait({std::string(key)}, std::chrono::milliseconds(timeout_ms)); });
}

void datjob_bytes_free(uint8_t* bytes) { std::free(bytes); }

void datjob_store_free(datjob_store* store) { datjob::release(store); }
}
