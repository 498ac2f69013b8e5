// Loops over independent tasks on the threads of XLA's own pool.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

#include "tile.h"
#include "xla/ffi/api/ffi.h"

// Calls run(task) for every task in [0, tasks). The caller works too, so it ends even where no other thread is free.
// Where a task throws std::bad_alloc, those that have not begun are left out, and it is thrown here.
template <typename Run>
void parallel(xla::ffi::ThreadPool& pool, size_t tasks, const Run& run) {
  struct Shared {  // outlives the call: a helper may start after all work is done
    std::atomic<size_t> next{0}, done{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::condition_variable finished;
  };
  const auto shared = std::make_shared<Shared>();
  auto work = [shared, tasks, &run] {
    for (size_t task; (task = shared->next.fetch_add(1)) < tasks;) {
      try {
        if (!shared->failed) run(task);
      } catch (const std::bad_alloc&) {
        shared->failed = true;
      }
      if (shared->done.fetch_add(1) + 1 == tasks) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_one();
      }
    }
  };
  const size_t threads = std::max<int64_t>(1, pool.num_threads());
  for (size_t helper = 1; helper < std::min(threads, tasks); helper++) {
    auto copy = work;
    try {
      pool.Schedule(std::move(copy));
    } catch (const std::bad_alloc&) {
      break;  // with fewer helpers
    }
  }
  work();
  const auto finished = [&] { return shared->done.load() == tasks; };
  for (int spin = 0; spin < 4096 && !finished(); spin++) {  // tasks end at about the same time: cheaper than sleeping
  }
  if (!finished()) {
    std::unique_lock<std::mutex> lock(shared->mutex);
    shared->finished.wait(lock, finished);
  }
  if (shared->failed) throw std::bad_alloc();
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kReuse = false;  // memory of exactly the size that was asked for, so that its end is watched
#else
constexpr bool kReuse = true;
#endif

// Memory of the calling thread, reused from call to call; `slot` tells apart what one task holds at a time. Throws
// std::bad_alloc.
template <int slot>
float* thread_scratch(size_t floats) {
  thread_local std::unique_ptr<float, decltype(&std::free)> memory(nullptr, &std::free);
  thread_local size_t size = 0;
  if (size < floats || (!kReuse && size != floats)) {
    memory.reset();
    size = 0;
    if (floats > PTRDIFF_MAX / sizeof(float) - 16) throw std::bad_alloc();
    memory.reset(static_cast<float*>(std::aligned_alloc(64, sizeof(float) * round_up(floats, 16))));
    if (!memory) throw std::bad_alloc();
    size = floats;
  }
  return memory.get();
}
