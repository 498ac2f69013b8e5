// Loops over independent tasks on the threads of XLA's own pool.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

// Calls run(task) for every task in [0, tasks). The caller works too, so it ends even where no other thread is free.
template <typename Run>
void parallel(xla::ffi::ThreadPool& pool, size_t tasks, const Run& run) {
  struct Shared {  // outlives the call: a helper may start after all work is done
    std::atomic<size_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  const auto shared = std::make_shared<Shared>();
  auto work = [shared, tasks, &run] {
    for (size_t task; (task = shared->next.fetch_add(1)) < tasks;) {
      run(task);
      if (shared->done.fetch_add(1) + 1 == tasks) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_one();
      }
    }
  };
  const size_t threads = std::max<int64_t>(1, pool.num_threads());
  for (size_t helper = 1; helper < std::min(threads, tasks); helper++) {
    auto copy = work;
    pool.Schedule(std::move(copy));
  }
  work();
  for (int spin = 0; spin < 4096; spin++)  // tasks end at about the same time: cheaper than sleeping
    if (shared->done.load() == tasks) return;
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done.load() == tasks; });
}

// Memory of the calling thread, kept from call to call; `slot` tells apart what one task holds at a time.
template <int slot>
float* scratch(size_t floats) {
  thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
  thread_local size_t size = 0;
  if (size < floats) {
    size = (floats + 1023) / 1024 * 1024;
    memory.reset(static_cast<float*>(std::aligned_alloc(64, sizeof(float) * size)));
  }
  return memory.get();
}
